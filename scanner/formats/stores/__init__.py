"""Containers of named tensors, told apart by their first bytes, not by their names."""
