"""Commands for the people who build this."""
