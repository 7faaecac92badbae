"""Reads what an offline run of Weights & Biases wrote to disk.

A ``.wandb`` file is a log of blocks as LevelDB writes them, and each record in it is a protobuf
of wandb's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK = 32768
_FILE_HEADER, _RECORD_HEADER = 7, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def records(directory: Path) -> list[Any]:
    """Every record of the one offline run below a directory."""
    (path,) = directory.glob("**/offline-run-*/run-*.wandb")
    return [wandb_internal_pb2.Record.FromString(data) for data in _whole(path.read_bytes())]


def _whole(data: bytes) -> Iterator[bytes]:
    position, parts = _FILE_HEADER, b""
    while position + _RECORD_HEADER <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _RECORD_HEADER:
            position += left
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]
        position += _RECORD_HEADER
        parts += data[position : position + length]
        position += length
        assert kind in (_FULL, _FIRST, _MIDDLE, _LAST)
        if kind in (_FULL, _LAST):
            yield parts
            parts = b""


def items(update: Any) -> dict[str, Any]:
    """Keys and values of a history or configuration record."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in update}
