"""Fixtures of the gates' tests."""

from __future__ import annotations

import itertools

import pytest

from tests.gates.mlflow_server import gated_server

__all__ = ["gated_server"]

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A model name of the test's own."""
    return f"model-{next(_numbers)}"
