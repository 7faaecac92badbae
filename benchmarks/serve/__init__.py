"""The webhook server under load."""
