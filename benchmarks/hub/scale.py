"""docs/scale.md: what a sweep of a million adapters costs, from what was measured."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.hub.compare import DELAY, WAYS
from benchmarks.hub.inputs import SCENARIOS
from benchmarks.hub.limits import DATED, PLANS, SOURCE, WINDOW_SECONDS, Plan
from benchmarks.hub.processes import ROOT
from benchmarks.hub.results import Measured, Results, Swept, of_kinds, read_results
from scanner.sweep.running import DEFAULT_JOBS

PAGE = ROOT / "docs" / "scale.md"
MILLION = 1_000_000
LINE_BYTES = 125_000_000
"""Bytes per second of one machine's line: 1 Gbit/s."""
API, FILES = ("list", "info"), ("resolve", "cache")
"""Kinds of requests that the hub counts against its API and file limits. Its redirects of small
files to another address of its own are counted as files too, which may be too many."""


@dataclass(frozen=True)
class Cost:
    """A million adapters with one account."""

    plan: Plan
    hours: float
    limited_by: str
    rate: float
    """Adapters per second the account allows."""


def cost_of(plan: Plan, measured: Measured | Swept) -> Cost:
    """Computes one row."""
    windows = {
        "API": MILLION * of_kinds(measured, API) / plan.api,
        "files": MILLION * of_kinds(measured, FILES) / plan.files,
    }
    limited_by = max(windows, key=windows.__getitem__)
    seconds = windows[limited_by] * WINDOW_SECONDS
    return Cost(plan, seconds / 3600, limited_by, MILLION / seconds)


def machines(cost: Cost, measured: Measured) -> int:
    """Machines like the one that was measured, with a line of 1 Gbit/s, that keep up."""
    one = min(measured.rate, LINE_BYTES / measured.received_each)
    return math.ceil(cost.rate / one)


def page(results: Results) -> str:
    """The page."""
    return "\n".join([*_head(), *_measured(results), *_costs(results), *_ledger(results)]) + "\n"


def _prose(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _head() -> Iterator[str]:
    yield "# What a sweep costs"
    yield ""
    yield _prose(
        "Written by `python -m benchmarks.hub scale --write` from `benchmarks/hub/results.json`, "
        "which `python -m benchmarks.hub memory --write` and `compare --write` measure."
    )
    yield ""


def _measured(results: Results) -> Iterator[str]:
    yield "## Measured"
    yield ""
    yield _prose(
        "A mixed population on a local hub (synthetic adapters and trained ones of the lab, "
        "re-uploads, LFS pointers, broken files, other bases, gated ones), as whole processes; the "
        "peak is that of the largest. A verdict is right if it is what the scanner says of the "
        "same files on disk, or a refusal where the hub refuses. After each SIGKILL, at a random "
        "moment, the sweep went on with `--resume`."
    )
    yield ""
    yield "| repositories | adapters | right | peak memory | requests per adapter | SIGKILLs |"
    yield "|---:|---:|---:|---:|---:|---|"
    for swept in results.swept:
        cells = (
            f"{swept.repositories:,}",
            f"{swept.adapters:,}",
            f"{swept.adapters - swept.wrong:,}",
            f"{swept.peak_megabytes:.0f} MB",
            f"{sum(swept.requests.values()) / swept.adapters:.2f}",
            f"{swept.kills}, same ledger" if swept.kills else "-",
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield _prose(
        "Three ways to judge the same repositories, side by side in one run, on a hub that "
        f"answers after {1000 * DELAY:.0f} ms. The sweep reads {DEFAULT_JOBS} adapters at once, in "
        "two processes, the second of which has to start first; the others work on eight "
        "repositories at once, and fetch up to eight files of each. Times compare the ways: the "
        "machine has two cores, which the hub shares, and was busy with other work, which makes "
        "CPU seconds longer too."
    )
    for scenario in SCENARIOS:
        rows = [item for item in results.compared if item.scenario == scenario.name]
        if rows:
            yield ""
            yield f"**{scenario.name}**: {scenario.about}."
            yield ""
            yield from _table(rows)
    yield ""
    yield _prose(
        "The sweep leaves out what says nothing about an adapter and what it has seen before; "
        "where a repository holds one new adapter and nothing else (bare) all ways fetch the same "
        "bytes. It compares every adapter with a signature and checks every file that it fetched "
        "whole against its digest, which the way without this program does not. A request counts "
        "as much as 8 MiB: what a pack covers is fetched alone where the gaps between are larger."
    )
    yield ""


def _table(rows: list[Measured]) -> Iterator[str]:
    yield "| | adapters/s | CPU seconds each | MB each | requests each |"
    yield "|---|---:|---:|---:|---:|"
    for item in rows:
        yield (
            f"| {WAYS[item.way]} | {item.rate:.2f} | {item.cpu_seconds / item.adapters:.2f} "
            f"| {item.received_each / 1e6:.2f} | {item.requests_each:.1f} |"
        )


def _costs(results: Results) -> Iterator[str]:
    typical = {item.way: item for item in results.compared if item.scenario == "typical"}
    yield "## A million adapters"
    yield ""
    yield _prose(
        f"The [published limits]({SOURCE}), as of {DATED}, are requests in five minutes, "
        "to the API and for files, counted apart. A cluster shares the limits of the account whose "
        "token it uses, so machines beyond those of the last table gain nothing. A million "
        'adapters like those of "typical", a fifth of them re-uploads:'
    )
    yield ""
    yield "| | API requests | file requests | data |"
    yield "|---|---:|---:|---:|"
    for way, item in typical.items():
        cells = (
            WAYS[way],
            f"{of_kinds(item, API):.2f} million",
            f"{of_kinds(item, FILES):.2f} million",
            f"{item.received_each * MILLION / 1e12:.1f} TB",
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield "| account | API limit | file limit | " + " | ".join(WAYS[way] for way in typical) + " |"
    yield "|---|---:|---:|" + "---:|" * len(typical)
    for plan in PLANS:
        costs = [cost_of(plan, item) for item in typical.values()]
        hours = " | ".join(f"{cost.hours:,.0f} h ({cost.limited_by})" for cost in costs)
        yield f"| {plan.name} | {plan.api:,} | {plan.files:,} | {hours} |"
    yield from _machines(typical["sweep"])
    yield from _threads(results)


def _machines(ours: Measured) -> Iterator[str]:
    yield ""
    yield _prose(
        "Machines that keep up with an account, each with a line of 1 Gbit/s and as fast as the "
        f"one that was measured ({ours.rate:.1f} adapters/s, {ours.received_each / 1e6:.0f} MB "
        "each):"
    )
    yield ""
    yield "| account | adapters/s | Gbit/s | machines |"
    yield "|---|---:|---:|---:|"
    for plan in PLANS:
        cost = cost_of(plan, ours)
        line = cost.rate * ours.received_each * 8 / 1e9
        yield f"| {plan.name} | {cost.rate:.1f} | {line:.2f} | {machines(cost, ours)} |"
    yield ""


def _threads(results: Results) -> Iterator[str]:
    swept = max(results.swept, key=lambda item: item.repositories)
    fastest = max(cost_of(plan, swept).rate for plan in PLANS)
    yield _prose(
        "The local engine has a process for each core, as long as each has four of the adapters "
        "that `--jobs` reads at once. Of adapters so small that nothing but the interpreter "
        f"counts, two busy cores judged {swept.adapters / swept.seconds:.0f} per second; of those, "
        f"the largest account would be allowed {fastest:.0f}."
    )
    yield ""


def _ledger(results: Results) -> Iterator[str]:
    size = results.ledger
    if size is None:
        return
    each = size.ledger_bytes / size.adapters
    yield _prose(
        "The ledger holds the result of every adapter with its evidence at every site, whose "
        f"numbers are kept to four digits. Measured with {size.adapters:,} made-up results of "
        f"{size.sites} sites each (`python -m benchmarks.hub ledger --write`): "
        f"{each / 1e3:.1f} kB each, {each * MILLION / 1e9:.1f} GB for a million. The population "
        f"page takes {size.summary_cpu_seconds / size.adapters * 1e3:.1f} ms of CPU for each. "
        "Memory does not grow with the ledger while it is written."
    )


@click.command("scale")
@click.option("--write", is_flag=True, help="Write docs/scale.md instead of printing it.")
def scale(write: bool) -> None:
    """Computes what a million adapters cost."""
    text = page(read_results())
    if write:
        Path(PAGE).write_text(text)
    else:
        click.echo(text, nl=False)
