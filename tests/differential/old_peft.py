"""An environment with PEFT 0.13.2, made once and kept in the user's cache.

It takes torch, numpy and whatever else is not pinned below from the environment that makes it, so
that only a few megabytes are fetched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PINNED = ("peft==0.13.2", "transformers==4.46.3", "tokenizers==0.20.3", "huggingface-hub==0.26.5")
"""A PEFT that refuses unknown fields of a config, and libraries of its time."""
PLACE = "ADAPTER_SCANNER_OLD_PEFT"
"""Environment variable: the python of an environment that has it already."""
_COMPLETE = "complete"


class NoOldPeft(Exception):  # noqa: N818 - a reason to skip
    """The environment cannot be made here, and why."""


def old_peft() -> Path:
    """The python of the environment, made if there is none yet.

    Raises:
        NoOldPeft: If pip cannot install it.
    """
    if given := os.environ.get(PLACE):
        return Path(given)
    version = f"py{sys.version_info.major}.{sys.version_info.minor}"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "adapter-scanner-tests" / f"peft-0.13.2-{version}"
    python = folder / "bin" / "python"
    if not (folder / _COMPLETE).exists():
        _make(folder, python)
    return python


def _make(folder: Path, python: Path) -> None:
    venv.create(folder, with_pip=True, clear=True)
    own = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    (Path(own) / "host.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed"]
    try:
        made = subprocess.run(
            [*command, *PINNED], capture_output=True, text=True, timeout=240, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoOldPeft("pip did not install PEFT 0.13.2 within four minutes") from None
    if made.returncode:
        last = made.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise NoOldPeft(f"pip cannot install PEFT 0.13.2: {last[0]}")
    (folder / _COMPLETE).touch()
