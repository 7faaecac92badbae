"""The package's own version."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

DOCUMENTATION = "https://adapter-scanner.github.io/adapter-scanner/"
"""The documentation site, as pyproject.toml names it."""


@cache
def version() -> str:
    """The installed distribution's version."""
    if found := _named_by_its_folder():
        return found
    from importlib import metadata  # with a parser of mail: 15 ms

    try:
        return metadata.version("adapter-scanner")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def _named_by_its_folder() -> str | None:
    """The version in the name of the folder that the installer keeps of it, where it is plain."""
    for place in sys.path:
        found = [path.name for path in Path(place).glob("adapter_scanner-*.dist-info")]
        if found:
            name = found[0].removesuffix(".dist-info").removeprefix("adapter_scanner-")
            return name if len(found) == 1 else None
    return None
