"""Targets -> results: every adapter in every target gets exactly one, whatever happens to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from scanner.adapters.compose import compose
from scanner.adapters.discover import AdapterFiles, find_adapters
from scanner.adapters.opening import ShapesOf, open_files
from scanner.cache import ResultCache
from scanner.detector import check_alpha, scan
from scanner.errors import TargetError
from scanner.results import ScanResult, Verdict
from scanner.signatures.match import known_shapes
from scanner.signatures.pack import Signature


@dataclass(frozen=True)
class ScanOptions:
    """How a run scans."""

    signatures: Sequence[Signature]
    alpha: float | None = None
    base_model: str | None = None
    jobs: int | None = None
    cache: ResultCache | None = None


@dataclass(frozen=True)
class Found:
    """One thing to scan, or the reason it cannot be."""

    target: str
    files: AdapterFiles | None
    error: TargetError | None = None


def against_base(found: Sequence[Found], base: Path) -> list[Found]:
    """Marks targets as full fine-tunes of one base model, to be scanned as the difference."""
    return [
        replace(item, files=item.files and replace(item.files, base_weights=base)) for item in found
    ]


def error_result(target: str, error: TargetError) -> ScanResult:
    """The result of a target that could not be read."""
    return ScanResult(target=target, verdict=Verdict.ERROR, reasons=[error.line()])


def find_all(targets: Sequence[str]) -> list[Found]:
    """Every adapter in the targets; a target without any is itself an entry with an error."""
    found: list[Found] = []
    for target in targets:
        try:
            found += [Found(str(files.target), files) for files in find_adapters(Path(target))]
        except TargetError as error:
            found.append(Found(target, None, error))
    return found


def scan_each(found: Sequence[Found], options: ScanOptions) -> Iterator[ScanResult]:
    """Scans one after another.

    Raises:
        UsageError: If the options cannot be honoured (`scanner.detector.scan`).
    """
    check_alpha(options.alpha)
    for item in found:
        yield _scan_one(item, options)


def _shapes(options: ScanOptions) -> ShapesOf:
    """Where formats that do not store the base's dimensions find them."""
    return partial(known_shapes, options.signatures, options.base_model)


def _scan_one(item: Found, options: ScanOptions) -> ScanResult:
    if item.files is None:
        assert item.error is not None, "nothing found without a reason"
        return error_result(item.target, item.error)
    try:
        with open_files(item.files, _shapes(options)) as adapter:
            if options.cache and (known := options.cache.get(adapter)):
                return known
            result = scan(
                adapter,
                options.signatures,
                alpha=options.alpha,
                base_model=options.base_model,
                jobs=options.jobs,
            )
            if options.cache:
                options.cache.put(adapter, result)
            return result
    except TargetError as error:
        return error_result(item.target, error)


def scan_sum(found: Sequence[Found], options: ScanOptions) -> ScanResult:
    """Scans the sum of all adapters found; one that cannot be read makes the whole an error.

    Raises:
        UsageError: As `scan_each`, or if the adapters cannot be summed.
    """
    check_alpha(options.alpha)
    together = " + ".join(item.target for item in found)
    adapters = []
    try:
        for item in found:
            if item.files is None:
                assert item.error is not None, "nothing found without a reason"
                raise item.error
            adapters.append(open_files(item.files, _shapes(options)))
        with compose(adapters) as adapter:
            return scan(
                adapter,
                options.signatures,
                alpha=options.alpha,
                base_model=options.base_model,
                jobs=options.jobs,
            )
    except TargetError as error:
        return error_result(together, error)
    finally:
        for adapter in adapters:
            adapter.close()
