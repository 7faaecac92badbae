from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.detection.real.cases import Cases, read_cases
from benchmarks.detection.real.run import Result, evaluate
from benchmarks.detection.real.seen import Sights
from benchmarks.detection.real.unseen import find_crossfit
from scanner.signatures.building.scoring import untracked
from scanner.signatures.pack import Signature, load_signature
from tests.benchmarks.detection.real.workfolder import write_folder, write_packs


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("organisms"))


@pytest.fixture(scope="session")
def packs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_packs(folder, tmp_path_factory.mktemp("packs"))


@pytest.fixture(scope="session")
def cases(folder: Path) -> Cases:
    return read_cases(folder)


@pytest.fixture(scope="session")
def signatures(packs: list[Path]) -> Iterator[list[Signature]]:
    found = [load_signature(path) for path in packs]
    yield found
    for signature in found:
        signature.close()


@pytest.fixture(scope="session")
def result(cases: Cases, signatures: list[Signature]) -> Result:
    return evaluate(cases, signatures, find_crossfit(signatures, None), Sights(), untracked)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")
