"""Verdicts that other programs act on: policy, signed verdicts, registries and hubs."""
