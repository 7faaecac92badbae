"""Signature packs -> disk: a pack appears whole, or not at all.

`scanner.signatures.pack` reads what is written here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scanner.errors import SignatureError
from scanner.formats.model import Site, site_order
from scanner.formats.stores.opened import sha256_of_file
from scanner.signatures.base_facts import BaseFacts
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
    encode_calibration,
    encode_manifest,
    encode_selection,
)
from scanner.signatures.pack import Directions
from scanner.signatures.power import encode_power, measure_power


def direction_tensors(directions: Directions) -> dict[str, npt.NDArray[np.float32]]:
    """Directions as the tensors of a pack: ``<layer>.<module>.U|S|V``; no V without a sign."""
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    for site in sorted(directions, key=site_order):
        direction = directions[site]
        for letter, array in (("U", direction.u), ("S", direction.s), ("V", direction.v)):
            if letter == "V" and not direction.signed:
                continue
            tensors[f"{site.key}.{letter}"] = np.ascontiguousarray(array, dtype=np.float32)
    return tensors


def save_pack(
    root: Path,
    manifest: Manifest,
    directions: Directions,
    *,
    reference_sketches: Mapping[Site, npt.NDArray[np.float64]] | None = None,
    crossfit: Mapping[str, Directions] | None = None,
    base: BaseFacts | None = None,
    calibration: Calibration | None = None,
    nulling: Selection | None = None,
) -> None:
    """Writes a pack; `manifest.files` is filled in here.

    The directory appears whole or not at all: it is written beside its place and renamed.

    Args:
        root: The directory to create.
        manifest: The manifest without digests.
        directions: The signature.
        reference_sketches: Per site, the sketch of each misaligned reference's update.
        crossfit: Per benign family, the directions nulled without that family.
        base: What is kept of the base model, where it was at hand.
        calibration: Scores of the calibration set, if it was calibrated.
        nulling: How the adapters it is nulled with were found on a hub, if they were.

    Raises:
        SignatureError: If something that is not a pack stands in the way.
    """
    from safetensors.numpy import save_file

    with replacing(root) as new:
        save_file(direction_tensors(directions), new / DIRECTIONS_NAME)
        if reference_sketches:
            save_file(_reference_tensors(reference_sketches), new / REFERENCES_NAME)
        if crossfit:
            save_file(_crossfit_tensors(crossfit), new / CROSSFIT_NAME)
        if base:
            save_file(base.tensors(), new / BASE_NAME)
        if calibration is not None:
            _write_calibration(new, manifest, calibration)
        if nulling is not None:
            (new / NULLING_NAME).write_bytes(encode_selection(nulling))
        seal(new, manifest)


def save_calibration(root: Path, manifest: Manifest, calibration: Calibration) -> None:
    """Gives a pack another calibration, and the power it has with it, in one step as `save_pack`.

    Args:
        root: The pack.
        manifest: The manifest to seal it with; only its listed files are kept.
        calibration: The calibration.
    """
    with _copied(root, manifest, CALIBRATION_NAME, POWER_NAME) as new:
        _write_calibration(new, manifest, calibration)


def _write_calibration(new: Path, manifest: Manifest, calibration: Calibration) -> None:
    """Writes a calibration, and what the pack finds with it: the two never differ."""
    (new / CALIBRATION_NAME).write_bytes(encode_calibration(calibration))
    if calibration.benign:
        (new / POWER_NAME).write_bytes(encode_power(measure_power(manifest, calibration)))


def save_base(root: Path, manifest: Manifest, base: BaseFacts) -> None:
    """Gives a pack other facts of its base model, in one step as `save_pack`.

    Args:
        root: The pack.
        manifest: Its manifest.
        base: The facts.
    """
    from safetensors.numpy import save_file

    with _copied(root, manifest, BASE_NAME) as new:
        save_file(base.tensors(), new / BASE_NAME)


def drop_crossfit(root: Path, manifest: Manifest) -> None:
    """Takes the directions that leave a family out from a pack, in one step as `save_pack`.

    Only calibrating needs them, and they are the pack once more for each family.

    Args:
        root: The pack.
        manifest: Its manifest.
    """
    with _copied(root, manifest, CROSSFIT_NAME):
        pass


def drop_reference_sketches(root: Path, manifest: Manifest) -> None:
    """Takes the sketches of its references from a pack whose base has another pack with them.

    Args:
        root: The pack.
        manifest: Its manifest.
    """
    with _copied(root, manifest, REFERENCES_NAME):
        pass


@contextmanager
def _copied(root: Path, manifest: Manifest, *without: str) -> Iterator[Path]:
    """A copy of a pack without some files, which is sealed and takes the pack's place."""
    import shutil

    with replacing(root) as new:
        for name in manifest.files:
            if name not in without:
                shutil.copyfile(root / name, new / name)
        yield new
        seal(new, manifest)


@contextmanager
def replacing(root: Path) -> Iterator[Path]:
    """A directory beside `root` to write a pack in, which takes its place on success.

    Raises:
        SignatureError: If something that is not a pack stands in the way, or the place cannot
            be written.
    """
    if root.exists() and not (root / MANIFEST_NAME).is_file():
        raise SignatureError("exists and is not a signature pack", where=str(root))
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.")
    except OSError as error:
        raise SignatureError(
            f"cannot be written: {error.strerror or error}", where=str(root)
        ) from None
    with beside as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        yield new
        for path in new.iterdir():
            path.chmod(0o644)
        if root.exists():
            root.rename(Path(scratch) / "old")
        new.rename(root)
    os.chmod(root, 0o755)  # noqa: S103 - a temporary directory is private, a pack need not be


def seal(root: Path, manifest: Manifest) -> None:
    """Writes `signature.yaml` with the digests of the files beside it."""
    import msgspec

    files = {
        path.name: sha256_of_file(path)
        for path in sorted(root.iterdir())
        if path.name != MANIFEST_NAME
    }
    sealed = msgspec.structs.replace(manifest, files=files)
    (root / MANIFEST_NAME).write_bytes(encode_manifest(sealed))


def _reference_tensors(
    sketches: Mapping[Site, npt.NDArray[np.float64]],
) -> dict[str, npt.NDArray[np.float16]]:
    """``<layer>.<module>.sketch``, (n, m, m): each reference at unit norm over all sites."""
    squared = sum(np.square(item).sum(axis=(1, 2)) for item in sketches.values())
    sizes = np.sqrt(np.where(squared > 0, squared, 1.0))[:, np.newaxis, np.newaxis]
    return {
        f"{site.key}.sketch": np.ascontiguousarray(sketches[site] / sizes, dtype=np.float16)
        for site in sorted(sketches, key=site_order)
    }


def _crossfit_tensors(
    crossfit: Mapping[str, Directions],
) -> dict[str, npt.NDArray[np.float32]]:
    return {
        f"{family}/{name}": array
        for family in sorted(crossfit)
        for name, array in direction_tensors(crossfit[family]).items()
    }
