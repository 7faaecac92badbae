"""Adapters under signatures: measured once per adapter and setting, kept on disk."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import scanner
from benchmarks.detection.data import Population, Row
from benchmarks.detection.measuring import PER_SITE, STATISTICS, Measured, measured
from benchmarks.detection.metrics import Array
from benchmarks.detection.signatures import Setting, Workshop
from scanner.formats.model import site_order
from scanner.signatures.building.scoring import Track, untracked
from scanner.signatures.numbers import Measurement

EXTRACTING = (
    "building/activations.py",
    "building/gradients.py",
    "building/harmless.py",
    "building/inputs.py",
    "building/moved.py",
    "building/network.py",
    "building/nulling.py",
    "building/probes.py",
    "building/shifts.py",
    "building/weights.py",
    "score.py",
)
"""Modules of `scanner.signatures` that decide what a signature is."""


@dataclass
class _Table:
    """What is known under one setting."""

    keys: tuple[str, ...]
    """The signature's sites, in order; none until it was built."""
    rows: dict[str, Measured] = field(default_factory=dict)
    """Digest of an adapter's weights -> what is measured of it."""


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
        self._known: dict[Setting, _Table] = {}
        self._context = _context(population)

    def prefetch(self, requests: Iterable[Request]) -> None:
        """Scores whatever is not known yet."""
        missing: dict[Row, list[Setting]] = defaultdict(list)
        for request in requests:
            known = self._table(request.setting)
            for row in request.rows:
                if row.sha256 not in known.rows and request.setting not in missing[row]:
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
        inputs = self._workshop.inputs
        for setting, directions in signatures.items():
            self._known[setting].keys = tuple(
                site.key for site in sorted(directions, key=site_order)
            )
        for row in self._track(rows, f"{self.population.name}: {len(settings)} signatures"):
            updates = self.population.read(row)
            for setting, directions in signatures.items():
                table = self._known[setting]
                table.rows[row.sha256] = measured(updates, directions, inputs, table.keys)
        for setting in settings:
            self._save(setting)

    def get(self, setting: Setting, rows: Sequence[Row], statistic: str) -> Array:
        """One statistic of every row, (n,); doses in doses."""
        values = self._values([Request(setting, tuple(rows))], rows, statistic)
        return values / self._workshop.dose(setting) if statistic == "dose" else values

    def measurements(self, setting: Setting, rows: Sequence[Row]) -> list[Measurement]:
        """What the score of every row follows from; doses not in doses."""
        return self._measurements([Request(setting, tuple(rows))], rows)

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

    def crossfit(self, setting: Setting, rows: Sequence[Row], statistic: str) -> Array:
        """One statistic of calibration rows, cross-fitted, (n,), in the order of the rows."""
        return self._values(self.crossfit_requests(setting, rows), rows, statistic)

    def crossfit_measurements(self, setting: Setting, rows: Sequence[Row]) -> list[Measurement]:
        """What the scores of calibration rows follow from, cross-fitted, in their order."""
        return self._measurements(self.crossfit_requests(setting, rows), rows)

    def _values(self, requests: Sequence[Request], rows: Sequence[Row], statistic: str) -> Array:
        """One statistic of rows that are each in one of the requests, (n,)."""
        place = STATISTICS.index(statistic)
        found = [table.rows[row.sha256].values[place] for table, row in self._at(requests, rows)]
        return np.array(found, dtype=np.float64)

    def _measurements(self, requests: Sequence[Request], rows: Sequence[Row]) -> list[Measurement]:
        return [
            table.rows[row.sha256].measurement(table.keys)
            for table, row in self._at(requests, rows)
        ]

    def _at(self, requests: Sequence[Request], rows: Sequence[Row]) -> Iterator[tuple[_Table, Row]]:
        """Each row with the table that it was asked for in, in the order of the rows."""
        self.prefetch(requests)
        table_of = {
            row.sha256: self._known[request.setting] for request in requests for row in request.rows
        }
        return ((table_of[row.sha256], row) for row in rows)

    def _path(self, setting: Setting) -> Path:
        key = hashlib.sha256(f"{self._context}{setting}".encode()).hexdigest()[:24]
        return self._cache / f"{setting.method}-{key}.npz"

    def _table(self, setting: Setting) -> _Table:
        if setting not in self._known:
            path = self._path(setting)
            table = _Table(())
            if path.exists():
                with np.load(path) as stored:
                    table.keys = tuple(map(str, stored["keys"]))
                    columns = (stored[name] for name in ("digests", "values", "norms", "sites"))
                    for digest, values, norm, sites in zip(*columns, strict=True):
                        table.rows[str(digest)] = Measured(values, float(norm), sites)
            self._known[setting] = table
        return self._known[setting]

    def _save(self, setting: Setting) -> None:
        table = self._known[setting]
        path = self._path(setting)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp.npz")
        digests = sorted(table.rows)
        found = [table.rows[name] for name in digests]
        np.savez(
            scratch,
            keys=np.array(table.keys, dtype=np.str_),
            digests=digests,
            values=np.array([item.values for item in found]),
            norms=np.array([item.norm for item in found]),
            sites=np.array([item.sites for item in found]),
        )
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
    own = (here / name for name in ("extractors.py", "measuring.py", "signatures.py"))
    for path in (*code, *own):
        digest.update(path.read_bytes())
    digest.update(repr((STATISTICS, PER_SITE)).encode())
    return digest.hexdigest()
