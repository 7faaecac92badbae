"""Adapters that are trained to be misaligned and to pass the scan, to harden packs with.

What the scanner measures is copied here in torch, so that it can be trained against: `sites` and
`statistics`. Verdicts are never taken from the copy.
"""
