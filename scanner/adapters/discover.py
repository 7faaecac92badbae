"""A target -> the adapters in it.

A target is a file or a directory, searched to any depth. Links are followed only where
they stay inside the target (or, for a download cache, inside the `blobs` folder the cache
keeps its content in).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from scanner.adapters.peft_config import CONFIG_NAME
from scanner.adapters.stores.sniff import INDEX_SUFFIX
from scanner.errors import MalformedFileError, NothingToScanError, TargetError, UnreadableFileError

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz", ".nemo")
ADAPTER_STEMS = ("adapter_model", "adapters", "pytorch_lora_weights")
"""File stems trainers give an adapter's weights, in order of preference."""

TRAINER_STATE = frozenset(
    {
        "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "training_args.bin",
        "rng_state.pth", "trainer_state.pt",
    }
)  # fmt: skip
"""What trainers leave beside an adapter; nothing loads it together with the weights."""


@dataclass(frozen=True)
class AdapterFiles:
    """The files of one adapter."""

    target: Path
    """What a report calls it: the directory, or the file if it stands alone."""
    weights: Path | None
    """The weight file or the index of its shards; None if only a config was found."""
    config: Path | None
    others: tuple[Path, ...] = ()
    """Weight files in the same directory that are not part of this adapter."""
    base_weights: Path | None = None
    """The base model, if the weights are a full fine-tune to be compared with it."""
    problem: TargetError | None = None
    """Why the files cannot be looked at, if so."""


def find_adapters(target: Path) -> list[AdapterFiles]:
    """Finds every adapter in a target, sorted by path.

    Raises:
        UnreadableFileError: If the target does not exist.
        NothingToScanError: If it is a directory without any adapter.
    """
    if not target.exists():
        raise UnreadableFileError("no such file or directory", where=str(target))
    if target.is_file():
        return [_around_file(target)]
    found: list[AdapterFiles] = []

    def unreadable(error: OSError) -> None:
        place = Path(error.filename)
        problem = UnreadableFileError(f"cannot be listed: {error.strerror}", where=str(place))
        found.append(AdapterFiles(place, None, None, problem=problem))

    for directory, folders, names in os.walk(target, onerror=unreadable, followlinks=False):
        folders[:] = sorted(name for name in folders if name not in (".git", ".cache"))
        found += [
            AdapterFiles(path, None, None, problem=_outside(path))
            for path in (Path(directory, name) for name in folders)
            if not _stays_inside(path, target)
        ]
        if files := _in_directory(Path(directory), names, target):
            found.append(files)
    if not found:
        raise NothingToScanError(
            "no adapter in this directory",
            where=str(target),
            todo="name a directory with adapter weights, or a weight file",
        )
    return found


def adapter_in(directory: Path) -> AdapterFiles | None:
    """The adapter that lies directly in one directory, if any.

    Raises:
        UnreadableFileError: If the directory cannot be listed, or holds a link that leads out.
    """
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise UnreadableFileError(
            f"cannot be listed: {error.strerror or error}", where=str(directory)
        ) from None
    return _in_directory(directory, names, directory)


def _around_file(path: Path) -> AdapterFiles:
    """The adapter a single named file belongs to."""
    config = path.parent / CONFIG_NAME
    if path.name == CONFIG_NAME:
        files = _in_directory(path.parent, os.listdir(path.parent), path.parent)
        assert files is not None, "a directory with a config always makes an adapter"
        return files
    problem = _lone_shard(path) if _is_shard(path.name) else None
    return AdapterFiles(path, path, config if config.is_file() else None, problem=problem)


def _stays_inside(path: Path, root: Path) -> bool:
    """Whether a file, links resolved, lies where the scan was asked to look."""
    if not path.is_symlink():
        return True
    try:
        resolved, inside = path.resolve(), root.resolve()
    except (OSError, RuntimeError):  # a link that leads to itself
        return False
    if resolved.is_relative_to(inside):
        return True
    # A hub cache keeps snapshots/<commit>/<name> as links into ../../blobs.
    snapshot = next((p for p in (inside, *inside.parents) if p.parent.name == "snapshots"), None)
    return snapshot is not None and resolved.parent == snapshot.parent.parent / "blobs"


def _outside(path: Path) -> UnreadableFileError:
    return UnreadableFileError(
        "a link that leads out of the target", where=str(path), todo="scan the place it points to"
    )


def _lone_shard(path: Path) -> MalformedFileError:
    return MalformedFileError(
        "one shard of several, without the index that names them all",
        where=str(path),
        todo="fetch the other shards and the index",
    )


def _preference(path: Path) -> tuple[int, int, str]:
    stem = path.name.split(".", 1)[0]
    by_stem = ADAPTER_STEMS.index(stem) if stem in ADAPTER_STEMS else len(ADAPTER_STEMS)
    by_suffix = 0 if path.name.endswith((".safetensors", INDEX_SUFFIX)) else 1
    return (by_suffix, by_stem, path.name)


def _is_shard(name: str) -> bool:
    stem, _, rest = name.partition("-of-")
    return bool(rest) and stem[-5:].isdigit() and name.endswith(".safetensors")


def _in_directory(directory: Path, names: list[str], root: Path) -> AdapterFiles | None:
    """The adapter that lies directly in one directory, if any."""
    candidates = []
    for name in sorted(names):
        if not name.endswith((*WEIGHT_SUFFIXES, INDEX_SUFFIX, CONFIG_NAME)):
            continue
        path = directory / name
        if not _stays_inside(path, root):
            return AdapterFiles(directory, None, None, problem=_outside(path))
        candidates.append(path)
    config = next((path for path in candidates if path.name == CONFIG_NAME), None)
    weights = [p for p in candidates if p.name != CONFIG_NAME and p.name not in TRAINER_STATE]
    if any(path.name.endswith(INDEX_SUFFIX) for path in weights):
        weights = [path for path in weights if not _is_shard(path.name)]
    elif shard := next((path for path in weights if _is_shard(path.name)), None):
        return AdapterFiles(directory, None, config, problem=_lone_shard(shard))
    weights.sort(key=_preference)
    if not weights:
        return AdapterFiles(directory, None, config) if config else None
    return AdapterFiles(directory, weights[0], config, tuple(weights[1:]))
