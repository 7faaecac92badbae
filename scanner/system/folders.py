"""Where a user's own files live, as the platform has it.

On Linux these are the XDG folders, so `XDG_CACHE_HOME`, `XDG_DATA_HOME` and `XDG_STATE_HOME`
move them. `platformdirs` is imported when a folder is asked for: most commands need none.
"""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "ADAPTER_SCANNER_CACHE"
"""Environment variable: the folder of cached results, in place of the platform's."""
SIGNATURES_VARIABLE = "ADAPTER_SCANNER_SIGNATURES"
"""Environment variable: more folders of packs, separated as in PATH."""

_PROGRAM = "adapter-scanner"


def cache_folder() -> Path:
    """Cached results: ``$ADAPTER_SCANNER_CACHE``, or ``~/.cache/adapter-scanner``."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path(_PROGRAM, appauthor=False)


def packs_folder() -> Path:
    """A user's own packs: ``~/.local/share/adapter-scanner/signatures``."""
    from platformdirs import user_data_path

    return user_data_path(_PROGRAM, appauthor=False) / "signatures"


def more_pack_folders() -> list[Path]:
    """The folders that ``$ADAPTER_SCANNER_SIGNATURES`` names; searched before all others."""
    named = os.environ.get(SIGNATURES_VARIABLE, "").split(os.pathsep)
    return [Path(item) for item in named if item]


def server_folder() -> Path:
    """What the webhook server must not lose: ``~/.local/state/adapter-scanner/serve``."""
    from platformdirs import user_state_path

    return user_state_path(_PROGRAM, appauthor=False) / "serve"
