"""Whatever happens in one target is that target's error, and the others keep their verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner.errors import UsageError
from scanner.formats.discover import AdapterFiles
from scanner.formats.opening import open_files
from scanner.results import Verdict
from scanner.scanning import targets
from scanner.scanning.targets import ScanOptions, find_all, scan_each, scan_sum
from scanner.signatures.pack import Signature

UNFORESEEN = (
    TypeError("'int' object is not iterable"),
    OverflowError("int too large\nto convert"),
    MemoryError(),
    RecursionError(),
    KeyError("x"),
)


@pytest.mark.parametrize("failure", UNFORESEEN, ids=lambda failure: type(failure).__name__)
def test_the_others_keep_their_verdicts(
    failure: Exception,
    benign: Path,
    misaligned: Path,
    pack: Signature,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ADAPTER_SCANNER_DEBUG", raising=False)

    def break_one(files: AdapterFiles, shapes: object) -> object:
        if files.target == benign:
            raise failure
        return open_files(files)

    monkeypatch.setattr(targets, "open_files", break_one)
    options = ScanOptions([pack])
    broken, whole = scan_each(find_all([str(benign), str(misaligned)]), options)
    assert (broken.verdict, whole.verdict) == (Verdict.ERROR, Verdict.FLAGGED)
    (reason,) = broken.reasons
    assert "\n" not in reason
    foreseeable = isinstance(failure, (MemoryError, RecursionError))
    assert ("report this defect" in reason) is not foreseeable
    together = scan_sum(find_all([str(misaligned), str(benign)]), options)
    assert together.verdict is Verdict.ERROR


def test_an_error_of_the_run_ends_it(benign: Path, pack: Signature) -> None:
    with pytest.raises(UsageError):
        list(scan_each(find_all([str(benign)]), ScanOptions([pack], alpha=7.0)))


def test_a_target_that_cannot_be_searched_is_an_error(
    benign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> object:
        raise ValueError("embedded null byte")

    monkeypatch.setattr(targets, "find_adapters", fail)
    (found,) = find_all([str(benign)])
    assert isinstance(found.error, ValueError)
