"""What pyproject.toml says of the project, for tools that must agree with it."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


@cache
def project() -> dict[str, Any]:
    """The `project` table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def repository_url() -> str:
    """Where the repository is published, without a slash at the end."""
    url: str = project()["urls"]["Source"]
    return url.rstrip("/")
