"""What a search leaves alone: environments, packages and caches, and what the user says.

Nothing is left out in silence: what was is kept, so that the run can say so. A target that is
named is scanned, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

_ENVIRONMENTS = frozenset({".venv", "venv", ".env", "env", "virtualenv"})
_ENVIRONMENT_MARK = "pyvenv.cfg"
"""A folder of such a name is a virtual environment only if this lies in it (PEP 405)."""
_PROGRAMS = frozenset(
    {
        "node_modules",
        "__pycache__",
        ".tox",
        ".nox",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".ipynb_checkpoints",
        ".hg",
        ".svn",
    }
)
_SHOWN = 5


@dataclass
class Exclusion:
    """Which files and folders below the targets are left alone.

    Args:
        patterns: Globs. One without a slash is matched with every name, one with a slash with the
            path from the target on and with the path as it is written.
        defaults: Whether environments, packages and caches are left alone too.
    """

    patterns: Sequence[str] = ()
    defaults: bool = True
    left_out: list[str] = field(default_factory=list)
    """What has been left out so far, without what was below it."""

    def __call__(self, path: Path, root: Path) -> bool:
        """Whether a path below a target is left out.

        Args:
            path: The file or folder.
            root: The target.
        """
        left_out = (self.defaults and _is_program(path)) or self._matches(path, root)
        if left_out:
            self.left_out.append(str(path))
        return left_out

    def holds(self, path: Path) -> bool:
        """Whether a pattern matches a path that was named, or a folder above it."""
        return any(self._matches(place, Path()) for place in (path, *path.parents))

    def _matches(self, path: Path, root: Path) -> bool:
        inner = path.relative_to(root) if path.is_relative_to(root) else path
        whole = (inner.as_posix(), path.as_posix())
        return any(
            fnmatchcase(name, pattern)
            for pattern in (given.rstrip("/") for given in self.patterns)
            for name in (whole if "/" in pattern else (path.name,))
        )

    def in_words(self) -> str:
        """What was left out, in a line; empty if nothing was."""
        if not self.left_out:
            return ""
        more = len(self.left_out) - _SHOWN
        listed = ", ".join(self.left_out[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
        return f"left out: {listed}; name one to scan it"


def _is_program(path: Path) -> bool:
    if path.name in _ENVIRONMENTS:
        return (path / _ENVIRONMENT_MARK).is_file()
    return path.name in _PROGRAMS and path.is_dir()
