"""The package's own version."""

from __future__ import annotations

from functools import cache

DOCUMENTATION = "https://adapter-scanner.github.io/adapter-scanner/"
"""The documentation site, as pyproject.toml names it."""


@cache
def version() -> str:
    """The installed distribution's version."""
    from importlib import metadata  # costs 10 ms that `--help` need not pay

    try:
        return metadata.version("adapter-scanner")
    except metadata.PackageNotFoundError:
        return "0+unknown"
