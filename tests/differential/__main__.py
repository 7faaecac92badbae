"""A long search: ``python -m tests.differential --minutes 10``.

Prints each disagreement once, with the fewest mutations that show it, as text that can be put
into `regressions.py`, and at the end how many adapters were looked at. Exit status 1 if there was
any disagreement.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from tests.differential.judging import Judgement, judge, smaller
from tests.differential.loaders import Loader, OtherPeft, here
from tests.differential.mutations import OPERATIONS, Case, cases
from tests.differential.originals import KINDS

_BATCH = 400


class Search:
    """Counts, and the disagreements found so far."""

    def __init__(self, loaders: Sequence[Loader]) -> None:
        self.loaders = loaders
        self.counts: Counter[str] = Counter()
        self.found: dict[tuple[object, ...], Case] = {}

    def look_at(self, case: Case) -> None:
        """Judges one adapter; a disagreement is made small and printed if it is new."""
        judgement = judge(case, self.loaders)
        self.counts["adapters"] += 1
        self.counts["read without gaps"] += judgement.covered
        self.counts.update(f"loaded by {name}" for name in judgement.loaded)
        if judgement.disagreements:
            self.counts["disagreements"] += 1
            self._report(smaller(case, self.loaders))

    def _report(self, case: Case) -> None:
        judgement: Judgement = judge(case, self.loaders)
        names = tuple(sorted({item.loader for item in judgement.disagreements}))
        shown = tuple((m.operation, repr(m.value)) for m in case.mutations)
        key = (case.kind.split()[0], names, shown)
        if key in self.found:
            return
        self.found[key] = case
        print(f"\n{case!r}\n    {', '.join(names)}: {judgement.disagreements[0].where}", flush=True)


def main() -> int:
    """Searches until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", help="a kind of adapter; all by default")
    parser.add_argument("--without", action="append", default=[], choices=sorted(OPERATIONS))
    parser.add_argument("--old-peft", type=Path, help="the python of an environment with PEFT 0.13")
    arguments = parser.parse_args()
    old = OtherPeft("PEFT 0.13", arguments.old_peft) if arguments.old_peft else None
    search = Search((*here(), old) if old else here())
    kinds = tuple(arguments.kind or KINDS)
    deadline, batch = time.monotonic() + 60 * arguments.minutes, arguments.seed * 10_000
    while time.monotonic() < deadline:
        _one_batch(search, cases(kinds, frozenset(arguments.without)), batch, deadline)
        batch += 1
    if old:
        old.close()
    print()
    for what, count in search.counts.most_common():
        print(f"{count:8,} {what}")
    return bool(search.found)


def _one_batch(
    search: Search, adapters: SearchStrategy[Case], number: int, deadline: float
) -> None:
    @seed(number)
    @settings(
        max_examples=_BATCH,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(adapters)
    def search_some(case: Case) -> None:
        if time.monotonic() < deadline:
            search.look_at(case)

    search_some()


if __name__ == "__main__":
    raise SystemExit(main())
