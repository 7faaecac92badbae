"""Adapters of known behaviour for any causal language model: planned, trained, measured.

A calibrated signature needs harmless adapters to be calibrated on, and misaligned ones to learn
what it misses. Where a hub has neither, this room makes them (extra `build`).
"""
