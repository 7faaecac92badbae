"""Fuzz targets of every parser, their seeds, and the command that runs them."""
