"""Peak memory at 200 and at 2,000 repositories, every verdict checked, and kills survived."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.hub.processes import ROOT, HubProcess, Run, environment, measured

ALPHA = "0.05"
LAB_PACK = ROOT / "signatures" / "persona-llama-weights"
_COMPARED = "repository, revision, subfolder, content, packs, state, verdict, base_model, score, "
_COMPARED += "push, alignment, p_value, reason, result"


def scan_command(root: Path, ledger: Path) -> list[str]:
    """The sweep, as users run it."""
    packs = ["-s", str(root / "pack" / "pack"), "-s", str(LAB_PACK)]
    command = [sys.executable, "-m", "scanner", "hub", "scan", "--ledger", str(ledger), *packs]
    return [*command, "--alpha", ALPHA, "--resume", "--fail-on", "never"]


def wrong_verdicts(root: Path, ledger: Path) -> tuple[int, list[object]]:
    """Adapters in the ledger, and those that are not what was expected.

    Expected is what the scanner says of the same files on disk, or that the hub refuses them;
    and that every content was read once.
    """
    record = json.loads((root / "expected.json").read_text())
    expected = {(item[0], item[1]): item[2] for item in record["expected"]}
    with sqlite3.connect(ledger) as connection:
        rows = connection.execute(
            "SELECT repository, subfolder, state, verdict, p_value, push FROM adapter"
        ).fetchall()
        (read,) = connection.execute(
            "SELECT count(*) FROM adapter WHERE state = 'judged' AND NOT copied"
        ).fetchone()
    found = {
        (row[0], row[1]): dict(zip(("state", "verdict", "p_value", "push"), row[2:], strict=True))
        for row in rows
    }
    wrong: list[object] = [
        (place, found.get(place), expected.get(place))
        for place in sorted(found.keys() | expected.keys())
        if found.get(place) != expected.get(place)
    ]
    if read != record["contents"]:
        wrong.append(f"{read} adapters were read, {record['contents']} are different")
    return len(found), wrong


def rows_of(ledger: Path) -> list[Any]:
    """All a ledger says, but for when."""
    with sqlite3.connect(ledger) as connection:
        return connection.execute(
            f"SELECT {_COMPARED} FROM adapter ORDER BY repository, subfolder"
        ).fetchall()


def kill_and_resume(command: Sequence[str], env: dict[str, str], usual: float, kills: int) -> int:
    """Runs a sweep that is killed at random moments, then to its end; how often it was killed."""
    done = 0
    for _ in range(kills):
        with subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            time.sleep(random.uniform(0.05, 0.35) * usual)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                done += 1
    return done


def sweep_of(count: int, scratch: Path, kills: int) -> Run:
    """Sweeps one population and says what came of it."""
    root = scratch / str(count)
    root.mkdir()
    with HubProcess("mixed", str(root), str(count)) as hub:
        env = environment(hub.endpoint, scratch / "home")
        ledger = root / "ledger.db"
        run = measured(scan_command(root, ledger), env)
        counts = hub.ask("counts")
        adapters, wrong = wrong_verdicts(root, ledger)
        for item in wrong[:10]:
            click.echo(f"  wrong: {item}")
        requests = sum(counts["requests"].values()) / adapters
        size = ledger.stat().st_size / adapters / 1e3
        click.echo(
            f"{count:>5} repositories: peak {run.peak_megabytes:5.0f} MB, {run.seconds:5.1f} s, "
            f"{adapters / run.seconds:4.0f} adapters/s, {requests:.2f} requests each; "
            f"{adapters - len(wrong)} of {adapters} verdicts right, every content read once: "
            f"{'no' if wrong else 'yes'}; ledger {size:.1f} kB each"
        )
        if kills:
            broken = root / "broken.db"
            command = scan_command(root, broken)
            killed = kill_and_resume(command, env, run.seconds, kills)
            measured(command, env)
            same = rows_of(broken) == rows_of(ledger)
            click.echo(
                f"{count:>5} repositories, SIGKILL at {killed} random moments, --resume each time: "
                f"{'the same ledger' if same else 'ANOTHER LEDGER'}"
            )
            if not same:
                raise SystemExit(1)
        if wrong:
            raise SystemExit(1)
    return run


@click.command("memory")
@click.option("--kills", default=8, show_default=True, help="SIGKILLs at the larger size.")
@click.option("--sizes", nargs=2, type=int, default=(200, 2000), show_default=True)
def memory(kills: int, sizes: tuple[int, int]) -> None:
    """Peak memory at two sizes, verdicts checked; kills and resumes at the larger one."""
    with tempfile.TemporaryDirectory() as scratch:
        small = sweep_of(sizes[0], Path(scratch), 0)
        large = sweep_of(sizes[1], Path(scratch), kills)
    growth = large.peak_megabytes / small.peak_megabytes
    click.echo(
        f"peak memory: {small.peak_megabytes:.0f} MB at {sizes[0]}, "
        f"{large.peak_megabytes:.0f} MB at {sizes[1]} (ratio {growth:.2f})"
    )
