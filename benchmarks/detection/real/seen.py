"""What packs see in adapters, gathered once and kept.

It depends on a pack's directions and on what it knows of the base, not on its calibration: a
pack that is calibrated anew, and a copy that has lost a family, see what was seen before.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import scanner
from benchmarks.detection.real.cases import Case
from scanner.detection.evidence import Evidence, SignatureEvidence, gather
from scanner.formats.model import Adapter, Uncovered
from scanner.scanning.opening import open_adapter
from scanner.signatures.manifest import BASE_NAME, DIRECTIONS_NAME, REFERENCES_NAME
from scanner.signatures.match import match_signatures
from scanner.signatures.pack import Signature

CODE = (
    "geometry/*.py",
    "formats/**/*.py",
    "detection/evidence.py",
    *(f"signatures/{name}.py" for name in ("score", "combination", "numbers")),
)
"""What decides what a pack sees."""


@dataclass(frozen=True)
class Sight:
    """One adapter under the packs that match it."""

    adapter: Adapter
    evidence: Evidence | None
    """None if the adapter changes nothing."""
    reason: str | None
    """Why no pack matches, if none does."""


@dataclass(frozen=True)
class _Kept:
    """What one pack sees: the fields of `SignatureEvidence` but the pack."""

    fields: dict[str, Any]
    uncovered: tuple[Uncovered, ...]

    @classmethod
    def of(cls, item: SignatureEvidence, uncovered: tuple[Uncovered, ...]) -> _Kept:
        """Leaves the pack away."""
        names = [field.name for field in fields(item) if field.name != "signature"]
        return cls({name: getattr(item, name) for name in names}, uncovered)

    def under(self, signature: Signature) -> SignatureEvidence:
        """The same with a pack that sees it."""
        return SignatureEvidence(signature=signature, **self.fields)


class Sights:
    """Gathers what packs see in adapters.

    Args:
        cache: Where it is kept; nowhere but in memory if None.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache
        self._known: dict[str, _Kept] = {}
        self._read: dict[Path, Adapter] = {}

    def of(self, case: Case, signatures: Sequence[Signature]) -> Sight:
        """What packs see in one adapter."""
        adapter = self._adapter(case)
        matched = match_signatures(adapter, signatures, None)
        evidence = self._evidence(case, adapter, matched.signatures) if adapter.updates else None
        return Sight(adapter, evidence, matched.reason)

    def _adapter(self, case: Case) -> Adapter:
        """What is read of an adapter beside its weights."""
        if case.path not in self._read:
            with open_adapter(case.path) as adapter:
                self._read[case.path] = adapter
        return self._read[case.path]

    def _evidence(self, case: Case, adapter: Adapter, signatures: Sequence[Signature]) -> Evidence:
        if not signatures or not _alike(signatures):
            return _gather(case, signatures)
        keys = [_key(adapter, case.made.sha256, signature) for signature in signatures]
        missing = {
            key: signature
            for key, signature in zip(keys, signatures, strict=True)
            if not self._load(key)
        }
        if missing:
            whole = _gather(case, list(missing.values()))
            for key, item in zip(missing, whole.signatures, strict=True):
                self._keep(key, _Kept.of(item, whole.uncovered))
        kept = [self._known[key] for key in keys]
        return Evidence(
            adapter=adapter,
            signatures=tuple(
                one.under(signature) for one, signature in zip(kept, signatures, strict=True)
            ),
            # What one pack could judge, all of them together can.
            uncovered=tuple(
                item for item in kept[0].uncovered if all(item in one.uncovered for one in kept)
            ),
        )

    def _load(self, key: str) -> bool:
        """Whether something is known, in memory from now on."""
        if key not in self._known and self._cache and (path := self._cache / key).exists():
            self._known[key] = pickle.loads(path.read_bytes())
        return key in self._known

    def _keep(self, key: str, kept: _Kept) -> None:
        self._known[key] = kept
        if self._cache:
            self._cache.mkdir(parents=True, exist_ok=True)
            partial = self._cache / f"{key}.partial"
            partial.write_bytes(pickle.dumps(kept))
            partial.replace(self._cache / key)


def _gather(case: Case, signatures: Sequence[Signature]) -> Evidence:
    with open_adapter(case.path) as adapter:
        return gather(adapter, signatures, jobs=1)


def _alike(signatures: Sequence[Signature]) -> bool:
    """Whether packs look at the same sites, and know the same of the base."""
    known = {(item.sites, item.manifest.files.get(BASE_NAME)) for item in signatures}
    return len(known) == 1


def _key(adapter: Adapter, sha256: str, signature: Signature) -> str:
    files = signature.manifest.files
    parts = (
        sha256,
        adapter.config_sha256,
        files[DIRECTIONS_NAME],
        files.get(BASE_NAME),
        files.get(REFERENCES_NAME),
        _code(),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@lru_cache
def _code() -> str:
    digest = hashlib.sha256()
    package = Path(scanner.__file__).parent
    for path in sorted(path for pattern in CODE for path in package.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()
