"""`open_adapter` and `scan`: a path, or an address on the hub -> an `Adapter`, and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scanner.detection.verdict import scan_adapter
from scanner.formats.model import Adapter
from scanner.formats.opening import Shapes, ShapesOf, open_path
from scanner.hub.address import is_address, refuse_mistaken
from scanner.results import ScanResult
from scanner.signatures.pack import Signature


def open_adapter(target: str | Path, shapes: Shapes | ShapesOf | None = None) -> Adapter:
    """Opens the one adapter at a path or an address on the hub.

    The result keeps its weight file open; use it as a context manager, or close it.

    Args:
        target: A weight file, an adapter_config.json, a directory that holds one adapter, or
            hf://owner/name[@revision][/subfolder].
        shapes: Module -> (d_out, d_in) of the base, for the formats that do not store them; or
            a function that gives them for the base model an adapter names.

    Raises:
        UsageError: If there are several adapters.
        TargetError: If the adapter cannot be read; see `scanner.errors`.
    """
    if isinstance(target, str) and is_address(target):
        from scanner.hub.reading import open_hub_adapter

        return open_hub_adapter(target, shapes)
    refuse_mistaken(str(target))
    return open_path(target, shapes)


def scan(
    adapter: Adapter | str | Path,
    signatures: Sequence[Signature] | None = None,
    *,
    alpha: float | None = None,
    base_model: str | None = None,
    jobs: int | None = None,
) -> ScanResult:
    """Scans one adapter.

    Args:
        adapter: An open adapter, a path, or an address on the hub.
        signatures: The packs to use; every installed one if not given. Those made for
            another base model are left aside.
        alpha: False-positive rate, in (0, 1); 0.01 if not given.
        base_model: The adapter's base model, if its own word is not to be taken.
        jobs: Threads.

    Returns:
        The verdict with all its evidence.

    Raises:
        AlphaUnsupportedError: If `alpha` is given and below what the calibration supports.
            (Not given, the verdict is inconclusive instead.)
        UsageError: If `alpha` is not in (0, 1), or a pack is damaged.
        TargetError: If a path was given and cannot be read.
    """
    if not isinstance(adapter, Adapter):
        with open_adapter(adapter) as opened:
            return scan(opened, signatures, alpha=alpha, base_model=base_model, jobs=jobs)
    return scan_adapter(adapter, signatures, alpha=alpha, base_model=base_model, jobs=jobs)
