"""A sweep from its settings: opens what it needs, runs it, and closes everything again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scanner.formats.base_identity import normalise_base_name
from scanner.hub.client import HubClient
from scanner.hub.listing import Listing
from scanner.hub.query import SweepQuery
from scanner.reports.assemble import signature_summary
from scanner.scanning.cache import verdict_key
from scanner.signatures.match import names_of
from scanner.signatures.pack import Signature
from scanner.sweep.engines import Engine
from scanner.sweep.ledger import Ledger
from scanner.sweep.records import Progress
from scanner.sweep.sweep import Sweep
from scanner.sweep.work import REQUEST_POLICY, Worker

DEFAULT_JOBS = 16


@dataclass(frozen=True)
class SweepSettings:
    """What a sweep goes over, and how."""

    query: SweepQuery
    signatures: Sequence[Signature]
    ledger: Path
    alpha: float | None = None
    resume: bool = False
    """Whether to continue the listing that an earlier run began."""
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    """Address of a running Ray cluster."""
    jobs: int = DEFAULT_JOBS
    """Adapters read at once, by each worker of a cluster."""


def run_sweep(settings: SweepSettings, watch: Callable[[Progress], None]) -> Progress:
    """Runs a sweep to its end.

    Args:
        settings: What and how.
        watch: Is told how far it is, now and then.

    Raises:
        UsageError: If the ledger or the cluster cannot be used.
        HubError: If the hub cannot be listed, or nothing works any more.
    """
    signatures = settings.signatures
    client = HubClient(settings.query.endpoint, REQUEST_POLICY)
    listing = Listing(client, settings.query, _aliases(settings.query, signatures))
    with Ledger(settings.ledger) as ledger:
        checkpoint = ledger.begin(
            settings.query,
            verdict_key(signatures, settings.alpha),
            [signature_summary(item) for item in signatures],
            settings.alpha,
            resume=settings.resume,
        )
        engine = _engine(settings, client)
        try:
            return Sweep(ledger, listing, engine).run(checkpoint, watch)
        finally:
            engine.close()


def _engine(settings: SweepSettings, client: HubClient) -> Engine:
    if settings.engine == "ray":
        from scanner.sweep.engines.ray import RayEngine

        return RayEngine(
            settings.signatures,
            settings.alpha,
            endpoint=client.endpoint,
            jobs=settings.jobs,
            address=settings.address,
        )
    from scanner.sweep.engines.local import LocalEngine

    return LocalEngine(Worker(client, settings.signatures, settings.alpha), settings.jobs)


def _aliases(query: SweepQuery, signatures: Sequence[Signature]) -> dict[str, list[str]]:
    """Base model -> what packs call the same model."""
    found: dict[str, list[str]] = {}
    for base in query.base_models:
        for signature in signatures:
            known = signature.manifest.base_model
            if normalise_base_name(base) in names_of(known):
                found.setdefault(base, []).extend([known.id, *known.aliases])
    return found
