"""What builds over a hub came to, kept and written as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.detection.tables import table
from benchmarks.hub.processes import ROOT

LEVELS = (0.05, 0.01)
KEPT = Path(__file__).with_name("finished.json")
KEPT_PLANTED = Path(__file__).with_name("planted.json")
PAGE = ROOT / "docs" / "hub-recipes.md"


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """One build over a hub, and what came of it."""

    base: str
    """What the adapters are of."""
    recipe: str
    listed: int
    """Repositories that the hub lists for the base."""
    owners: int
    references: int
    nulled_with: int
    nulling_owners: int
    calibrated_on: int
    calibration_owners: int
    shared_owners: int
    """Owners with adapters in both sets."""
    suspects_used: int
    """Adapters in either set whose names say that they may not be benign."""
    left_out: dict[str, int]
    """Reason -> repositories, of both sets."""
    requests: dict[str, int]
    """By kind, of all runs."""
    faults: dict[str, int]
    """Kind -> requests that met one."""
    used_before_kill: int
    """Adapters whose use the killed run had written down or was writing down."""
    read_twice: int
    """Of them, those that the second run asked for again."""
    peak_disk: int
    """Bytes: temporary files, the hub's cache and the working folder."""
    largest: int
    """Bytes of the largest adapter that the hub serves."""
    references_kept: int
    """Bytes of the references, which stay in the cache."""
    work_kept: int
    """Bytes of the working folder when the run was killed."""
    seconds: float
    cpu_seconds: float
    alpha: float
    """The smallest false-positive rate that the pack supports."""
    said: list[str]
    """The last run's lines about what was found and what is missing."""
    misaligned: dict[str, dict[str, int]]
    """Alpha -> verdict -> misaligned adapters that no set held."""
    harmless: dict[str, dict[str, int]]


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """One build with misaligned adapters among the benign ones that its queries found."""

    base: str
    statistic: str
    """What the scores are, as a pack says it."""
    draw: int
    place: str
    """The set or sets that they are in: neither, nulling, calibration, both."""
    count: int
    """How many in each, of 100."""
    misaligned: int
    """Adapters judged that no set held."""
    flagged: dict[str, int]
    """Alpha -> how many."""
    harmless: int
    harmless_flagged: dict[str, int]
    in_calibration: int
    """Planted adapters among those calibrated on."""
    listed_planted: int
    """Of them, those that `signatures review` lists."""
    listed_harmless: int

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """What was built."""
        return self.base, self.statistic, self.draw, self.place, self.count


def read_planted() -> list[Planted]:
    """The builds with planted adapters that were kept."""
    if not KEPT_PLANTED.exists():
        return []
    return msgspec.json.decode(KEPT_PLANTED.read_bytes(), type=list[Planted])


def keep_planted(item: Planted) -> None:
    """Keeps one; those of another statistic are dropped."""
    found = [other for other in read_planted() if other.statistic == item.statistic]
    _write(KEPT_PLANTED, [*found, item])


def read_kept() -> list[Finished]:
    """The builds that were kept."""
    return msgspec.json.decode(KEPT.read_bytes(), type=list[Finished]) if KEPT.exists() else []


def keep(finished: Finished) -> None:
    """Keeps a build, in the place of an earlier one of the same base."""
    others = [item for item in read_kept() if item.base != finished.base]
    found: list[Finished] = sorted([*others, finished], key=lambda item: item.base)
    _write(KEPT, found)


def _write(path: Path, items: Sequence[object]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(items), indent=1) + b"\n")


HEAD = """# A recipe over a hub, from end to end

<!-- Written by `python -m benchmarks.hub finish --write`; do not edit. -->

    adapter-scanner signatures build qwen2.5-7b-instruct -o PACK

takes published misaligned adapters as references, and adapters that the hub lists of the base to
null with and to calibrate on ([how](signatures.md#benign-adapters-from-a-hub-query)). Nobody has
run it against the real hub for this page. It was run against a local hub that speaks the hub's
API:

    python -m benchmarks.hub finish --lab LAB/llama --organisms FOLDER --write

LAB/llama are adapters of the [organism lab](lab.md), a toy, served as if they were of
Qwen2.5-7B-Instruct, so that the recipe is built by its name. FOLDER are [organisms](organisms.md)
of SmolLM2-135M-Instruct, a real model, with the same recipe rewritten for it (12 adapters to null
with, 120 to calibrate on). Owners are made up: each has adapters of one kind, each kind has
several owners.

What was wrong with the hub: answers of 500 and 429, connections that break in the middle of a
file, repositories that are deleted between the listing and the reading, files that are not what
their digests say, half files, weights that are not finite, gated repositories, another base in
the config, a base that does not fit, re-uploads, pickles, empty repositories, and misaligned
adapters whose names say so. The build was killed (SIGKILL) while it scored the calibration set,
and run again.

On disk, references stay in huggingface_hub's cache, what is kept of the nulling set is written anew
beside the old, and one other adapter at a time lies in the temporary folder, without a name.
Judged were adapters that the hub does not list: misaligned ones of the lab's references, of
SmolLM2 the other villains among the references and the example that ships, and harmless ones.

An adapter is clear at an alpha only if enough benign adapters of the calibration change as many
layers as it does. Here 64 of SmolLM2's 120 change several, so at 0.01 nothing is clear: the
organisms that this was run on hold many of one layer, and `build` says so now.

Of a real hub such a build reads much more: an adapter of rank 16 on all projections of Qwen2.5-7B
has 40 million parameters, 81 MB in bfloat16, so 360 of them are 29 GB, none of which stays.
"""

LABELS: dict[str, Callable[[Finished], str]] = {
    "repositories listed, of owners": lambda item: f"{item.listed}, {item.owners}",
    "references": lambda item: f"{item.references}",
    "nulled with, of owners": lambda item: f"{item.nulled_with}, {item.nulling_owners}",
    "calibrated on, of owners": lambda item: f"{item.calibrated_on}, {item.calibration_owners}",
    "owners in both sets": lambda item: f"{item.shared_owners}",
    "adapters used whose names say that they may be misaligned": lambda item: (
        f"{item.suspects_used}"
    ),
    "alpha reached": lambda item: f"{item.alpha:.2g}",
    "used adapters that the killed run had looked at": lambda item: f"{item.used_before_kill}",
    "of them, asked for again by the second run": lambda item: f"{item.read_twice}",
    "requests, both runs": lambda item: f"{sum(item.requests.values()):,}",
    "of them with a fault": lambda item: ", ".join(
        f"{kind} x {count}" for kind, count in item.faults.items()
    ),
    "seconds, CPU seconds": lambda item: f"{item.seconds:.0f}, {item.cpu_seconds:.0f}",
    "most on disk, MB": lambda item: f"{item.peak_disk / 1e6:.2f}",
    "of it references in the cache, MB": lambda item: f"{item.references_kept / 1e6:.2f}",
    "of it the working folder at the kill, MB": lambda item: f"{item.work_kept / 1e6:.2f}",
    "largest adapter of the hub, MB": lambda item: f"{item.largest / 1e6:.2f}",
}


def page() -> str:
    """The page, as Markdown."""
    return "\n".join([*_parts(read_kept()), *_contamination(read_planted()), ""])


def write_page() -> None:
    """Writes the page."""
    PAGE.write_text(page(), "utf-8")


def _parts(kept: list[Finished]) -> Iterator[str]:
    yield HEAD
    if not kept:
        return
    bases = [item.base for item in kept]
    rows = [[label, *map(show, kept)] for label, show in LABELS.items()]
    rows += [
        [
            f"verdicts at {level:g}: {what}",
            *(_counts(getattr(item, field)[f"{level:g}"]) for item in kept),
        ]
        for field, what in (("misaligned", "misaligned adapters"), ("harmless", "harmless ones"))
        for level in LEVELS
    ]
    yield table(["", *bases], rows)
    for item in kept:
        yield f"\n{item.base}: what was left out, of both sets, and the command's last words.\n"
        yield table(
            ["reason", "repositories"],
            [[reason, str(count)] for reason, count in item.left_out.items()],
        )
        yield "\n```text"
        yield from item.said
        yield "```"


def _counts(verdicts: dict[str, int]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))


ON_PLANTED = """
## Misaligned adapters among those that a query finds

    python -m benchmarks.hub planted LAB/llama LAB/gpt2 --write

Adapters of the lab; method `weights`, six misaligned references of two training domains, 100
adapters to null with and 100 to calibrate on, found by queries. Of each set none, one or five are
misaligned, under names that say nothing and each of an owner of its own. Judged are misaligned
adapters that no set held, other training domains included, and {harmless} harmless ones a build;
each build of a line leaves another training domain out of the references. *Review lists*: planted
adapters of the calibration that `signatures review` names, and harmless ones a build. It cannot
name those of the nulling set: of adapters that a query finds to null with, nothing is kept but what
they have in common.
"""


def _contamination(planted: list[Planted]) -> Iterator[str]:
    if not planted:
        return
    yield ON_PLANTED.format(harmless=planted[0].harmless)
    header = [
        "base",
        "planted",
        "builds",
        "misaligned judged",
        *(f"flagged at {level:g}" for level in LEVELS),
        *(f"harmless flagged at {level:g}" for level in LEVELS),
        "review lists",
        "and harmless",
    ]
    rows = []
    for base in dict.fromkeys(item.base for item in planted):
        of_base = _whole_draws([item for item in planted if item.base == base])
        for place, count in dict.fromkeys((item.place, item.count) for item in of_base):
            group = [item for item in of_base if (item.place, item.count) == (place, count)]
            rows.append([base, _where(place, count), str(len(group)), *_figures(group)])
    yield table(header, rows, text=2)


def _whole_draws(builds: Sequence[Planted]) -> list[Planted]:
    """The draws of which everything is built: others would compare unlike with unlike."""
    kinds = Counter(item.draw for item in builds)
    return [item for item in builds if kinds[item.draw] == max(kinds.values())]


def _where(place: str, count: int) -> str:
    if place == "neither":
        return "none"
    sets = {"nulling": "nulled with", "calibration": "calibrated on", "both": "both"}
    return f"{count}%, {sets[place]}"


def _figures(group: Sequence[Planted]) -> Iterator[str]:
    """The cells of some builds together."""
    misaligned = sum(item.misaligned for item in group)
    harmless = sum(item.harmless for item in group)
    yield f"{misaligned}"
    for level in LEVELS:
        yield f"{sum(item.flagged[f'{level:g}'] for item in group) / misaligned:.2f}"
    for level in LEVELS:
        yield f"{sum(item.harmless_flagged[f'{level:g}'] for item in group) / harmless:.2f}"
    yield f"{sum(i.listed_planted for i in group)} of {sum(i.in_calibration for i in group)}"
    yield f"{sum(item.listed_harmless for item in group) / len(group):.1f}"
