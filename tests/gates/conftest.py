"""Fixtures of the gates' tests."""

from __future__ import annotations

from tests.gates.mlflow_server import gated_server

__all__ = ["gated_server"]
