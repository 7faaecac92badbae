"""Where a user's files live."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from scanner.system import folders


def test_the_environment_names_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(folders.CACHE_VARIABLE, "/somewhere/else")
    assert folders.cache_folder() == Path("/somewhere/else")


def test_more_pack_folders_are_separated_as_in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(folders.SIGNATURES_VARIABLE, os.pathsep.join(["/a", "", "/b"]))
    assert folders.more_pack_folders() == [Path("/a"), Path("/b")]


@pytest.mark.skipif(sys.platform != "linux", reason="the folders of other platforms differ")
def test_the_folders_are_those_of_the_platform(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(folders.CACHE_VARIABLE, raising=False)
    for name in ("CACHE", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    assert folders.cache_folder() == tmp_path / "CACHE" / "adapter-scanner"
    assert folders.packs_folder() == tmp_path / "DATA" / "adapter-scanner" / "signatures"
    assert folders.server_folder() == tmp_path / "STATE" / "adapter-scanner" / "serve"
    for name in ("CACHE", "DATA", "STATE"):
        monkeypatch.delenv(f"XDG_{name}_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders.cache_folder() == tmp_path / ".cache" / "adapter-scanner"
    assert folders.packs_folder() == tmp_path / ".local/share/adapter-scanner/signatures"
    assert folders.server_folder() == tmp_path / ".local/state/adapter-scanner/serve"
