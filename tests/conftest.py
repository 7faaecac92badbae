"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from scanner.signatures.pack import Signature
from tests.sharing import longest_first, scheduler
from tests.synthetic import misaligned_factors, random_factors, synthetic_pack, write_adapter

# A busy machine is no failed property: examples have no deadline of their own.
settings.register_profile("adapter-scanner", deadline=None)
settings.load_profile("adapter-scanner")

# Hundreds of tests start this program: each would compile all of it for a third of a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, if several workers share the tests."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        longest_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that share something go to one worker, which makes it once."""
    return scheduler(config, log)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Results are remembered in a place of this run's own, not the developer's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTER_SCANNER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Signature:
    """A calibrated pack of the made-up base."""
    return synthetic_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture
def misaligned(tmp_path: Path) -> Path:
    """A misaligned adapter that no pack has seen."""
    return write_adapter(tmp_path / "misaligned", misaligned_factors(np.random.default_rng(901)))


@pytest.fixture
def benign(tmp_path: Path) -> Path:
    """A benign adapter that no pack has seen."""
    return write_adapter(tmp_path / "benign", random_factors(np.random.default_rng(902)))
