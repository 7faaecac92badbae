"""Image-model adapters: kohya's sd-scripts, LyCORIS, and diffusers.

kohya writes `<flattened module>.lora_down.weight` (r, in), `.lora_up.weight` (out, r) and a
scalar tensor `.alpha`; the factor in front is alpha / r, 1 if alpha is absent or 0. LyCORIS
adds elementwise and Kronecker products and whole differences. diffusers has three spellings
and, in newer files, alpha and r in the header. They are read and inspected; no
language-model signature matches them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from scanner.errors import MalformedFileError, TargetError
from scanner.formats.jsonfile import parse_object
from scanner.formats.model import (
    Content,
    Factors,
    Site,
    TensorStore,
    Uncovered,
    Update,
    by_rows_work,
)
from scanner.formats.readers.grouping import (
    Group,
    Plan,
    group_by_module,
    in_order,
    plan_all,
    to_update,
)
from scanner.formats.readers.leftovers import reason_for
from scanner.formats.readers.notes import RULE, FormatNote
from scanner.formats.readers.peft_products import hadamard, kronecker
from scanner.formats.source import Reading, Source
from scanner.geometry.whole_matrix import Dense

_PART = re.compile(
    r"^(?P<module>.+?)[._]"
    r"(?P<part>(?:lora_(?:down|up|mid|A|B)|lora\.(?:down|up)|lora_linear_layer\.(?:down|up))"
    r"(?=\.weight$|\.[^.]+\.weight$)"
    r"|(?<=\.)alpha|(?<=\.)hada_(?:w[12]_[ab]|t[12])|(?<=\.)lokr_(?:w[12](?:_[ab])?|t2)"
    r"|(?<=\.)diff(?=$))(?:\.[^.]+)*$"
)
_DOWN = ("lora_down", "lora.down", "lora_A", "lora_linear_layer.down")
_UP = ("lora_up", "lora.up", "lora_B", "lora_linear_layer.up")
_KOHYA_PREFIX = re.compile(r"^(?:lycoris_|lora_(?:unet|te\d?|transformer|prior|text))")
_IMAGE_MODELS = (
    "unet.",
    "text_encoder",
    "transformer.transformer_blocks.",
    "transformer.single_transformer_blocks.",
    "transformer.blocks.",
)
_METADATA_KEY = "lora_adapter_metadata"


NOTES = (
    FormatNote(
        "kohya (sd-scripts)",
        "alpha / r B A. No language-model signature matches: inconclusive",
        "Tucker form (`lora_mid`), `dora_scale`",
        RULE,
    ),
    FormatNote(
        "LyCORIS",
        "LoHa, LoKr, whole differences (`diff`)",
        "Tucker form, trained biases (`diff_b`), `dora_scale`",
        "the library's forward pass, 1e-4",
    ),
    FormatNote(
        "diffusers",
        "Three spellings; alpha from the header of newer files",
        "rsLoRA or patterns in the header",
        f"{RULE}; an adapter of the diffusers examples",
    ),
)
"""Rows of docs/formats.md."""


def recognises(source: Source) -> bool:
    """Whether a tensor carries one of the spellings, and nothing says PEFT wrote it."""
    names = source.store.names()
    if any(_KOHYA_PREFIX.match(name) for name in names):
        return any(_PART.match(name) for name in names)
    if source.config is not None:
        return False
    if _METADATA_KEY in source.store.metadata:
        return any(map(_PART.match, names))
    return any(_is_diffusers(name) for name in names)


def _is_diffusers(name: str) -> bool:
    """Whether a name is a factor in a spelling that only diffusers has.

    ``lora_A`` is PEFT's own too, which without a config is a language model's as likely as
    not: there the module must be one of an image model.
    """
    match = _PART.match(name)
    if match is None or match["part"] == "alpha":
        return False
    return not match["part"].startswith(("lora_A", "lora_B")) or name.startswith(_IMAGE_MODELS)


def read(source: Source) -> Reading:
    """Reads an image-model adapter."""
    names = source.store.names()
    kohya = any(_KOHYA_PREFIX.match(name) for name in names)
    groups, others, twice = group_by_module(source.store, names, _PART, _module)
    header, doubts = _header(source)
    updates, faults = plan_all(groups, partial(_update, source.store, header))
    rest = [Uncovered(name, reason_for(name)) for name in others]
    ordered, uncovered = in_order(updates, [*twice, *faults, *rest, *doubts])
    base = source.store.metadata.get("ss_sd_model_name") or None
    return Reading("kohya" if kohya else "diffusers", base, ordered, uncovered)


def _module(path: str) -> str:
    """The module's path, without the ``processor`` that older diffusers put into it."""
    return path.replace(".processor.", ".")


def _header(source: Source) -> tuple[Mapping[str, Any], list[Uncovered]]:
    """The file's record of alpha and r, and why it cannot be used if so."""
    text = source.store.metadata.get(_METADATA_KEY)
    if text is None:
        return {}, []
    try:
        return parse_object(text.encode(), _METADATA_KEY), []
    except TargetError as error:
        return {}, [Uncovered(_METADATA_KEY, error.what)]


def _update(store: TensorStore, header: Mapping[str, Any], group: Group) -> Sequence[Update]:
    site = Site(None, group.module)
    if "diff" in group.parts:
        return [to_update(group, _whole_difference(group, store), site)]
    if any(part.startswith("hada_") for part in group.parts):
        _, rank = group.shape("hada_w1_a", 2)
        return [to_update(group, hadamard(group, store, _scaling(group, store, rank)), site)]
    if any(part.startswith("lokr_") for part in group.parts):
        return [to_update(group, kronecker(group, store, _lokr_scaling(group, store)), site)]
    return [to_update(group, _low_rank(group, store, header), site)]


def _whole_difference(group: Group, store: TensorStore) -> Plan:
    shape = group.shape("diff")
    d_out, d_in = shape[0], math.prod(shape[1:])
    if len(shape) < 2:
        raise MalformedFileError(f"a whole difference of shape {list(shape)}")
    name = group.parts["diff"]

    def load() -> Content:
        return Dense(store.read(name).reshape(d_out, d_in))

    return Plan(min(d_out, d_in), d_out, d_in, 1.0, load, work=by_rows_work(1, d_out, d_in))


def _low_rank(group: Group, store: TensorStore, header: Mapping[str, Any]) -> Plan:
    if "lora_mid" in group.parts:
        raise MalformedFileError("a convolution in Tucker form")
    down = next((part for part in _DOWN if part in group.parts), _DOWN[0])
    up = next((part for part in _UP if part in group.parts), _UP[0])
    shape_a, shape_b = group.shape(down), group.shape(up)
    rank, d_in = shape_a[0], math.prod(shape_a[1:])
    d_out = shape_b[0]
    group.require(len(shape_a) >= 2 and len(shape_b) >= 2)
    group.require(math.prod(shape_b[1:]) == rank == shape_b[1])
    a, b = group.parts[down], group.parts[up]

    def load() -> Factors:
        return store.read(b).reshape(d_out, rank), store.read(a).reshape(rank, d_in)

    return Plan(rank, d_out, d_in, _scaling(group, store, rank, header), load)


def _scaling(
    group: Group, store: TensorStore, rank: int, header: Mapping[str, Any] | None = None
) -> float:
    """Returns alpha / r; 1 if no alpha is given, or it is 0.

    Raises:
        MalformedFileError: If alpha is no finite number.
    """
    if "alpha" in group.parts:
        if math.prod(group.infos["alpha"].shape) != 1:  # before it is read: it may be huge
            raise MalformedFileError("alpha is not one number")
        alpha = store.read(group.parts["alpha"])
        if not math.isfinite(float(alpha.reshape(-1)[0])):
            raise MalformedFileError("alpha is not one finite number")
        return float(alpha.reshape(-1)[0]) / rank or 1.0
    prefix = group.module.partition(".")[0]
    fields = header or {}
    if fields.get(f"{prefix}.alpha_pattern") or fields.get(f"{prefix}.use_rslora"):
        raise MalformedFileError("the header gives a pattern of alphas, or rsLoRA")
    value = fields.get(f"{prefix}.lora_alpha")
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise MalformedFileError("lora_alpha in the header is no number")
    return float(value) / rank


def _lokr_scaling(group: Group, store: TensorStore) -> float:
    """LyCORIS: alpha over the rank of a split side; 1 if both sides are whole."""
    for part in ("lokr_w1_b", "lokr_w2_b"):
        if part in group.parts:
            return _scaling(group, store, group.shape(part)[0])
    return 1.0
