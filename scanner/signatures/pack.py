"""A signature pack on disk: load it, and verify it.

A pack is a directory of data; nothing in it is executed. `signature.yaml` holds the
sha256 of every other file, so the digest of that one file stands for the whole pack.
Directions are read site by site, when a site is looked at: a pack for a large model is
larger than the memory a scan may use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from scanner.errors import SignatureError, TargetError
from scanner.formats.limits import MAX_DOCUMENT_BYTES
from scanner.formats.model import Site, TensorStore
from scanner.formats.regular import read_regular
from scanner.formats.stores.local import SafetensorsFile
from scanner.formats.stores.opened import sha256_of_file
from scanner.geometry import Direction, Matrix, SiteInputs
from scanner.geometry.sketch import SIZE, WeightSketch
from scanner.results import DoseUnit
from scanner.signatures.base_facts import KeptBase
from scanner.signatures.manifest import (
    BASE_NAME,
    CALIBRATION_NAME,
    CROSSFIT_NAME,
    DIRECTIONS_NAME,
    MANIFEST_NAME,
    NULLING_NAME,
    POWER_NAME,
    REFERENCES_NAME,
    Calibration,
    Manifest,
    Selection,
    check_calibration_format,
    decode_calibration,
    decode_manifest,
    decode_selection,
)
from scanner.signatures.numbers import ScoreScale
from scanner.signatures.power import Power, decode_power
from scanner.system.display import drawn
from scanner.system.tables import data_frame

if TYPE_CHECKING:
    import pandas

Directions = Mapping[Site, Direction]


@dataclass(frozen=True)
class _Content:
    """The verified files of a pack."""

    directions: TensorStore
    references: TensorStore | None
    base: KeptBase | None
    calibration: Calibration | None
    power: Power | None


@dataclass(frozen=True)
class Signature:
    """One signature pack. Its manifest has been read; the rest is verified when first used."""

    path: Path
    manifest: Manifest
    digest: str
    """sha256 of signature.yaml, which holds the digests of the rest."""

    @property
    def id(self) -> str:
        """Id of the pack, from its manifest."""
        return self.manifest.id

    def __repr__(self) -> str:
        manifest = self.manifest
        made = f"{manifest.method}, rank {manifest.rank}, {len(self.reference_ids)} references"
        return f"<Signature {self.id!r} for {manifest.base_model.id!r}: {made}>"

    def _repr_html_(self) -> str | None:
        """The pack as a notebook shows it: what it is made of and what it finds."""
        return drawn("signature", self)

    def to_dict(self) -> dict[str, Any]:
        """Manifest and calibration as plain dicts, lists and numbers, with the pack's digest.

        Raises:
            SignatureError: If the pack is damaged.
        """
        return {
            "path": str(self.path),
            "digest": self.digest,
            "manifest": msgspec.to_builtins(self.manifest),
            "calibration": msgspec.to_builtins(self.calibration),
        }

    def to_frame(self) -> pandas.DataFrame:
        """What benign adapters and misaligned references score, as a data frame.

        One row each, with `role` ``benign`` or ``misaligned``; empty without a calibration.

        Raises:
            SignatureError: If the pack is damaged.
            MissingExtraError: If pandas is not installed.
        """
        from scanner.signatures.score_table import COLUMNS, score_rows

        return data_frame(score_rows(self.manifest, self.calibration), COLUMNS)

    @cached_property
    def _content(self) -> _Content:
        files = self.manifest.files
        verify_files(self.path, self.manifest)
        calibration = None
        if CALIBRATION_NAME in files:
            path = self.path / CALIBRATION_NAME
            calibration = decode_calibration(_read(path), path)
        references, base = (
            open_tensors(self.path / name) if name in files else None
            for name in (REFERENCES_NAME, BASE_NAME)
        )
        kept = KeptBase(base, str(self.path / BASE_NAME)) if base else None
        power = None
        if POWER_NAME in files:
            path = self.path / POWER_NAME
            power = decode_power(_read(path), path)
        directions = open_tensors(self.path / DIRECTIONS_NAME)
        return _Content(directions, references, kept, calibration, power)

    def verify(self) -> None:
        """Checks every digest and opens the pack's files, unless that has been done.

        Raises:
            SignatureError: If a file is missing, differs from its digest, or is malformed.
        """
        _ = self._content

    @property
    def is_open(self) -> bool:
        """Whether `verify` has succeeded."""
        return "_content" in self.__dict__

    def close(self) -> None:
        """Closes the pack's files; they are opened and verified again when needed."""
        content: _Content | None = self.__dict__.pop("_content", None)
        if content:
            base = content.base.store if content.base else None
            for store in (content.directions, content.references, base):
                if store:
                    store.close()

    @property
    def calibration(self) -> Calibration | None:
        """Scores of the calibration set; None if the pack was not calibrated."""
        return self._content.calibration

    @property
    def power(self) -> Power | None:
        """What it finds and misses; None if that was not measured: it is old, or not calibrated."""
        return self._content.power

    @property
    def score_scales(self) -> Mapping[str, ScoreScale]:
        """Shape -> what puts signed write and dose of an adapter on one scale."""
        calibration = self.calibration
        return calibration.scales if calibration else {}

    @cached_property
    def nulling(self) -> Selection | None:
        """How the adapters that it is nulled with were found on a hub; None if they were not.

        Raises:
            SignatureError: If the record of it is not sound.
        """
        self.verify()
        if NULLING_NAME not in self.manifest.files:
            return None
        path = self.path / NULLING_NAME
        return decode_selection(_read(path), path)

    @cached_property
    def sites(self) -> frozenset[Site]:
        """Every site the signature has a direction for."""
        return frozenset(
            Site.from_key(name.removesuffix(".S"))
            for name in self._content.directions.names()
            if name.endswith(".S")
        )

    def direction(self, site: Site) -> Direction:
        """The direction at one site, read from the pack.

        Raises:
            KeyError: If the signature has none there.
            TargetError: If the file cannot be read any more.
        """
        store = self._content.directions
        u, s = store.read(f"{site.key}.U"), store.read(f"{site.key}.S")
        has_input_side = site in self._signed_sites
        return Direction(u, s, store.read(f"{site.key}.V") if has_input_side else u[:0])

    def direction_norm(self, site: Site) -> float:
        """||D||_F at one site; 0 where the signature has no direction.

        Raises:
            TargetError: If the file cannot be read any more.
        """
        if site not in self.sites:
            return 0.0
        return float(np.linalg.norm(self._content.directions.read(f"{site.key}.S")))

    @cached_property
    def _signed_sites(self) -> frozenset[Site]:
        names = self._content.directions.names()
        return frozenset(Site.from_key(n.removesuffix(".V")) for n in names if n.endswith(".V"))

    def reference_sketches(self, site: Site) -> Matrix | None:
        """Sketches of the misaligned references' updates at one site, (n, m, m).

        Each reference has unit norm over all sites (`scanner.geometry.sketch`). None where the
        pack has none, as packs that were built before sketches were kept.

        Raises:
            SignatureError: If what it keeps there are no such sketches.
            TargetError: If the file cannot be read any more.
        """
        store, name = self._content.references, f"{site.key}.sketch"
        if store is None or name not in self._reference_names:
            return None
        found = store.read(name).astype(np.float64)
        n = len(self.reference_ids)
        square = found.ndim == 3 and 0 < found.shape[1] == found.shape[2] <= SIZE
        if not (square and len(found) == n and np.isfinite(found).all()):
            raise SignatureError(
                f"{name} is no sketch of {n} references", where=str(self.path / REFERENCES_NAME)
            )
        return found

    @cached_property
    def _reference_names(self) -> frozenset[str]:
        store = self._content.references
        return frozenset(store.names() if store else ())

    def base_weight(self, site: Site) -> WeightSketch | None:
        """What the pack keeps of the base model's weight at one site, if it keeps any of it.

        Raises:
            SignatureError: If what it keeps there is no norm and no sketch.
            TargetError: If the file cannot be read any more.
        """
        base = self._content.base
        return base.weight(site) if base else None

    def site_inputs(self, site: Site) -> SiteInputs | None:
        """What the pack knows of the inputs of one site in the base, if it knows anything.

        Raises:
            SignatureError: If what it keeps there is no second moment.
            TargetError: If the file cannot be read any more.
        """
        base = self._content.base
        return base.inputs(site) if base else None

    @property
    def dose_unit(self) -> DoseUnit:
        """What a dose of 1 is; the manifest's `units` say it in words."""
        if self.reference_ids:
            return DoseUnit.REFERENCE
        return DoseUnit.LOG_ODDS if self.manifest.method == "gradients" else DoseUnit.NONE

    @property
    def reference_ids(self) -> list[str]:
        """Ids of the misaligned references, in the order of `reference_sketches`."""
        return [item.id for item in self.manifest.references if item.role == "misaligned"]


def read_signature(path: str | Path) -> Signature:
    """Reads a pack's manifest, and of what kind its calibration is; nothing else yet.

    Raises:
        SignatureError: If it is missing, malformed, or of another format.
    """
    root = Path(path)
    raw = _read(root / MANIFEST_NAME)
    manifest = decode_manifest(raw, root / MANIFEST_NAME)
    if CALIBRATION_NAME in manifest.files and (root / CALIBRATION_NAME).is_file():
        check_calibration_format(_read(root / CALIBRATION_NAME), root / CALIBRATION_NAME)
    return Signature(root, manifest, hashlib.sha256(raw).hexdigest())


def load_signature(path: str | Path) -> Signature:
    """Loads a pack and verifies every digest.

    Raises:
        SignatureError: If a file is missing, differs from its digest, or is malformed.
    """
    signature = read_signature(path)
    signature.verify()
    return signature


def verify_files(root: Path, manifest: Manifest) -> None:
    """Checks every file of a pack against the manifest.

    Raises:
        SignatureError: At the first file that is missing or different.
    """
    if DIRECTIONS_NAME not in manifest.files:
        raise SignatureError(f"lists no {DIRECTIONS_NAME}", where=str(root / MANIFEST_NAME))
    for name in plain_names(manifest, str(root / MANIFEST_NAME)):
        expected = manifest.files[name]
        path = root / name
        try:
            if path.exists() and not path.is_file():
                raise SignatureError("is not a regular file", where=str(path))
            found = sha256_of_file(path)
        except OSError as error:
            raise SignatureError(
                f"cannot be read: {error.strerror or error}", where=str(path)
            ) from None
        if found != expected:
            raise SignatureError(
                f"sha256 is {found}, the manifest says {expected}",
                where=str(path),
                todo="the pack was changed or damaged: fetch it again",
            )


def plain_names(manifest: Manifest, where: str) -> list[str]:
    """The names of a pack's files, none of which leads out of its directory.

    Raises:
        SignatureError: At the first that is no plain file name.
    """
    for name in manifest.files:
        if Path(name).name != name or name in ("..", MANIFEST_NAME) or set(name) & set("/\\\0:"):
            raise SignatureError(f"lists {name!r}, not a plain file name", where=where)
    return list(manifest.files)


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_DOCUMENT_BYTES)
    except OSError as error:
        raise SignatureError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            todo="name a directory that holds a signature pack",
        ) from None


def open_tensors(path: Path) -> TensorStore:
    """Opens one of a pack's tensor files.

    Raises:
        SignatureError: If it is not sound.
    """
    try:
        return SafetensorsFile(path, replaced=True)
    except TargetError as error:
        raise SignatureError(error.what, where=error.where, todo=error.todo) from None


def load_crossfit(signature: Signature) -> dict[str, dict[Site, Direction]]:
    """The directions nulled without each benign family, if the pack has them.

    Returns:
        Family -> site -> direction; empty if the pack holds none.

    Raises:
        SignatureError: If the file is not sound.
    """
    if CROSSFIT_NAME not in signature.manifest.files:
        return {}
    store = open_tensors(signature.path / CROSSFIT_NAME)
    found: dict[str, dict[Site, Direction]] = {}
    for name in store.names():
        if not name.endswith(".S"):
            continue
        family, _, key = name.removesuffix(".S").partition("/")
        u, s, v = (store.read(f"{family}/{key}.{letter}") for letter in "USV")
        found.setdefault(family, {})[Site.from_key(key)] = Direction(u, s, v)
    store.close()
    return found


def pack_names(root: Path) -> Sequence[Path]:
    """Directories below `root` that hold a pack, sorted."""
    return sorted(path.parent for path in root.glob(f"*/{MANIFEST_NAME}"))
