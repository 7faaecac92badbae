"""Adapters per second, bytes and requests per adapter: this program beside two other ways."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import msgspec

from benchmarks.hub.inputs import SCENARIOS
from benchmarks.hub.processes import Child, HubProcess, environment
from benchmarks.hub.results import Measured, read_results, write_results

DELAY = 0.05
"""Seconds before every answer: a hub that is 50 ms away."""
WAYS = {
    "sweep": "hub scan",
    "download": "snapshot_download + scan",
    "by-hand": "snapshot_download + PEFT + SVD",
}


def run_way(way: str, scenario: str, child: Child, hub: HubProcess) -> Measured:
    """Runs one way on one scenario; what it fetches is thrown away afterwards."""
    hub.ask("forget")
    told = child.ask(scenario)
    counts = hub.ask("counts")
    return Measured(
        scenario=scenario,
        way=way,
        requests=counts["requests"],
        received=sum(counts["bytes"].values()),
        **told,
    )


def best(runs: Sequence[Measured]) -> Measured:
    """The fastest of some runs: what else the machine does can only slow one down."""
    return min(runs, key=lambda item: item.seconds)


def line_of(item: Measured, ours: Measured) -> str:
    """One way, beside ours."""
    return (
        f"  {WAYS[item.way]:<32} {item.rate:6.2f} adapters/s  "
        f"{item.cpu_seconds / item.adapters:5.2f} s CPU  {item.received_each / 1e6:7.2f} MB  "
        f"{item.requests_each:6.1f} requests each   "
        f"(hub scan: {ours.rate / item.rate:5.2f}x as fast, "
        f"{ours.received_each / item.received_each:4.2f} of the bytes, "
        f"{ours.requests_each / item.requests_each:4.2f} of the requests)"
    )


@click.command("compare")
@click.option("--runs", default=3, show_default=True, help="Runs of each way; the fastest counts.")
@click.option("--write", is_flag=True, help="Write the figures to results.json.")
def compare(runs: int, write: bool) -> None:
    """Runs all ways in turn on the same local hub."""
    click.echo(
        f"{os.cpu_count()} cores; a hub on this machine that answers after {1000 * DELAY:.0f} ms; "
        f"the fastest of {runs} runs in turn"
    )
    found: list[Measured] = []
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        root = Path(scratch)
        for scenario in SCENARIOS:
            scenario.write(root)
        hub = stack.enter_context(HubProcess("folders", str(root / "repositories"), str(DELAY)))
        env = environment(hub.endpoint, root / "home")
        children = {
            way: stack.enter_context(
                Child([sys.executable, "-m", "benchmarks.hub.ways", way, str(root)], env)
            )
            for way in WAYS
        }
        for scenario in SCENARIOS:
            taken: dict[str, list[Measured]] = {way: [] for way in WAYS}
            for _ in range(runs):
                for way, child in children.items():
                    taken[way].append(run_way(way, scenario.name, child, hub))
            click.echo(f"{scenario.name}: {scenario.about}")
            ours = best(taken["sweep"])
            for way in WAYS:
                item = best(taken[way])
                found.append(item)
                click.echo(line_of(item, ours))
    if write:
        write_results(msgspec.structs.replace(read_results(), compared=found))
