"""An adapter's files, found and opened -> an `Adapter`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scanner.errors import UnreadableFileError, UsageError
from scanner.formats.discover import AdapterFiles, find_adapters
from scanner.formats.model import Adapter, TensorStore, Uncovered, nothing_to_fetch
from scanner.formats.peft_config import PeftConfig, read_config
from scanner.formats.readers import READERS, mlx
from scanner.formats.rules import beside
from scanner.formats.source import Source
from scanner.formats.stores.sharded import UnitedStore
from scanner.formats.stores.sniff import open_store

Shapes = Mapping[str, tuple[int, int]]
ShapesOf = Callable[[str | None], Shapes]


def open_path(target: str | Path, shapes: Shapes | ShapesOf | None = None) -> Adapter:
    """Opens the one adapter at a path.

    The result keeps its weight file open; use it as a context manager, or close it.

    Args:
        target: A weight file, an adapter_config.json, or a directory that holds one adapter.
        shapes: Module -> (d_out, d_in) of the base, for the formats that do not store them; or
            a function that gives them for the base model an adapter names.

    Raises:
        UsageError: If the directory holds several adapters.
        TargetError: If the adapter cannot be read; see `scanner.errors`.
    """
    found = [files for files in find_adapters(Path(target)) if not files.is_checkpoint]
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} adapters in this directory", where=str(target), todo="name one of them"
        )
    return open_files(found[0], shapes)


def open_files(files: AdapterFiles, shapes: Shapes | ShapesOf | None = None) -> Adapter:
    """Opens an adapter whose files have been found.

    Raises:
        TargetError: If they cannot be read.
    """
    if files.problem is not None:
        raise files.problem
    where = str(files.target)
    config: PeftConfig | None = None
    config_sha256 = None
    if files.config is not None:
        config, raw = read_config(files.config)
        config_sha256 = hashlib.sha256(raw).hexdigest()
    if files.weights is None:
        raise UnreadableFileError(
            "an adapter_config.json without weights beside it",
            where=where,
            todo="fetch adapter_model.safetensors",
        )
    if files.base_weights is not None:
        from scanner.formats.checkpoint import open_checkpoint

        return open_checkpoint(files, files.base_weights)
    try:
        store = open_store(files.weights)
    except OSError as error:
        raise UnreadableFileError(
            f"cannot be read: {error.strerror or error}", where=str(files.weights)
        ) from None
    others = tuple(path.name for path in files.others)
    checkpoints = tuple(path.name for path in files.checkpoints)
    parts = AdapterParts(where, store, config, config_sha256, others, checkpoints)
    return adapter_from(parts, shapes)


@dataclass(frozen=True)
class AdapterParts:
    """An adapter's opened files, wherever they lie."""

    where: str
    """Name of the adapter in reports."""
    store: TensorStore
    config: PeftConfig | None
    config_sha256: str | None
    others: tuple[str, ...] = ()
    """Names of weight files beside it."""
    checkpoints: tuple[str, ...] = ()
    """Names of files beside it that are adapters of their own if mlx-lm wrote them."""

    def not_judged(self, format_name: str) -> tuple[Uncovered, ...]:
        """The weight files beside it that a loader may take and this adapter does not hold."""
        own = self.store.files if isinstance(self.store, UnitedStore) else frozenset()
        names = self.others if format_name == mlx.FORMAT else (*self.others, *self.checkpoints)
        return tuple(Uncovered(name, beside(name)) for name in names if name not in own)


def adapter_from(
    parts: AdapterParts,
    shapes: Shapes | ShapesOf | None = None,
    prefetch: Callable[[Sequence[str]], None] | None = None,
) -> Adapter:
    """Lets the reader that knows the format make an adapter of opened files.

    Args:
        parts: The files. They are closed if no reader can make an adapter of them.
        shapes: As `open_path`.
        prefetch: Fetches tensors that are about to be read, if that is cheaper than one by one.

    Raises:
        TargetError: If they cannot be read.
    """
    config, store = parts.config, parts.store
    if callable(shapes):
        shapes = shapes(config.base_model if config else None)
    source = Source(parts.where, store, config, shapes or {})
    try:
        reader = next(reader for reader in READERS if reader.recognises(source))
        reading = reader.read(source)
    except BaseException:
        store.close()
        raise
    return Adapter(
        target=parts.where,
        format=reading.format,
        base_model=reading.base_model,
        updates=reading.updates,
        uncovered=reading.uncovered + parts.not_judged(reading.format),
        digest=store.sha256,
        config_sha256=parts.config_sha256,
        last_blocks=reading.last_blocks,
        fills_blocks=reading.fills_blocks,
        close=store.close,
        prefetch=prefetch or nothing_to_fetch,
    )
