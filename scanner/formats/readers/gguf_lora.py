"""GGUF adapters, as llama.cpp's `convert_lora_to_gguf.py` writes and `llama-adapter.cpp` reads.

`blk.N.attn_q.weight.lora_a` (r, in) and `.lora_b` (out, r); the factor in front is alpha / r,
or 1 if alpha is 0. What PEFT's config said of rsLoRA or patterns is lost in the conversion:
the file is what runs. Rows of q and k of Llama models are in llama.cpp's order and are
brought back to the base's own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial

from scanner.errors import MalformedFileError
from scanner.formats.architectures import (
    LLAMA_CPP,
    LLAMA_CPP_EXPERTS,
    LLAMA_CPP_OUTSIDE,
    LLAMA_CPP_ROPE_PERMUTED,
)
from scanner.formats.model import Factors, Site, Uncovered, Update
from scanner.formats.readers.grouping import (
    Group,
    Plan,
    RecentlyRead,
    group_by_module,
    in_order,
    plan_all,
    to_update,
)
from scanner.formats.readers.notes import FormatNote
from scanner.formats.readers.peft_lora_layouts import expert_site
from scanner.formats.readers.rope import check_heads, head_dimension, unpaired
from scanner.formats.source import Reading, Source

FORMAT = "gguf-lora"

_FACTOR = re.compile(r"^(?P<module>.+?)\.weight\.(?P<part>lora_[ab])$")
_BLOCK = re.compile(r"^blk\.(\d{1,6})\.(.+)$", re.ASCII)
_OWNER_AND_NAME = re.compile(r"^https?://[^/]+/+(.+)$")
_PERMUTED = ("attn_q", "attn_k")


NOTES = (
    FormatNote(
        "GGUF LoRA (Llama, Qwen 2 and 3, Gemma, Phi 2 and 3)",
        "alpha / r B A, rows of Llama's q and k brought back to the base's order, one update per "
        "expert",
        "Quantised tensors; other architectures; Llama models whose head size is unknown",
        "file of llama.cpp's converter against the delta of the merged model, 1e-4; files written "
        "with the gguf library",
    ),
)
"""Rows of docs/formats.md."""


def recognises(source: Source) -> bool:
    """Whether the metadata say it is an adapter."""
    return source.store.metadata.get("general.type") == "adapter"


def read(source: Source) -> Reading:
    """Reads a GGUF adapter.

    Raises:
        MalformedFileError: If it is no LoRA, or its alpha is no number.
    """
    metadata = source.store.metadata
    kind = metadata.get("adapter.type", "")
    if kind != "lora":
        raise MalformedFileError(f"a GGUF adapter of type {kind[:40]!r}", where=source.where)
    groups, others, twice = group_by_module(
        source.store, source.store.names(), _FACTOR, lambda module: module
    )
    reader = _Reader(source, _alpha(metadata, source.where))
    updates, faults = plan_all(groups, reader.updates)
    rest = [Uncovered(name, "not a factor of a GGUF LoRA") for name in others]
    ordered, uncovered = in_order(updates, [*twice, *faults, *rest])
    return Reading(FORMAT, reader.base_model, ordered, uncovered)


def _alpha(metadata: Mapping[str, str], where: str) -> float:
    text = metadata.get("adapter.lora.alpha", "")
    try:
        alpha = float(text)
    except ValueError:
        alpha = math.nan
    if not math.isfinite(alpha) or abs(alpha) > 1e9:
        raise MalformedFileError(f"adapter.lora.alpha is {text[:40]!r}", where=where)
    return alpha


def _base_model(metadata: Mapping[str, str]) -> str | None:
    url = _OWNER_AND_NAME.match(metadata.get("general.base_model.0.repo_url", ""))
    if url:
        return url[1]
    name = metadata.get("general.base_model.0.name")
    return name.strip().replace(" ", "-") if name else None


class _Reader:
    """Turns the modules of one file into updates."""

    def __init__(self, source: Source, alpha: float) -> None:
        self._store = source.store
        self._recent = RecentlyRead(source.store)
        self._alpha = alpha
        self._architecture = source.store.metadata.get("general.architecture", "")
        self.base_model = _base_model(source.store.metadata)

    def updates(self, group: Group) -> Sequence[Update]:
        """The updates of one module: one, or one per expert."""
        shape_a, shape_b = group.shape("lora_a"), group.shape("lora_b")
        site = self._site(group.module)
        if len(shape_a) == 3:
            return self._experts(group, site, shape_a, shape_b)
        group.require(len(shape_a) == len(shape_b) == 2)
        transposed = group.module == "token_embd"
        d_out, rank = shape_b
        group.require(shape_a[1 if transposed else 0] == rank)
        d_in = shape_a[0 if transposed else 1]
        leaf = group.module.rpartition(".")[2]
        head = None
        if self._architecture in LLAMA_CPP_ROPE_PERMUTED and leaf in _PERMUTED:
            head = head_dimension(d_in, self.base_model)
            check_heads(d_out, head)
        a, b = group.parts["lora_a"], group.parts["lora_b"]

        def load() -> Factors:
            stored_a, stored_b = self._store.read(a), self._store.read(b)
            rows = stored_b if head is None else unpaired(stored_b, head)
            return rows, stored_a.T if transposed else stored_a

        return [to_update(group, Plan(rank, d_out, d_in, self._scaling(rank), load), site)]

    def _experts(
        self, group: Group, site: Site, shape_a: tuple[int, ...], shape_b: tuple[int, ...]
    ) -> Sequence[Update]:
        group.require(len(shape_b) == 3 and shape_a[0] == shape_b[0] and shape_a[1] == shape_b[2])
        experts, rank, d_in = shape_a
        a, b = group.parts["lora_a"], group.parts["lora_b"]

        def load(expert: int) -> Factors:
            return self._recent.read(b)[expert], self._recent.read(a)[expert]

        return [
            to_update(
                group,
                Plan(rank, shape_b[1], d_in, self._scaling(rank), partial(load, expert)),
                Site(site.layer, expert_site(site.module, expert).module),
            )
            for expert in range(experts)
        ]

    def _scaling(self, rank: int) -> float:
        return self._alpha / rank if self._alpha else 1.0

    def _site(self, module: str) -> Site:
        if module in LLAMA_CPP_OUTSIDE:
            return Site(None, LLAMA_CPP_OUTSIDE[module])
        names = LLAMA_CPP.get(self._architecture)
        if names is None:
            raise MalformedFileError(
                f"module names of llama.cpp's architecture {self._architecture[:40]!r} "
                "are not known here"
            )
        block = _BLOCK.match(module)
        known = {**names, **LLAMA_CPP_EXPERTS}
        if block is None or block[2] not in known:
            raise MalformedFileError("a module of unknown name")
        return Site(int(block[1]), known[block[2]])
