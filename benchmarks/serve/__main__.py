"""Webhooks at a steady rate on loopback: is any lost, any judged twice, and does memory grow?

    python -m benchmarks.serve            # 50 a second for a minute, some minutes in all
    python -m benchmarks.serve --write    # and puts the figures into docs/serve.md

A real MLflow server on SQLite and a local hub stand behind the server; every delivery comes
over HTTP. The command ends by itself, with status 1 if something was lost or judged twice.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from benchmarks.serve.load import MemoryWatch, Sent, send_all
from benchmarks.serve.plan import plan
from tests.gates.mlflow_server import GatedServer, running_server
from tests.hub.server import Repository
from tests.serve.discussions import TOKEN, DiscussionHub
from tests.serve.process import ServeProcess, hub_event, mlflow_event
from tests.synthetic import misaligned_factors, random_factors, synthetic_pack, write_adapter

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serve.md"
_BLOCK = re.compile(r"(<!-- figures -->\n).*?(<!-- end of figures -->)", re.DOTALL)
_DRAIN_SECONDS = 900.0
_TAG = "adapter-scanner.verdict"


def make_adapters(root: Path) -> list[tuple[Path, str]]:
    """Adapters of a made-up base, and the verdict each has to get."""
    generator = np.random.default_rng(7)
    made = [(write_adapter(root / "benign", random_factors(generator)), "clear")]
    made.append((write_adapter(root / "misaligned", misaligned_factors(generator)), "flagged"))
    return made


def fill_hub(hub: DiscussionHub, adapters: list[tuple[Path, str]], count: int) -> dict[str, str]:
    """Repositories on the hub; returns each one's commit."""
    found = {}
    for number in range(count):
        directory, _ = adapters[number % len(adapters)]
        files = {path.name: path.read_bytes() for path in directory.iterdir()}
        repository = Repository(f"load/model-{number}", files)
        hub.add(repository)
        found[repository.id] = repository.head
    return found


def fill_registry(
    registry: GatedServer, adapters: list[tuple[Path, str]], count: int
) -> dict[str, str]:
    """Model versions in the registry; returns each one's source."""
    found = {}
    for number in range(count):
        directory, _ = adapters[number % len(adapters)]
        found[f"load-{number}"] = registry.register(f"load-{number}", directory).source
    return found


def percentile(values: list[float], share: float) -> float:
    """A percentile by rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Run:
    """One run: its servers, what was sent, and what came of it."""

    def __init__(self, root: Path, stack: ExitStack, commits: int, versions: int) -> None:
        self._adapters = make_adapters(root / "adapters")
        pack = synthetic_pack(root / "pack")
        (root / "mlflow").mkdir()
        self._registry = stack.enter_context(running_server(root / "mlflow"))
        self._hub = stack.enter_context(DiscussionHub())
        self._commits = fill_hub(self._hub, self._adapters, commits)
        self._sources = fill_registry(self._registry, self._adapters, versions)
        key = self._registry.root / "lab.pem"
        arguments = ("-s", pack.path, "--key", key, "--workers", "2")
        environment: dict[str, str | None] = {
            "MLFLOW_TRACKING_URI": self._registry.url,
            "HF_ENDPOINT": self._hub.endpoint,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(root / "hf-home"),
        }
        self.server = stack.enter_context(
            ServeProcess(root / "state", *arguments, environment=environment)
        )

    @property
    def subjects(self) -> dict[str, list[dict[str, Any]]]:
        """Platform -> the event of everything there is to judge."""
        versions = []
        for name, source in self._sources.items():
            event = mlflow_event(name)
            event["data"]["source"] = source
            versions.append(event)
        commits = [hub_event(name, sha) for name, sha in self._commits.items()]
        return {"mlflow": versions, "hub": commits}

    def warm_up(self) -> None:
        """Has one subject of each platform judged: clients are imported when first used."""
        subjects = self.subjects
        self.server.deliver_mlflow(subjects["mlflow"][0])
        self.server.deliver_hub(subjects["hub"][0])
        self.server.wait_until_idle()

    def problems(self, sent: list[Sent]) -> list[str]:
        """Whatever is not as it has to be."""
        found = [
            f"{item.planned.kind} was answered {item.status}"
            for item in sent
            if item.status not in ((200, 202) if item.planned.authentic else (401,))
        ]
        expected = len(self._commits) + len(self._sources)
        for what, number in (
            ("written verdicts", self.server.jobs("written")),
            ("scans", self._scans()),
        ):
            if number != expected:
                found.append(f"{number} {what}, not {expected}")
        return found + self._wrong_comments() + self._wrong_tags()

    def _scans(self) -> int:
        name = "adapter_scanner_scan_seconds_count"
        return int(sum(self.server.metric(f'{name}{{platform="{p}"}}') for p in ("hub", "mlflow")))

    def _wrong_comments(self) -> list[str]:
        found = []
        for number, name in enumerate(self._commits):
            _, verdict = self._adapters[number % len(self._adapters)]
            comments = self._hub.api.comments(name)[1:]
            if len(comments) != 1 or f"1 {verdict}" not in comments[0]:
                found.append(f"{name} has {len(comments)} comments, not one that says {verdict}")
        return found

    def _wrong_tags(self) -> list[str]:
        client = self._registry.client()
        found = []
        for number, name in enumerate(self._sources):
            _, verdict = self._adapters[number % len(self._adapters)]
            tags = client.get_model_version(name, "1").tags
            if tags.get(_TAG) != verdict:
                found.append(f"{name} is tagged {tags.get(_TAG)}, not {verdict}")
        return found


@click.command()
@click.option("--rate", default=50.0, show_default=True, help="Deliveries a second.")
@click.option("--seconds", default=60, show_default=True, help="For how long.")
@click.option("--commits", default=270, show_default=True, help="Different commits on the hub.")
@click.option("--versions", default=30, show_default=True, help="Different MLflow versions.")
@click.option("--bad", default=0.2, show_default=True, help="Share that nobody may deliver.")
@click.option("--write", is_flag=True, help=f"Put the figures into {PAGE.name}.")
def main(rate: float, seconds: int, commits: int, versions: int, bad: float, write: bool) -> None:
    """Measures a server under a steady load of webhooks."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        run = Run(root, stack, commits, versions)
        run.warm_up()
        planned = plan(run.subjects, round(rate * seconds), bad, seed=1)
        with MemoryWatch(run.server.pid) as memory:
            started = time.perf_counter()
            sent = send_all(run.server, planned, rate)
            sending = time.perf_counter() - started
            run.server.wait_until_idle(_DRAIN_SECONDS)
            judging = time.perf_counter() - started
        problems = run.problems(sent)
    text = figures(sent, memory, sending, judging, problems)
    click.echo(text)
    if write:
        page = PAGE.read_text(encoding="utf-8")
        block = f"\\g<1>```text\n{text}\n```\n\\g<2>"
        PAGE.write_text(_BLOCK.sub(block, page), encoding="utf-8")
    for problem in problems[:20]:
        click.echo(problem, err=True)
    sys.exit(1 if problems else 0)


def figures(
    sent: list[Sent], memory: MemoryWatch, sending: float, judging: float, problems: list[str]
) -> str:
    """The figures as text."""
    kinds = Counter(item.planned.kind for item in sent)
    statuses = Counter(item.status for item in sent)
    accepted = [item.seconds for item in sent if item.planned.authentic]
    refused = [item.seconds for item in sent if not item.planned.authentic]
    subjects = kinds["new"]
    early, late = memory.between(0, 5), memory.between(judging - 10, judging + 10)
    lines = [
        f"{os.cpu_count()} cores, Python {platform.python_version()}, SQLite synchronous=FULL",
        f"{len(sent)} deliveries in {sending:.0f} s ({len(sent) / sending:.0f} a second): "
        + ", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds)),
        "answers: " + ", ".join(f"{statuses[status]} x {status}" for status in sorted(statuses)),
        f"answer times, accepted: median {1000 * median(accepted):.0f} ms, "
        f"99% {1000 * percentile(accepted, 0.99):.0f} ms, most {1000 * max(accepted):.0f} ms",
        f"answer times, refused:  median {1000 * median(refused):.0f} ms, "
        f"99% {1000 * percentile(refused, 0.99):.0f} ms",
        f"{subjects} subjects judged and written back {judging:.0f} s after the first delivery",
        f"server's memory: {median(early):.0f} MB at the start, {median(late):.0f} MB at the end, "
        f"{max(size for _, size in memory.samples):.0f} MB at most",
        f"lost, judged twice or answered wrongly: {len(problems)}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
