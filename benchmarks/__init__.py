"""Benchmarks and the organism lab: everything a claim in the documentation rests on."""
