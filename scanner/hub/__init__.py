"""The hub: addresses, reading by ranges, and sweeps over everything it lists."""
