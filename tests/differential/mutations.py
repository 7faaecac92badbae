"""Changes to an adapter, as data: an operation, where it acts, and a value.

A mutation that does not fit the adapter it meets does nothing. `pick` selects a tensor or a
module modulo how many there are, so that every number is valid and small ones are simplest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from tests.differential.config_values import CONFIG_VALUES, EVERY_FIELD, NAMED_FIELDS
from tests.differential.originals import KINDS, original
from tests.differential.specimen import Specimen, Tensor, Tensors, split_name
from tests.differential.spellings import INSIDE, MODULES, PREFIXES, SHADOWS, SUFFIXES


class Mutation(NamedTuple):
    """One change. Its repr can be pasted into a list of regressions."""

    operation: str
    pick: int
    value: Any


class Case(NamedTuple):
    """An adapter of one kind, changed step by step."""

    kind: str
    mutations: tuple[Mutation, ...]

    def build(self) -> Specimen:
        """The adapter."""
        specimen = original(self.kind)
        for mutation in self.mutations:
            OPERATIONS[mutation.operation].apply(specimen, mutation.pick, mutation.value)
        return specimen


class Operation(NamedTuple):
    """How one kind of mutation acts, and the values it takes."""

    apply: Callable[[Specimen, int, Any], None]
    values: st.SearchStrategy[Any]


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    values = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(values, dtype=np.float32)


def _picked(specimen: Specimen, pick: int, scope: str) -> list[str]:
    """Names of one tensor, of one module's tensors, or of all."""
    names = list(specimen.tensors)
    if not names or scope == "all":
        return names
    if scope == "tensor":
        return [names[pick % len(names)]]
    modules = specimen.modules()
    chosen = modules[pick % len(modules)]
    return [name for name in names if split_name(name)[0] == chosen]


def _respell(name: str, how: tuple[str, str]) -> str:
    """A name in which the first occurrence of one text is another; at the front if it is empty,
    at the end if it is '$'."""
    old, new = how
    if old == "$":
        return name + new
    return name.replace(old, new, 1)


def _rename(specimen: Specimen, pick: int, value: tuple[str, tuple[str, str]]) -> None:
    scope, how = value
    chosen = set(_picked(specimen, pick, scope))
    renamed: Tensors = {}
    for name, tensor in specimen.tensors.items():
        renamed[_respell(name, how) if name in chosen else name] = tensor
    specimen.tensors = renamed


def _duplicate(specimen: Specimen, pick: int, value: tuple[str, tuple[str, str], bool]) -> None:
    """The same names in another spelling beside the ones that are there, with other values."""
    scope, how, before = value
    copies = {
        spelled: (-2 * tensor if tensor.dtype.kind == "f" else tensor)
        for name in _picked(specimen, pick, scope)
        if (spelled := _respell(name, how)) not in specimen.tensors
        for tensor in [specimen.tensors[name]]
    }
    both = (copies, specimen.tensors) if before else (specimen.tensors, copies)
    specimen.tensors = {**both[0], **both[1]}


def _move(specimen: Specimen, pick: int, value: str) -> None:
    """One module's tensors at another module, in place of what stands there."""
    for name in _picked(specimen, pick, "module"):
        module, part = split_name(name)
        tensor = specimen.tensors.pop(name)
        specimen.tensors[f"{module.rpartition('.')[0]}.{value}.{part}"] = tensor


def _copy_to(specimen: Specimen, pick: int, value: str) -> None:
    """One module's tensors at another module as well."""
    for name in _picked(specimen, pick, "module"):
        module, part = split_name(name)
        added = f"{module.rpartition('.')[0]}.{value}.{part}"
        specimen.tensors.setdefault(added, specimen.tensors[name])


def _drop(specimen: Specimen, pick: int, value: str) -> None:
    for name in _picked(specimen, pick, value):
        del specimen.tensors[name]


def _shadow(specimen: Specimen, pick: int, value: tuple[str, tuple[int, ...], bool]) -> None:
    """A further part at one module, or of all modules together."""
    part, shape, shared = value
    modules = [name for name in specimen.modules() if "layers" in name or ".h." in name]
    if not modules:
        return
    module = "base_model" if shared else modules[pick % len(modules)]
    specimen.tensors.setdefault(f"{module}.{part}", _noise(shape, pick))


def _scale(specimen: Specimen, pick: int, value: tuple[str, float]) -> None:
    scope, factor = value
    for name in _picked(specimen, pick, scope):
        tensor = specimen.tensors[name]
        if tensor.dtype.kind == "f":
            specimen.tensors[name] = (tensor * factor).astype(tensor.dtype)


def _roll(specimen: Specimen, pick: int, value: str) -> None:
    """The values in another order, of every tensor that plays the picked one's part or only it."""
    names = list(specimen.tensors)
    if not names:
        return
    part = split_name(names[pick % len(names)])[1]
    chosen = names if value == "part" else _picked(specimen, pick, value)
    for name in chosen:
        if split_name(name)[1] == part and specimen.tensors[name].ndim:
            specimen.tensors[name] = np.roll(specimen.tensors[name], 1, axis=-1)


def _retype(specimen: Specimen, pick: int, value: tuple[str, str]) -> None:
    scope, dtype = value
    for name in _picked(specimen, pick, scope):
        tensor = specimen.tensors[name]
        if tensor.dtype.kind == "f" or dtype.startswith("int"):
            specimen.tensors[name] = tensor.astype(dtype)


_RESHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda tensor: tensor.T,
    "kernel": lambda tensor: tensor.reshape(*tensor.shape, 1, 1),
    "kernel of three": lambda tensor: tensor.reshape(*tensor.shape, 1),
    "stacked": lambda tensor: tensor[None],
    "flat": lambda tensor: tensor.reshape(-1),
    "a row more": lambda tensor: np.concatenate([tensor, tensor[:1]]),
    "a row less": lambda tensor: tensor[:-1],
    "a column less": lambda tensor: tensor[..., :-1],
    "empty": lambda tensor: tensor[:0],
}


def _reshape(specimen: Specimen, pick: int, value: str) -> None:
    for name in _picked(specimen, pick, "tensor"):
        if specimen.tensors[name].ndim:
            specimen.tensors[name] = _RESHAPES[value](specimen.tensors[name])


def _set_field(specimen: Specimen, pick: int, value: tuple[str, Any]) -> None:
    specimen.config[value[0]] = value[1]


def _delete_field(specimen: Specimen, pick: int, value: None) -> None:
    if specimen.config:
        del specimen.config[list(specimen.config)[pick % len(specimen.config)]]


def _change_field(specimen: Specimen, pick: int, value: Any) -> None:
    """Whatever stands in the picked field becomes another value."""
    if specimen.config:
        specimen.config[list(specimen.config)[pick % len(specimen.config)]] = value


def _set_parameter(specimen: Specimen, pick: int, value: tuple[str, Any]) -> None:
    """A field of MLX's `lora_parameters`."""
    if isinstance(parameters := specimen.config.get("lora_parameters"), dict):
        parameters[value[0]] = value[1]


def _repeat_field(specimen: Specimen, pick: int, value: tuple[str, Any]) -> None:
    """The field once more at the end of the file: JSON readers take the last."""
    specimen.config_tail += f",\n {json.dumps(value[0])}: {json.dumps(value[1])}"


def _add_file(specimen: Specimen, pick: int, value: tuple[str, float]) -> None:
    """A second weight file with the same names and other values."""
    name, factor = value
    specimen.beside.setdefault(
        name,
        {
            key: (tensor * factor).astype(tensor.dtype) if tensor.dtype.kind == "f" else tensor
            for key, tensor in specimen.tensors.items()
        },
    )


def _split_off(specimen: Specimen, pick: int, value: str) -> None:
    """One module's tensors in a file of their own."""
    names = _picked(specimen, pick, "module")
    if len(names) < len(specimen.tensors) and value not in specimen.beside:
        specimen.beside[value] = {name: specimen.tensors.pop(name) for name in names}


def _weights_name(specimen: Specimen, pick: int, value: str) -> None:
    specimen.weights = value


def _add_text(specimen: Specimen, pick: int, value: tuple[str, str]) -> None:
    specimen.beside.setdefault(*value)


_SPELLINGS = st.sampled_from([*PREFIXES, *INSIDE, *SUFFIXES])
_SCOPES = st.sampled_from(["all", "module", "tensor"])

_FILES = st.sampled_from(
    [
        "adapter_model.bin", "adapter_model.safetensors", "adapter_model.pt", "extra.safetensors",
        "model.safetensors", "adapter_model-00002-of-00002.safetensors", "adapters.safetensors",
        "default/adapter_model.safetensors", "zz.bin", "new_embeddings.safetensors",
        "adapter_model.fp16.safetensors",
        "Adapter_Model.safetensors", "adapter_model.safetensors.bak",
        ".hidden.safetensors", "optimizer.bin", "scheduler.pt", "0000100_adapters.safetensors",
        "pytorch_lora_weights.safetensors", "adapter_model.pth", "consolidated.00.pth",
    ]
)  # fmt: skip
_TEXTS = [
    ("adapter_model.safetensors.index.json", '{"weight_map": {}}'),
    ("model.safetensors.index.json", '{"weight_map": {"x": "model.safetensors"}}'),
    ("added_tokens.json", '{"<x>": 48}'),
    ("config.json", '{"model_type": "llama"}'),
    ("training_args.json", "{}"),
]
_ANY_VALUE = st.sampled_from(EVERY_FIELD)
_FACTORS = st.sampled_from([-1.0, 0.0, 3.0, 1e-3, 1e4])

OPERATIONS: dict[str, Operation] = {
    "rename": Operation(_rename, st.tuples(_SCOPES, _SPELLINGS)),
    "duplicate": Operation(_duplicate, st.tuples(_SCOPES, _SPELLINGS, st.booleans())),
    "move": Operation(_move, st.sampled_from(MODULES)),
    "copy to": Operation(_copy_to, st.sampled_from(MODULES)),
    "drop": Operation(_drop, st.sampled_from(["tensor", "module", "all"])),
    "shadow": Operation(_shadow, st.sampled_from(SHADOWS)),
    "scale": Operation(_scale, st.tuples(_SCOPES, _FACTORS)),
    "roll": Operation(_roll, st.sampled_from(["part", "tensor"])),
    "retype": Operation(
        _retype, st.tuples(_SCOPES, st.sampled_from(["float16", "float64", "int8", "int64"]))
    ),
    "reshape": Operation(_reshape, st.sampled_from(sorted(_RESHAPES))),
    "set field": Operation(_set_field, st.sampled_from(NAMED_FIELDS)),
    "delete field": Operation(_delete_field, st.none()),
    "change field": Operation(_change_field, _ANY_VALUE),
    "set parameter": Operation(
        _set_parameter,
        st.sampled_from(
            [(key, value) for key in ("rank", "scale", "alpha", "keys", "dropout", "x")
             for value in (None, 0, 1, 2.0, -1.5, 8, [], ["self_attn.q_proj"], ["q_proj"],
                           ["self_attn.o_proj", "self_attn.v_proj"])]
        ),
    ),
    "repeat field": Operation(_repeat_field, st.sampled_from(NAMED_FIELDS)),
    "add file": Operation(_add_file, st.tuples(_FILES, _FACTORS)),
    "split off": Operation(_split_off, _FILES),
    "weights name": Operation(_weights_name, _FILES.filter(lambda name: name[-4:] != ".bak")),
    "add text": Operation(_add_text, st.sampled_from(_TEXTS)),
}  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn, kind: str, closed: frozenset[str]) -> Mutation:
    """One mutation; half of them are values that the kind's own fields may take."""
    operation = draw(st.sampled_from([name for name in OPERATIONS if name not in closed]))
    if operation in ("set field", "repeat field") and draw(st.booleans()):
        of_this_type = CONFIG_VALUES.get(kind.split()[0])
        if of_this_type:
            return Mutation(operation, 0, draw(st.sampled_from(of_this_type)))
    return Mutation(operation, draw(st.integers(0, 40)), draw(OPERATIONS[operation].values))


@st.composite
def cases(
    draw: st.DrawFn, kinds: tuple[str, ...] = KINDS, closed: frozenset[str] = frozenset()
) -> Case:
    """An adapter and up to four mutations at once, few more often than many."""
    kind = draw(st.sampled_from(kinds))
    changes = draw(st.lists(mutations(kind, closed), min_size=1, max_size=4))
    return Case(kind, tuple(changes))
