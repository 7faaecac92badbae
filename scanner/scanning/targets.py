"""Targets -> results: every adapter in every target gets exactly one, whatever happens to it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.detection.verdict import check_alpha, scan_adapter
from scanner.errors import DEBUG_VARIABLE, TargetError, UsageError, unforeseen
from scanner.formats.compose import compose
from scanner.formats.discover import AdapterFiles, LeaveOut, find_adapters
from scanner.formats.model import Adapter
from scanner.formats.opening import ShapesOf, open_files
from scanner.hub.address import is_address, parse_address, refuse_mistaken
from scanner.results import Configuration, ScanResult, Verdict
from scanner.scanning.cache import ResultCache
from scanner.scanning.contents import Contents, hub_contents, local_contents
from scanner.signatures.match import known_shapes
from scanner.signatures.pack import Signature

if TYPE_CHECKING:
    from scanner.hub.reading import RemoteAdapter


@dataclass(frozen=True)
class ScanOptions:
    """The settings that all targets of one run share."""

    signatures: Sequence[Signature]
    alpha: float | None = None
    base_model: str | None = None
    jobs: int | None = None
    cache: ResultCache | None = None
    configuration: Configuration | None = None
    """Who said so, for reports."""


@dataclass(frozen=True)
class Found:
    """One thing to scan, or the reason it cannot be."""

    target: str
    files: AdapterFiles | RemoteAdapter | None
    """On this machine, or on the hub."""
    error: Exception | None = None

    def open(self, shapes: ShapesOf) -> Adapter:
        """Opens the target.

        Raises:
            TargetError: If it cannot be read, or that is why it was not found.
        """
        if self.files is None:
            assert self.error is not None, "nothing found without a reason"
            raise self.error
        if isinstance(self.files, AdapterFiles):
            return open_files(self.files, shapes)
        return self.files.open(shapes)

    def contents(self) -> Contents:
        """What lies in its folder; nothing where it was not found."""
        if self.files is None:
            return Contents({})
        if isinstance(self.files, AdapterFiles):
            return local_contents(self.files)
        return hub_contents(self.files)

    def cache(self, options: ScanOptions) -> ResultCache | None:
        """Where its result is kept; a hub's word for a digest vouches for that hub alone."""
        if options.cache is None or self.files is None or isinstance(self.files, AdapterFiles):
            return options.cache
        return options.cache.apart(self.files.client.endpoint)


def against_base(found: Sequence[Found], base: Path) -> list[Found]:
    """Marks targets as full fine-tunes of one base model, to be scanned as the difference.

    Raises:
        UsageError: If a target is on the hub: a full fine-tune is read whole.
    """
    marked = []
    for item in found:
        if isinstance(item.files, AdapterFiles):
            item = replace(item, files=replace(item.files, base_weights=base))
        elif item.files is not None:
            raise UsageError(
                f"{item.target} is on the hub", where="--base-weights", todo="download it first"
            )
        marked.append(item)
    return marked


def error_result(target: str, error: Exception) -> ScanResult:
    """The result of a target that could not be read, whatever it was that went wrong.

    This is the one place where an exception that nobody has foreseen becomes a verdict.

    Raises:
        UsageError: That error itself: it is about the run and not about the target.
    """
    if isinstance(error, UsageError):
        raise error
    if isinstance(error, TargetError):
        return ScanResult(target=target, verdict=Verdict.ERROR, reasons=[error.line()])
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    return ScanResult(target=target, verdict=Verdict.ERROR, reasons=[unforeseen(error)])


def find_all(targets: Sequence[str], leave_out: LeaveOut | None = None) -> list[Found]:
    """Every adapter in the targets; a target without any is itself an entry with an error.

    Args:
        targets: Paths and addresses on the hub.
        leave_out: What is not searched on this machine; nothing if not given.

    Raises:
        UsageError: If a target that starts with hf:// is no address.
    """
    found: list[Found] = []
    for target in targets:
        try:
            found += _on_hub(target) if is_address(target) else _on_disk(target, leave_out)
        except UsageError:
            raise
        except Exception as error:  # one bad target never ends the run
            found.append(Found(target, None, error))
    return found


def _on_disk(target: str, leave_out: LeaveOut | None) -> list[Found]:
    refuse_mistaken(target)
    path = Path(target)
    each = find_adapters(path, leave_out) if leave_out else find_adapters(path)
    return [Found(str(files.target), files) for files in each]


def _on_hub(target: str) -> list[Found]:
    from scanner.hub.reading import find_hub_adapters

    return [Found(item.target, item) for item in find_hub_adapters(parse_address(target))]


def scan_each(found: Sequence[Found], options: ScanOptions) -> Iterator[ScanResult]:
    """Scans one after another.

    Raises:
        UsageError: If the options cannot be honoured (`scanner.detection.verdict.scan_adapter`).
    """
    check_alpha(options.alpha)
    for item in found:
        yield _scan_one(item, options)


def _shapes(options: ScanOptions) -> ShapesOf:
    """Where formats that do not store the base's dimensions find them."""
    return partial(known_shapes, options.signatures, options.base_model)


def _scan_one(item: Found, options: ScanOptions) -> ScanResult:
    cache = item.cache(options)
    try:
        with item.open(_shapes(options)) as adapter:
            if cache and (known := cache.get(adapter)):
                return known
            result = scan_adapter(
                adapter,
                options.signatures,
                alpha=options.alpha,
                base_model=options.base_model,
                jobs=options.jobs,
            )
            if cache:
                cache.put(adapter, result)
            return result
    except Exception as error:  # one bad target never ends the run
        return error_result(item.target, error)


def scan_sum(found: Sequence[Found], options: ScanOptions) -> ScanResult:
    """Scans the sum of all adapters found; one that cannot be read makes the whole an error.

    Raises:
        UsageError: As `scan_each`, or if the adapters cannot be summed.
    """
    check_alpha(options.alpha)
    found = [item for item in found if item.files is None or not item.files.is_checkpoint]
    together = " + ".join(item.target for item in found)
    adapters = []
    try:
        for item in found:  # one by one: those opened before a failure are closed below
            adapters.append(item.open(_shapes(options)))  # noqa: PERF401
        with compose(adapters) as adapter:
            return scan_adapter(
                adapter,
                options.signatures,
                alpha=options.alpha,
                base_model=options.base_model,
                jobs=options.jobs,
            )
    except Exception as error:  # as for one
        return error_result(together, error)
    finally:
        for adapter in adapters:
            adapter.close()
