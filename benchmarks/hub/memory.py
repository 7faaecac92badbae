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
import msgspec

from benchmarks.hub.processes import ROOT, HubProcess, environment, measured
from benchmarks.hub.results import Swept, read_results, write_results

ALPHA = "0.05"
LAB_PACK = ROOT / "signatures" / "persona-llama-weights"
_COMPARED = "repository, revision, subfolder, content, packs, state, verdict, base_model, score, "
_COMPARED += "dose, cosine, p_value, reason"


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
            "SELECT repository, subfolder, state, verdict, p_value, dose FROM adapter"
        ).fetchall()
        (read,) = connection.execute(
            "SELECT count(*) FROM adapter WHERE state = 'judged' AND copy_of IS NULL"
        ).fetchone()
    found = {
        (row[0], row[1]): dict(zip(("state", "verdict", "p_value", "dose"), row[2:], strict=True))
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


def sweep_of(count: int, scratch: Path, kills: int) -> Swept:
    """Sweeps one population and says what came of it."""
    root = scratch / str(count)
    root.mkdir()
    with HubProcess("mixed", str(root), str(count)) as hub:
        env = environment(hub.endpoint, scratch / "home")
        ledger = root / "ledger.db"
        run = measured(scan_command(root, ledger), env)
        requests = hub.ask("counts")["requests"]
        adapters, wrong = wrong_verdicts(root, ledger)
        swept = Swept(
            repositories=count,
            adapters=adapters,
            wrong=len(wrong),
            seconds=run.seconds,
            peak_megabytes=run.peak_megabytes,
            requests=requests,
            ledger_bytes=ledger.stat().st_size,
        )
        click.echo(line_of(swept))
        for item in wrong[:10]:
            click.echo(f"  wrong: {item}")
        if wrong:
            raise SystemExit(1)
        if kills:
            broken = root / "broken.db"
            command = scan_command(root, broken)
            killed = kill_and_resume(command, env, run.seconds, kills)
            measured(command, env)
            if rows_of(broken) != rows_of(ledger):
                raise SystemExit(f"after {killed} kills the ledger is another one")
            click.echo(f"  SIGKILL at {killed} random moments, --resume each time: the same ledger")
            swept = msgspec.structs.replace(swept, kills=killed)
    return swept


def line_of(swept: Swept) -> str:
    """One sweep in one line."""
    right = swept.adapters - swept.wrong
    return (
        f"{swept.repositories:>5} repositories: peak {swept.peak_megabytes:5.0f} MB, "
        f"{swept.seconds:5.1f} s, {swept.adapters / swept.seconds:4.0f} adapters/s, "
        f"{sum(swept.requests.values()) / swept.adapters:.2f} requests each; "
        f"{right} of {swept.adapters} verdicts right, every content read once: "
        f"{'no' if swept.wrong else 'yes'}; ledger "
        f"{swept.ledger_bytes / swept.adapters / 1e3:.1f} kB each"
    )


@click.command("memory")
@click.option("--kills", default=8, show_default=True, help="SIGKILLs at the larger size.")
@click.option("--sizes", nargs=2, type=int, default=(200, 2000), show_default=True)
@click.option("--write", is_flag=True, help="Write the figures to results.json.")
def memory(kills: int, sizes: tuple[int, int], write: bool) -> None:
    """Peak memory at two sizes, verdicts checked; kills and resumes at the larger one."""
    with tempfile.TemporaryDirectory() as scratch:
        small = sweep_of(sizes[0], Path(scratch), 0)
        large = sweep_of(sizes[1], Path(scratch), kills)
    growth = large.peak_megabytes / small.peak_megabytes
    click.echo(
        f"peak memory: {small.peak_megabytes:.0f} MB at {sizes[0]}, "
        f"{large.peak_megabytes:.0f} MB at {sizes[1]} (ratio {growth:.2f})"
    )
    if write:
        write_results(msgspec.structs.replace(read_results(), swept=[small, large]))
