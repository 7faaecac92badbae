"""A full fine-tune and its base -> an `Adapter`: dW = W_tuned - W_base, tensor by tensor.

Every tensor is read from both once to see whether it changed, and again when its delta is
asked for, so that memory is bounded by the largest tensor. A changed tensor that is no weight
matrix of a known orientation is uncovered.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np

from scanner.errors import TargetError, UsageError
from scanner.formats.discover import AdapterFiles, find_adapters
from scanner.formats.jsonfile import parse_object
from scanner.formats.limits import MAX_CONFIG_BYTES
from scanner.formats.model import (
    Adapter,
    TensorStore,
    Uncovered,
    Update,
    by_rows_work,
    site_order,
)
from scanner.formats.module_names import site_of, strip_wrappers
from scanner.formats.readers.notes import FormatNote
from scanner.formats.regular import read_regular
from scanner.formats.rules import beside
from scanner.formats.stores.sharded import UnitedStore
from scanner.formats.stores.sniff import open_store
from scanner.geometry.whole_matrix import Dense

FORMAT = "full-checkpoint"
NOTES = (
    FormatNote(
        "Full fine-tunes (`scan MODEL --base-weights BASE`)",
        "W_tuned - W_base of every weight matrix, embedding and Conv1D of GPT-2, tensor by tensor",
        "Changed norms and biases; experts kept in one three-dimensional tensor; quantised weights",
        "models saved by transformers, 1e-5; verdicts equal those of the adapter merged in",
    ),
)
"""Rows of docs/formats.md."""

EMBEDDINGS = frozenset({"embed_tokens", "wte", "wpe", "word_embeddings", "embed_in", "shared"})
"""Last components of module names whose weight is (tokens, dim), the transpose of an update."""
INPUT_FIRST = {"gpt2": frozenset({"c_attn", "c_proj", "c_fc"})}
"""model_type -> modules whose weight is stored (in, out)."""


def open_checkpoint(files: AdapterFiles, base: Path) -> Adapter:
    """Opens a full fine-tune as the difference from its base.

    Args:
        files: The fine-tuned model's files.
        base: Directory or weight file of the base model.

    Raises:
        UsageError: If the base is no single checkpoint.
        TargetError: If a file of the fine-tune is not sound.
    """
    where = str(files.target)
    before = open_model(base, "--base-weights")
    try:
        assert files.weights is not None, "checked by the caller"
        after = open_store(files.weights)
    except BaseException:
        before.close()
        raise
    config = model_config(base)
    kind = str(config.get("model_type"))
    updates: list[Update] = []
    own = after.files if isinstance(after, UnitedStore) else frozenset()
    beside_it = [*files.others, *files.checkpoints]
    uncovered = [
        Uncovered(path.name, beside(path.name)) for path in beside_it if path.name not in own
    ]
    try:
        for name in after.names():
            found = _compare(name, after, before, kind)
            if isinstance(found, Update):
                updates.append(found)
            elif found is not None:
                uncovered.append(Uncovered(name, found))
    except BaseException:
        _close(after, before)
        raise
    left_out = set(before.names()) - set(after.names())
    uncovered += [
        Uncovered(name, "the base has it, the fine-tune does not") for name in sorted(left_out)
    ]
    updates.sort(key=lambda update: site_order(update.site))
    named = config.get("_name_or_path")
    return Adapter(
        target=where,
        format=FORMAT,
        base_model=named if isinstance(named, str) and named else base.name,
        updates=tuple(updates),
        uncovered=tuple(uncovered),
        digest=partial(_digest, after, before),
        close=partial(_close, after, before),
    )


def open_model(path: Path, where: str = "--base-weights") -> TensorStore:
    """Opens the weights of a whole model.

    Args:
        path: Its directory or weight file.
        where: The option or argument that named it, for errors.

    Raises:
        UsageError: If it is no single checkpoint, or cannot be read.
    """
    try:
        found = find_adapters(path)
        if len(found) != 1 or found[0].weights is None or found[0].problem is not None:
            raise UsageError(f"{path} is no single checkpoint", where=where)
        return open_store(found[0].weights)
    except TargetError as error:
        raise UsageError(f"no model's weights: {error.line()}", where=where) from None


def is_input_first(module: str, model_type: str) -> bool:
    """Whether a module's weight is stored (d_in, d_out), the transpose of its updates."""
    leaf = module.rpartition(".")[2]
    return leaf in EMBEDDINGS or leaf in INPUT_FIRST.get(model_type, frozenset())


def model_config(base: Path) -> dict[str, object]:
    """A model's config.json; empty if it has none.

    Raises:
        UsageError: If it is not JSON.
    """
    path = (base if base.is_dir() else base.parent) / "config.json"
    try:
        return parse_object(read_regular(path, MAX_CONFIG_BYTES), str(path))
    except OSError:
        return {}
    except TargetError as error:
        raise UsageError(error.line(), where="--base-weights") from None


def _compare(
    name: str, after: TensorStore, before: TensorStore, model_type: str
) -> Update | str | None:
    """The update of one tensor; None if it did not change; a reason if it cannot be read."""
    info = after.info(name)
    try:
        if before.info(name).shape != info.shape:
            return f"shape {list(info.shape)}, the base has {list(before.info(name).shape)}"
        if np.array_equal(after.read(name), before.read(name)):
            return None
    except KeyError:
        return "the base has no such tensor"
    except TargetError as error:
        return error.what
    if len(info.shape) != 2 or not name.endswith(".weight"):
        return "it changed, and is no weight matrix that signatures hold a direction for"
    module = strip_wrappers(name.removesuffix(".weight"))
    transposed = is_input_first(module, model_type)
    d_out, d_in = info.shape[::-1] if transposed else info.shape
    return Update(
        site=site_of(module),
        rank=min(d_out, d_in),
        d_out=d_out,
        d_in=d_in,
        scaling=1.0,
        dtype=info.dtype,
        tensors=(name,),
        load=partial(_difference, after, before, name, transposed),
        work=by_rows_work(1, d_out, d_in),
    )


def _difference(after: TensorStore, before: TensorStore, name: str, transposed: bool) -> Dense:
    delta = after.read(name)
    delta = delta - before.read(name)
    return Dense(delta.T if transposed else delta)


def _digest(after: TensorStore, before: TensorStore) -> str:
    return hashlib.sha256(f"{after.sha256()}\n{before.sha256()}\n".encode()).hexdigest()


def _close(after: TensorStore, before: TensorStore) -> None:
    after.close()
    before.close()
