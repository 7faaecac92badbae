"""Sweeps of a local hub: memory, speed beside other ways, and what a million adapters cost."""
