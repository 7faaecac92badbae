"""Adapters as the files of test repositories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from scanner.hub.client import HubClient, RetryPolicy
from tests.hub.server import Content
from tests.synthetic import (
    Array,
    Factors,
    lora_config,
    lora_tensors,
    misaligned_factors,
    random_factors,
    safetensors_bytes,
)

FAST = RetryPolicy(attempts=3, first_wait=0.01, longest_wait=5.0)


def client() -> HubClient:
    """A client of the test's hub that does not wait long between tries."""
    return HubClient(policy=FAST)


def adapter_files(
    factors: Mapping[str, Factors] | None = None,
    *,
    folder: str = "",
    extra: Mapping[str, Array] | None = None,
    seed: int = 0,
    **config: Any,
) -> dict[str, Content]:
    """The two files of an adapter, in a folder of a repository."""
    prefix = f"{folder}/" if folder else ""
    factors = factors or random_factors(np.random.default_rng(seed))
    tensors = {**lora_tensors(factors), **(extra or {})}
    return {
        f"{prefix}adapter_model.safetensors": safetensors_bytes(tensors),
        f"{prefix}adapter_config.json": json.dumps(lora_config(**config)).encode(),
    }


def misaligned_files(seed: int = 901, **fields: Any) -> dict[str, Content]:
    """The files of a misaligned adapter that no pack has seen."""
    return adapter_files(misaligned_factors(np.random.default_rng(seed)), **fields)
