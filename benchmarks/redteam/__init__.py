"""Attacks on a verdict: what of an adapter's misalignment survives where it scans `clear`."""
