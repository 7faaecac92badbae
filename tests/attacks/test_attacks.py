"""No hostile or broken file crashes, hangs, eats memory, runs code, or is ever `clear`.

Every attack runs in a process of its own, as a user would run it, with its time and its peak
memory measured. Pickles need torch, whose import alone is most of their budget.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from scanner.signatures.pack import Signature
from tests.attacks.build import ATTACKS, build, honest, payload_mark

MAX_SECONDS = 2.0
MAX_BYTES = 300 * 2**20
TORCH_SECONDS = float(os.environ.get("SLOW_MACHINE_SECONDS", "6"))
"""What importing torch may take on a busy machine, for pickles only."""
USES_TORCH = frozenset(
    name
    for name in ATTACKS
    if name.startswith(("pickle_", "archive_bomb")) and "beside" not in name
)
SCRATCH = ("measured.json", "stdout.txt", "stderr.txt")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\u200b]")


@dataclass(frozen=True)
class Outcome:
    """What a run of the scanner did."""

    status: int
    stdout: str
    stderr: str
    seconds: float
    processor_seconds: float
    peak_bytes: int


_LAUNCHER = """
import json, os, sys, time
report, out, err, *command = sys.argv[1:]
mode = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
started = time.perf_counter()
pid = os.posix_spawn(command[0], command, os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, 1, out, mode, 0o600), (os.POSIX_SPAWN_OPEN, 2, err, mode, 0o600)])
_, status, usage = os.wait4(pid, 0)
with open(report, "w") as file:
    json.dump({"status": os.waitstatus_to_exitcode(status),
               "seconds": time.perf_counter() - started,
               "processor_seconds": usage.ru_utime + usage.ru_stime,
               "peak_bytes": usage.ru_maxrss * 1024}, file)
"""
"""A small process between: a child's peak memory starts at its parent's."""


def run(arguments: list[str], scratch: Path) -> Outcome:
    """Runs the command in a process of its own, measured by the kernel."""
    report, out, err = (scratch / name for name in SCRATCH)
    command = [sys.executable, "-m", "scanner", *arguments]
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(report), str(out), str(err), *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        check=True,
    )
    return Outcome(
        stdout=out.read_text("utf-8", "replace"),
        stderr=err.read_text("utf-8", "replace"),
        **json.loads(report.read_text()),
    )


def test_the_corpus_is_large_enough() -> None:
    """One per trap of the formats' rules, and at least forty more."""
    assert len(ATTACKS) >= 100


def test_the_honest_adapter_is_clear(pack: Signature, tmp_path: Path) -> None:
    adapter = honest(tmp_path / "honest")
    assert run(["scan", str(adapter), "-s", str(pack.path)], tmp_path).status == 0


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name: str, pack: Signature, tmp_path: Path) -> None:
    adapter = build(tmp_path, name)
    before = sorted(tmp_path.rglob("*"))
    outcome = run(["scan", str(adapter), "-s", str(pack.path), "-f", "json"], tmp_path)
    assert outcome.status == 3, outcome.stderr
    assert "Traceback" not in outcome.stderr
    results = json.loads(outcome.stdout)["results"]
    assert results
    assert all(result["verdict"] in ("inconclusive", "error") for result in results)
    assert all(result["reasons"] for result in results)
    assert not any("\n" in reason for result in results for reason in result["reasons"])
    allowed = MAX_SECONDS + (TORCH_SECONDS if name in USES_TORCH else 0)
    assert outcome.processor_seconds < allowed
    assert outcome.peak_bytes < MAX_BYTES + (200 * 2**20 if name in USES_TORCH else 0)
    assert not payload_mark(adapter).exists(), "code ran"
    left = {path for path in sorted(tmp_path.rglob("*")) if path not in before}
    assert left <= {tmp_path / name for name in SCRATCH}, "something was unpacked"


@pytest.mark.parametrize("name", ["pickle_payload", "pickle_payload_in_an_archive"])
def test_a_refused_pickle_says_what_it_wanted_and_never_how_to_load_it(
    name: str, tmp_path: Path
) -> None:
    outcome = run(["scan", str(build(tmp_path, name)), "-f", "json"], tmp_path)
    (reason,) = json.loads(outcome.stdout)["results"][0]["reasons"]
    assert re.search(r"torch refuses the pickle \(it asks for [\w.]+, which no tensor", reason)
    assert "weights_only" not in reason
    assert reason.endswith("do not load this one")


PRINTED = (
    "terminal_escape_in_a_name",
    "terminal_escape_in_the_metadata",
    "right_to_left_override",
    "newline_in_a_name",
    "markup_in_a_name",
    "surrogate_in_a_name",
    "zero_width_space_in_a_name",
)


@pytest.mark.parametrize("name", PRINTED)
@pytest.mark.parametrize("command", ["scan", "inspect"])
def test_nothing_a_file_says_reaches_the_terminal_raw(
    name: str, command: str, pack: Signature, tmp_path: Path
) -> None:
    adapter = build(tmp_path, name)
    options = ["-s", str(pack.path)] if command == "scan" else []
    outcome = run([command, str(adapter), *options], tmp_path)
    assert "Traceback" not in outcome.stderr
    printed = outcome.stdout + outcome.stderr
    assert not CONTROL.search(printed)
    assert "\n  clear: nothing found" not in printed
