"""Adapter and packs -> evidence, and evidence -> verdict."""
