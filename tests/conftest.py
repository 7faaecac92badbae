"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from scanner.signatures.pack import Signature
from tests.synthetic import misaligned_factors, random_factors, synthetic_pack, write_adapter

# A busy machine is no failed property: examples have no deadline of their own.
settings.register_profile("adapter-scanner", deadline=None)
settings.load_profile("adapter-scanner")

# Hundreds of tests start this program: each would compile all of it for a third of a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the tests of one file to one worker, for which they make once what they share.

    Those of all files that need the gated MLflow server go together; the many of a file whose
    module says `SHARES_NOTHING` go wherever there is room.
    """
    for item in items:
        if "gated_server" in getattr(item, "fixturenames", ()):
            group = "gated MLflow server"
        elif getattr(getattr(item, "module", None), "SHARES_NOTHING", False):
            continue
        else:
            group = item.nodeid.split("::", 1)[0]
        item.add_marker(pytest.mark.xdist_group(group))


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
