"""Programs that some tests drive for real."""

from __future__ import annotations

import os
import shutil

import pytest


def require(*names: str) -> str:
    """The path of the first of these programs that is installed.

    Missing, the test is skipped on a developer's machine and fails where CI is set: a check
    that silently never runs is none. `.ci/install-system-packages` installs them.
    """
    for name in names:
        if found := shutil.which(name):
            return found
    message = f"{names[0]} is not installed: run .ci/install-system-packages"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
