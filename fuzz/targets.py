"""What is fuzzed: one function per parser of untrusted bytes.

A target may return or raise a `TargetError`, which is how a parser refuses a file. Anything
else that escapes it is a finding.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scanner.errors import TargetError, UsageError
from scanner.formats.jsonfile import parse_object
from scanner.formats.model import FloatArray, IntegerArray, TensorInfo, TensorStore
from scanner.formats.peft_config import PeftConfig, parse_config
from scanner.formats.readers import READERS
from scanner.formats.source import Source
from scanner.formats.stores.gguf import GgufFile
from scanner.formats.stores.header import parse_header
from scanner.formats.stores.local import SafetensorsFile
from scanner.formats.stores.npz import NpzFile
from scanner.formats.stores.pickled import PickledFile
from scanner.formats.stores.sharded import open_sharded
from scanner.formats.trainer_state import holds_trainer_state
from scanner.formats.yamlfile import parse_yaml

_SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-"))
_MAX_NUMBERS = 100_000


def _read_all(store: TensorStore) -> None:
    for name in store.names():
        if store.info(name).nbytes > 4 * _MAX_NUMBERS:
            continue
        for read in (store.read, store.integers):
            try:
                read(name)
            except TargetError:
                continue
    store.close()


def _file(data: bytes, name: str) -> Path:
    path = _SCRATCH / name
    path.write_bytes(data)
    return path


def header(data: bytes) -> None:
    """The safetensors header by itself, with any amount of data after it."""
    parse_header(data[1:], data[0] * 8 if data else 0, "fuzzed")


def safetensors(data: bytes) -> None:
    """A whole safetensors file, its tensors included."""
    _read_all(SafetensorsFile(_file(data, "fuzzed.safetensors")))


def gguf(data: bytes) -> None:
    """A whole GGUF file."""
    _read_all(GgufFile(_file(data, "fuzzed.gguf")))


def npz(data: bytes) -> None:
    """A whole .npz file."""
    _read_all(NpzFile(_file(data, "fuzzed.npz")))


def pickled(data: bytes) -> None:
    """A whole pickled checkpoint: what stands before and after torch's restricted unpickler."""
    _read_all(PickledFile(_file(data, "fuzzed.bin")))


def index(data: bytes) -> None:
    """The index of a sharded file."""
    open_sharded(_file(data, "fuzzed.safetensors.index.json"), "fuzzed").close()


def config(data: bytes) -> None:
    """An adapter_config.json, and the questions readers ask of it."""
    parsed = parse_config(parse_object(data, "fuzzed"), "fuzzed")
    module = "model.layers.0.self_attn.q_proj"
    parsed.declared_rank(module)
    parsed.scaling(module, 4)


def trainer_state(data: bytes) -> None:
    """The outline of a pickle, which says whether it is trainer state."""
    holds_trainer_state(io.BytesIO(data), "optimizer.pt")


def yaml(data: bytes) -> None:
    """A YAML file of any of this program's kinds."""
    try:
        parse_yaml(data, "fuzzed")
    except UsageError:
        return


class _Imagined:
    """A store of tensors that exist by name and shape only; all their values are 1."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> None:
        self._shapes = shapes
        self.metadata = metadata

    def names(self) -> Sequence[str]:
        return list(self._shapes)

    def info(self, name: str) -> TensorInfo:
        return TensorInfo(name, "F32", self._shapes[name], 4)

    def read(self, name: str) -> FloatArray:
        return np.ones(self._shapes[name], np.float32)

    def integers(self, name: str) -> IntegerArray:
        return np.ones(self._shapes[name], np.int64)

    def sha256(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is open."""


def readers(data: bytes) -> None:
    """Every reader, on tensor names, shapes, metadata and a config of the fuzzer's making.

    The input is JSON: {"tensors": {name: shape}, "metadata": {...}, "config": {...}}.
    """
    try:
        case = json.loads(data)
        tensors: dict[str, Any] = case["tensors"]
        shapes = {
            str(name): tuple(int(size) % 48 for size in shape[:5])
            for name, shape in tensors.items()
        }
        metadata = {str(key): str(value) for key, value in case.get("metadata", {}).items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return
    raw = case.get("config")
    parsed: PeftConfig | None = parse_config(raw, "fuzzed") if isinstance(raw, dict) else None
    source = Source("fuzzed", _Imagined(shapes, metadata), parsed)
    reader = next(reader for reader in READERS if reader.recognises(source))
    reading = reader.read(source)
    assert reading.updates or reading.uncovered, "nothing read and nothing said"
    for update in reading.updates[:20]:
        try:
            b, a = update.factors()
        except TargetError:
            continue
        assert b.shape[0] == update.d_out, update
        assert a.shape[1] == update.d_in, update
        assert b.shape[1] == a.shape[0], update


TARGETS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function
    for function in (
        header,
        safetensors,
        gguf,
        npz,
        pickled,
        index,
        config,
        readers,
        trainer_state,
        yaml,
    )
}


def run_one(name: str, data: bytes) -> None:
    """Runs one target on one input; refusals are fine.

    Raises:
        Exception: Whatever a parser should not have let escape.
    """
    try:
        TARGETS[name](data)
    except TargetError:
        return
