"""A sweep from its settings: opens what it needs, runs it, and closes everything again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scanner.errors import HubError, SweepStoppedError
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
from scanner.sweep.ledger_file import is_blank
from scanner.sweep.question import check_bases, nothing_listed
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
    """Adapters read at once, by all processes of this machine or by each worker of a cluster."""
    allow_empty: bool = False
    """Whether a base without a pack, or a query that lists nothing, may be meant."""


def run_sweep(settings: SweepSettings, watch: Callable[[Progress], None]) -> Progress:
    """Runs a sweep to its end.

    Args:
        settings: What and how.
        watch: Is told how far it is, now and then.

    Raises:
        UsageError: If the ledger or the cluster cannot be used, a base has no pack, or nothing
            is listed.
        SweepStoppedError: If the hub stops answering when some of the work is done.
        HubError: If the hub cannot be listed at all.
    """
    client = HubClient(settings.query.endpoint, REQUEST_POLICY)
    if not settings.allow_empty:
        check_bases(settings.query.base_models, settings.signatures, client)
    is_new = is_blank(settings.ledger)
    with Ledger(settings.ledger) as ledger:
        progress = _swept(settings, client, ledger, watch)
    if not progress.listed and not settings.allow_empty:
        if is_new:
            settings.ledger.unlink(missing_ok=True)
        raise nothing_listed(settings.query)
    return progress


def _swept(
    settings: SweepSettings, client: HubClient, ledger: Ledger, watch: Callable[[Progress], None]
) -> Progress:
    signatures = settings.signatures
    listing = Listing(client, settings.query, _aliases(settings.query, signatures))
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
    except HubError as error:
        if not ledger.waiting().progress().listed:
            raise
        raise SweepStoppedError(error.what, where=error.where, todo=error.todo) from error
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
