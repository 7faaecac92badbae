"""Stands in front of the real torch on a test's path: a machine that does not have it."""

raise ImportError("torch is not installed, as far as this test goes")
