"""Trained attacks: adapters taught misaligned answers while something keeps them from the packs."""
