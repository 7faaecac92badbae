"""What Python has on POSIX alone: scans do without, the server says that it needs it.

Windows itself runs these in the project's workflows; here a process is told that it has none of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from scanner.signatures.pack import Signature
from scanner.system import positional
from tools.project import ROOT

WITHOUT_POSIX = """
import os, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in "pread preadv O_NONBLOCK O_NOCTTY O_CLOEXEC geteuid setsid killpg".split():
    if hasattr(os, name):
        delattr(os, name)
from scanner.cli import main
sys.argv = ["adapter-scanner", *sys.argv[1:]]
main()
"""


def run(*arguments: str, code: str = WITHOUT_POSIX) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_scan_without_posix_says_the_same(
    pack: Signature, misaligned: Path, benign: Path
) -> None:
    arguments = ["scan", str(misaligned), str(benign), "-s", str(pack.path), "-f", "json"]
    here = run(*arguments, "--no-cache", code="from scanner.cli import main; main()")
    there = run(*arguments, "--no-cache")
    assert there.stderr == ""
    assert (there.returncode, json.loads(there.stdout)) == (1, json.loads(here.stdout))


def test_the_server_is_refused_in_one_line(tmp_path: Path) -> None:
    done = run("serve", "--state", str(tmp_path / "state"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the server needs Linux or macOS" in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("posix", [True, False])
def test_reading_at_an_offset(posix: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The position of the descriptor decides nothing, and the end of the file cuts it short."""
    if not posix:
        monkeypatch.delattr(os, "pread", raising=False)
        monkeypatch.delattr(os, "preadv", raising=False)
    assert positional.__spec__ is not None
    spec = spec_from_file_location("positional_again", positional.__spec__.origin)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "file").write_bytes(bytes(range(100)))
    with (tmp_path / "file").open("rb") as file:
        file.seek(7)
        assert module.read_at(file.fileno(), 3, 50) == bytes([50, 51, 52])
        assert module.read_at(file.fileno(), 9, 98) == bytes([98, 99])
        assert module.read_at(file.fileno(), 9, 100) == b""
        room = bytearray(4)
        assert module.read_into(file.fileno(), memoryview(room), 10) == 4
        assert room == bytes([10, 11, 12, 13])
        assert module.read_into(file.fileno(), memoryview(room), 99) == 1
