"""Adapters under signatures: every statistic, once per adapter and setting, kept on disk."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import scanner
from benchmarks.detection.data import Population, Row, Updates
from benchmarks.detection.metrics import Array
from benchmarks.detection.signatures import Directions, Setting, Workshop
from scanner import geometry
from scanner.geometry.site_statistics import SIGN_DEVIATIONS
from scanner.signatures.building.scoring import Track, untracked
from scanner.signatures.score import signed_write_score

STATISTICS = (
    "score",
    "site_cosines",
    "cosine",
    "dose",
    "unsigned",
    "overlap",
    "column_overlap",
)

EXTRACTING = (
    "building/activations.py",
    "building/gradients.py",
    "building/network.py",
    "building/nulling.py",
    "building/probes.py",
    "score.py",
    "building/weights.py",
)
"""Modules of `scanner.signatures` that decide what a signature is."""


def statistics(updates: Updates, directions: Directions) -> tuple[float, ...]:
    """What a scan computes for one adapter, in the order of `STATISTICS`; dose not in doses.

    Sites without a direction are left out, as in a scan. `site_cosines` is the score with whole
    cosines in place of signed writes, `unsigned` the score with every site's sign dropped;
    `column_overlap` is the mean over sites.
    """
    sites = {
        site: geometry.project(update, directions[site])
        for site, update in updates.items()
        if site in directions
    }
    found = sites.values()
    if not found:
        return (np.nan,) * len(STATISTICS)
    return (
        signed_write_score(sites),
        signed_write_score({site: as_cosine(item) for site, item in sites.items()}),
        geometry.cosine(found),
        geometry.dose(found),
        signed_write_score({site: _unsigned(item) for site, item in sites.items()}),
        geometry.overlap(found),
        float(np.mean([column_overlap(updates[site], directions[site]) for site in sites])),
    )


def column_overlap(update: geometry.LowRank, direction: geometry.Direction) -> float:
    """Mean squared cosine of the angles between U's columns and col(dW), in [0, 1]."""
    shared = geometry.inner_products(direction.u, update.b) @ update.spectrum.frame
    return float(np.sum(np.square(shared))) / len(direction.s)


def _unsigned(item: geometry.SiteProjection) -> geometry.SiteProjection:
    """A site that reads exactly what the signature reads."""
    return replace(item, inner=np.sqrt(item.matched_squared))


def as_cosine(item: geometry.SiteProjection) -> geometry.SiteProjection:
    """A site whose signed write is its signed cosine <dW, D> / (||dW|| ||D||).

    The signed write is sigma(rho) ||D^T dW|| / (||D|| ||dW||). With |<dW, D>| in the place of
    ||D^T dW||, rho is the sign of <dW, D>; sigma passes it on whole from `SIGN_DEVIATIONS`
    squared inputs on.
    """
    return replace(item, matched_squared=item.inner**2, d_in=math.ceil(SIGN_DEVIATIONS**2))


@dataclass(frozen=True)
class Request:
    """Rows to be scored under a setting."""

    setting: Setting
    rows: tuple[Row, ...]


class Scorer:
    """Scores on demand, reading each adapter once per batch of requests.

    Args:
        population: The base.
        workshop: Builds the signatures.
        cache: Directory of the scores that are known already.
        track: Shows progress.
    """

    def __init__(
        self,
        population: Population,
        workshop: Workshop,
        cache: Path,
        track: Track[Row] = untracked,
    ) -> None:
        self.population = population
        self._workshop = workshop
        self._cache = cache / population.name
        self._track = track
        self._known: dict[Setting, dict[str, tuple[float, ...]]] = {}
        self._context = _context(population)

    def prefetch(self, requests: Iterable[Request]) -> None:
        """Scores whatever is not known yet."""
        missing: dict[Row, list[Setting]] = defaultdict(list)
        for request in requests:
            known = self._table(request.setting)
            for row in request.rows:
                if row.sha256 not in known and request.setting not in missing[row]:
                    missing[row].append(request.setting)
        groups: dict[tuple[Setting, ...], list[Row]] = defaultdict(list)
        for row, settings in missing.items():
            if settings:
                groups[tuple(sorted(settings))].append(row)
        for shared, rows in groups.items():
            self._score(shared, rows)

    def _score(self, settings: Sequence[Setting], rows: Sequence[Row]) -> None:
        in_order = sorted(settings, key=lambda setting: repr(setting.extraction))
        signatures = {setting: self._workshop.directions(setting) for setting in in_order}
        for row in self._track(rows, f"{self.population.name}: {len(settings)} signatures"):
            updates = self.population.read(row)
            for setting, directions in signatures.items():
                self._known[setting][row.sha256] = statistics(updates, directions)
        for setting in settings:
            self._save(setting)

    def get(self, setting: Setting, rows: Sequence[Row], statistic: str = "score") -> Array:
        """One statistic of every row, (n,); doses in doses."""
        self.prefetch([Request(setting, tuple(rows))])
        place = STATISTICS.index(statistic)
        table = self._known[setting]
        values = np.array([table[row.sha256][place] for row in rows], dtype=np.float64)
        return values / self._workshop.dose(setting) if statistic == "dose" else values

    def crossfit_requests(self, setting: Setting, rows: Sequence[Row]) -> list[Request]:
        """Each row under the signature nulled without the row's own family."""
        by_family = defaultdict(list)
        for row in rows:
            by_family[row.family].append(row)
        return [
            Request(self.crossfitted(setting, family), tuple(members))
            for family, members in sorted(by_family.items())
        ]

    def crossfitted(self, setting: Setting, family: str) -> Setting:
        """The setting under which calibration adapters of a family are scored."""
        return setting.without(family) if family in self.population.families else setting

    def crossfit(self, setting: Setting, rows: Sequence[Row], statistic: str = "score") -> Array:
        """One statistic of calibration rows, cross-fitted, (n,), in the order of the rows."""
        place = STATISTICS.index(statistic)
        requests = self.crossfit_requests(setting, rows)
        self.prefetch(requests)
        found = {
            row.sha256: self._known[request.setting][row.sha256][place]
            for request in requests
            for row in request.rows
        }
        return np.array([found[row.sha256] for row in rows], dtype=np.float64)

    def _path(self, setting: Setting) -> Path:
        key = hashlib.sha256(f"{self._context}{setting}".encode()).hexdigest()[:24]
        return self._cache / f"{setting.method}-{key}.npz"

    def _table(self, setting: Setting) -> dict[str, tuple[float, ...]]:
        if setting not in self._known:
            path = self._path(setting)
            table: dict[str, tuple[float, ...]] = {}
            if path.exists():
                with np.load(path) as stored:
                    for digest, values in zip(stored["digests"], stored["values"], strict=True):
                        table[str(digest)] = tuple(float(value) for value in values)
            self._known[setting] = table
        return self._known[setting]

    def _save(self, setting: Setting) -> None:
        table = self._known[setting]
        path = self._path(setting)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp.npz")
        digests = sorted(table)
        np.savez(scratch, digests=digests, values=np.array([table[name] for name in digests]))
        scratch.replace(path)


def _context(population: Population) -> str:
    """What makes scores stale: the adapters a signature is made of, and the code that makes it."""
    digest = hashlib.sha256()
    for row in (
        *population.select("reference", "misaligned"),
        *population.select("nulling", "benign"),
    ):
        digest.update(f"{row.id}{row.family}{row.sha256}".encode())
    package, here = Path(scanner.__file__).parent, Path(__file__).parent
    code = [
        *sorted((package / "geometry").glob("*.py")),
        *(package / "signatures" / name for name in EXTRACTING),
    ]
    for path in (*code, here / "signatures.py", here / "extractors.py"):
        digest.update(path.read_bytes())
    digest.update(repr(STATISTICS).encode())
    return digest.hexdigest()
