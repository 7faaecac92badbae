"""What watching a training finds, how often it is wrong over a whole run, and what it costs."""
