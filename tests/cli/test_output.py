from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from scanner.cli.output import write_report
from scanner.errors import UsageError
from scanner.signatures.pack import Signature
from tests.cli.program import PROGRAM, ROOT, run


def test_a_missing_directory_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write_report("text", tmp_path / "nowhere" / "report")


def test_machine_formats_stand_alone_on_standard_output(pack: Signature, misaligned: Path) -> None:
    done = run("scan", misaligned, "-s", pack.path, "-f", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["summary"]["flagged"] == 1
    assert done.stderr == ""


def test_output_to_a_file_prints_nothing(pack: Signature, benign: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = run("scan", benign, "-s", pack.path, "-f", "json", "-o", report)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(report.read_text())["summary"]["clear"] == 1


def test_no_progress_when_not_on_a_terminal(
    pack: Signature, misaligned: Path, benign: Path
) -> None:
    done = run("scan", misaligned, benign, "-s", pack.path)
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


def test_a_terminal_that_speaks_ascii_gets_ascii(pack: Signature, misaligned: Path) -> None:
    done = run("scan", misaligned, "-s", pack.path, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1
    assert done.stdout.isascii()
    assert "####" in done.stdout


def test_a_reader_that_leaves_early_does_not_change_the_status(
    pack: Signature, misaligned: Path
) -> None:
    done = subprocess.run(
        [
            "bash",
            "-c",
            'set -o pipefail; "$@" | true; echo "${PIPESTATUS[0]}"',
            "-",
            *PROGRAM,
            "scan",
            str(misaligned),
            "-s",
            str(pack.path),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "1\n"
    assert done.stderr == ""
