"""A sweep in this process, and what its ledger says."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from scanner.hub.client import HubClient
from scanner.hub.client import RetryPolicy as RequestPolicy
from scanner.hub.listing import Listing
from scanner.hub.query import SweepQuery
from scanner.reports.assemble import signature_summary
from scanner.scanning.cache import verdict_key
from scanner.signatures.pack import Signature
from scanner.sweep.engines import Engine
from scanner.sweep.engines.local import LocalEngine
from scanner.sweep.ledger import Ledger
from scanner.sweep.ledger_rows import LedgerRows
from scanner.sweep.records import Progress
from scanner.sweep.sweep import RetryPolicy, Sweep
from scanner.sweep.work import Worker
from tests.sweep.population import ALPHA, Expected
from tests.synthetic import BASE

FAST = RetryPolicy(first_wait=0.05, longest_wait=0.2)
FAST_REQUESTS = RequestPolicy(attempts=2, first_wait=0.01, longest_wait=1.5)


def sweep(
    ledger: Path,
    endpoint: str,
    pack: Signature,
    *,
    query: SweepQuery | None = None,
    resume: bool = False,
    policy: RetryPolicy = FAST,
    engine: Engine | None = None,
) -> Progress:
    """Sweeps a hub for adapters of the made-up base, or what a query says."""
    query = query or SweepQuery(endpoint=endpoint, base_models=[BASE])
    client = HubClient(endpoint, FAST_REQUESTS)
    with Ledger(ledger) as book:
        checkpoint = book.begin(
            query,
            verdict_key([pack], ALPHA),
            [signature_summary(pack)],
            ALPHA,
            resume=resume,
        )
        engine = engine or LocalEngine(Worker(client, [pack], ALPHA), 4)
        try:
            listing = Listing(client, query, {})
            return Sweep(book, listing, engine, policy).run(checkpoint, lambda _: None)
        finally:
            engine.close()


def content_of(ledger: Path) -> list[tuple[object, ...]]:
    """All a ledger says, but for when it was done and which of the same files were read."""
    columns = (
        "repository, revision, subfolder, content, packs, state, "
        "verdict, base_model, score, dose, cosine, p_value, reason"
    )
    with sqlite3.connect(ledger) as connection:
        rows = connection.execute(
            f"SELECT {columns} FROM adapter ORDER BY repository, revision, subfolder, content"
        ).fetchall()
    with LedgerRows(ledger) as found:
        return [*rows, *((result,) for result in found.results())]


def found_in(ledger: Path) -> dict[tuple[str, str], Expected]:
    """What a ledger says of each adapter."""
    with sqlite3.connect(ledger) as connection:
        rows = connection.execute(
            "SELECT repository, subfolder, state, verdict, p_value, dose FROM adapter"
        ).fetchall()
    found = {(row[0], row[1]): Expected(*row[2:]) for row in rows}
    assert len(found) == len(rows), "an adapter is in the ledger twice"
    return found


def read_adapters(ledger: Path) -> int:
    """Adapters whose verdict was reached by reading them, not copied."""
    with sqlite3.connect(ledger) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM adapter WHERE state = 'judged' AND copy_of IS NULL"
        ).fetchone()
    return int(count)
