"""Adapters per second, bytes and requests per adapter: this program beside two other ways."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from benchmarks.hub.inputs import SCENARIOS, Scenario
from benchmarks.hub.processes import HubProcess, environment, measured
from benchmarks.hub.results import Measured, read_results, write_results

DELAY = 0.05
"""Seconds before every answer: a hub that is 50 ms away."""
WAYS = {
    "sweep": "hub scan",
    "download": "snapshot_download + scan",
    "by-hand": "snapshot_download + PEFT + SVD",
}


def run_way(way: str, scenario: Scenario, root: Path, hub: HubProcess) -> Measured:
    """Runs one way on one scenario, with a cache of its own that is thrown away."""
    scratch = root / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "benchmarks.hub.ways", way, str(root / "pack"), str(scratch)]
    hub.ask("forget")
    run = measured(command, environment(hub.endpoint, scratch / "home"))
    if run.status:
        raise SystemExit(f"{way} ended with {run.status}")
    shutil.rmtree(scratch)
    counts = hub.ask("counts")
    told = json.loads(run.output.splitlines()[-1])
    return Measured(
        scenario=scenario.name,
        way=way,
        adapters=told["adapters"],
        seconds=told["seconds"],
        cpu_seconds=told["cpu_seconds"],
        peak_megabytes=run.peak_megabytes,
        requests=counts["requests"],
        received=sum(counts["bytes"].values()),
        ledger_bytes=told["ledger_bytes"],
    )


def best(runs: Sequence[Measured]) -> Measured:
    """The fastest of some runs: what else the machine does can only slow one down."""
    return min(runs, key=lambda item: item.seconds)


def line_of(item: Measured, ours: Measured) -> str:
    """One way, beside ours."""
    return (
        f"  {WAYS[item.way]:<32} {item.rate:6.2f} adapters/s  "
        f"{item.cpu_seconds / item.adapters:5.2f} s CPU  {item.received_each / 1e6:7.2f} MB  "
        f"{item.requests_each:6.1f} requests each  peak {item.peak_megabytes:5.0f} MB   "
        f"(hub scan: {ours.rate / item.rate:5.2f}x as fast, "
        f"{ours.received_each / item.received_each:4.2f} of the bytes, "
        f"{ours.requests_each / item.requests_each:4.2f} of the requests)"
    )


@click.command("compare")
@click.option("--runs", default=2, show_default=True, help="Runs of each way; the fastest counts.")
@click.option("--only", type=click.Choice([item.name for item in SCENARIOS]), multiple=True)
@click.option("--write", is_flag=True, help="Write the figures to results.json.")
def compare(runs: int, only: tuple[str, ...], write: bool) -> None:
    """Runs all ways in turn on the same local hub."""
    found: list[Measured] = []
    click.echo(
        f"{os.cpu_count()} cores; a hub on this machine that answers after {1000 * DELAY:.0f} ms; "
        f"the fastest of {runs} runs in turn"
    )
    for scenario in SCENARIOS:
        if only and scenario.name not in only:
            continue
        click.echo(f"{scenario.name}: {scenario.about}")
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            scenario.write(root)
            with HubProcess("folders", str(root / "repositories"), str(DELAY)) as hub:
                taken: dict[str, list[Measured]] = {way: [] for way in WAYS}
                for _ in range(runs):
                    for way in WAYS:
                        taken[way].append(run_way(way, scenario, root, hub))
        ours = best(taken["sweep"])
        for way in WAYS:
            item = best(taken[way])
            found.append(item)
            click.echo(line_of(item, ours))
    if write:
        write_results(msgspec.structs.replace(read_results(), compared=found))
