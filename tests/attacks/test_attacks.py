"""No hostile or broken file crashes, hangs, eats memory, runs code, or is ever `clear`.

Every attack runs in a process of its own, as a user would run it, with its time and its peak
memory measured. Pickles need torch, whose import alone is most of their budget.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from scanner.signatures.pack import Signature
from tests.attacks.build import ATTACKS, build, honest, payload_mark
from tests.measured import MAX_BYTES, SCRATCH, run

MAX_SECONDS = 2.0
TORCH_SECONDS = float(os.environ.get("SLOW_MACHINE_SECONDS", "6"))
"""What importing torch may take on a busy machine, for pickles only."""
USES_TORCH = frozenset(
    name
    for name in ATTACKS
    if name.startswith(("pickle_", "archive_bomb")) and "beside" not in name
)
HONEST_SECONDS = 0.6
"""What the honest adapter takes at most on a machine with nothing else to do."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\u200b]")


def honest_seconds(pack: Signature, scratch: Path) -> float:
    """What an honest adapter takes of a processor at this moment, shared as it may be."""
    scratch.mkdir()
    adapter = honest(scratch / "honest")
    return run(["scan", str(adapter), "-s", str(pack.path)], scratch).processor_seconds


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
    left = {path for path in sorted(tmp_path.rglob("*")) if path not in before}
    assert outcome.status == 3, outcome.stderr
    assert "Traceback" not in outcome.stderr
    results = json.loads(outcome.stdout)["results"]
    assert results
    assert all(result["verdict"] in ("inconclusive", "error") for result in results)
    assert all(result["reasons"] for result in results)
    assert not any("\n" in reason for result in results for reason in result["reasons"])
    allowed = MAX_SECONDS + (TORCH_SECONDS if name in USES_TORCH else 0)
    if outcome.processor_seconds >= allowed:  # is it the file that is slow, or the machine?
        allowed *= max(1.0, honest_seconds(pack, tmp_path / "yardstick") / HONEST_SECONDS)
    assert outcome.processor_seconds < allowed
    assert outcome.peak_bytes < MAX_BYTES + (200 * 2**20 if name in USES_TORCH else 0)
    assert not payload_mark(adapter).exists(), "code ran"
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
