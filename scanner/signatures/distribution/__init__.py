"""Packs that travel: archives, pulling, signing."""
