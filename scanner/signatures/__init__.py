"""Signature packs: load, verify, match to a base, build and calibrate."""
