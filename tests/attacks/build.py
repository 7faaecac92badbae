"""The corpus of hostile and broken adapters, built from nothing.

    python -m tests.attacks.build DIRECTORY

writes one directory per attack. Each starts as the same honest adapter, which scans
`clear`, and is then damaged in one way.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import socket
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.attacks.costly import COSTLY
from tests.synthetic import (
    Array,
    lora_config,
    lora_tensors,
    module_paths,
    random_factors,
    safetensors_bytes,
    shape_of,
    write_adapter,
)

Attack = Callable[[Path], object]

FIRST = f"base_model.model.{module_paths()[0]}"
D_OUT, D_IN = shape_of(module_paths()[0])
RANK = 3
ATTACKS: dict[str, Attack] = {**COSTLY}
"""Name -> what it does to a directory that holds an honest adapter."""


def attack(function: Attack) -> Attack:
    """Registers an attack under its function's name."""
    ATTACKS[function.__name__] = function
    return function


def weights(adapter: Path) -> Path:
    """The adapter's weight file."""
    return adapter / "adapter_model.safetensors"


def config(adapter: Path) -> Path:
    """The adapter's config."""
    return adapter / "adapter_config.json"


def honest(adapter: Path) -> Path:
    """An adapter that scans `clear` under the tests' signature pack."""
    return write_adapter(adapter, random_factors(np.random.default_rng(902)))


def tensors(adapter: Path) -> dict[str, Array]:
    """The honest adapter's tensors, by hand."""
    del adapter
    return lora_tensors(random_factors(np.random.default_rng(902)))


def raw_file(path: Path, header: str | bytes, data: bytes = b"") -> None:
    """Writes a safetensors file with any header."""
    text = header.encode() if isinstance(header, str) else header
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def split_file(path: Path) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header and data."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(adapter: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the header and keeps the data."""
    header, data = split_file(weights(adapter))
    change(header)
    raw_file(weights(adapter), json.dumps(header), data)


def with_tensors(adapter: Path, change: Callable[[dict[str, Array]], object]) -> None:
    """Changes the tensors."""
    found = tensors(adapter)
    change(found)
    weights(adapter).write_bytes(safetensors_bytes(found))


def with_config(adapter: Path, **fields: Any) -> None:
    """Changes fields of the config."""
    config(adapter).write_text(json.dumps(lora_config(**fields)))


# git-lfs, truncation and other files in place of the weights


@attack
def lfs_pointer(a: Path) -> None:
    oid = "ab" * 32
    weights(a).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 167832240\n"
    )


@attack
def lfs_pointer_for_the_config(a: Path) -> None:
    config(a).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


@attack
def empty_weights(a: Path) -> None:
    weights(a).write_bytes(b"")


@attack
def seven_bytes(a: Path) -> None:
    weights(a).write_bytes(b"\x02\0\0\0\0\0\0")


@attack
def truncated_data(a: Path) -> None:
    content = weights(a).read_bytes()
    weights(a).write_bytes(content[:-100])


@attack
def truncated_header(a: Path) -> None:
    weights(a).write_bytes(weights(a).read_bytes()[:60])


@attack
def appended_data(a: Path) -> None:
    weights(a).write_bytes(weights(a).read_bytes() + b"hidden payload" * 100)


@attack
def web_page_for_weights(a: Path) -> None:
    weights(a).write_text("<!DOCTYPE html><html><body>Access to model restricted</body></html>")


@attack
def gzip_for_weights(a: Path) -> None:
    weights(a).write_bytes(gzip.compress(weights(a).read_bytes()))


@attack
def tar_for_weights(a: Path) -> None:
    import tarfile

    with tarfile.open(a / "inner.tar", "w") as archive:
        archive.add(weights(a), arcname="../../../../tmp/escaped")
    (a / "inner.tar").rename(weights(a))


@attack
def program_for_weights(a: Path) -> None:
    weights(a).write_bytes(b"\x7fELF" + bytes(200))


@attack
def random_bytes(a: Path) -> None:
    weights(a).write_bytes(np.random.default_rng(0).bytes(5000))


@attack
def retired_ggla(a: Path) -> None:
    weights(a).unlink()
    (a / "ggml-adapter-model.bin").write_bytes(b"ggla" + bytes(100))


@attack
def no_weights(a: Path) -> None:
    weights(a).unlink()


@attack
def nothing_at_all(a: Path) -> None:
    weights(a).unlink()
    config(a).unlink()


@attack
def pipe_for_weights(a: Path) -> None:
    weights(a).unlink()
    os.mkfifo(weights(a))


@attack
def pipe_for_the_config(a: Path) -> None:
    config(a).unlink()
    os.mkfifo(config(a))


@attack
def directory_for_the_config(a: Path) -> None:
    config(a).unlink()
    config(a).mkdir()


# the safetensors header


@attack
def header_length_2_to_62(a: Path) -> None:
    weights(a).write_bytes((2**62).to_bytes(8, "little") + b"{}")


@attack
def header_length_all_ones(a: Path) -> None:
    weights(a).write_bytes(b"\xff" * 8 + b"{}")


@attack
def header_length_zero(a: Path) -> None:
    weights(a).write_bytes(bytes(8))


@attack
def header_just_under_the_limit(a: Path) -> None:
    raw_file(weights(a), b"{" + b" " * (16 * 2**20 - 2) + b"}")


@attack
def header_is_a_list(a: Path) -> None:
    raw_file(weights(a), "[]")


@attack
def header_is_not_utf8(a: Path) -> None:
    raw_file(weights(a), b'{"\xff\xfe": {}}')


@attack
def header_with_leading_blank(a: Path) -> None:
    header, data = split_file(weights(a))
    raw_file(weights(a), " " + json.dumps(header), data)


@attack
def deep_json_header(a: Path) -> None:
    raw_file(weights(a), '{"a":' + "[" * 100_000 + "]" * 100_000 + "}")


@attack
def deep_objects_header(a: Path) -> None:
    raw_file(weights(a), '{"a":' * 50_000 + "0" + "}" * 50_000)


@attack
def long_number_in_the_header(a: Path) -> None:
    shape = "9" * 100_000
    raw_file(weights(a), f'{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,0]}}}}')


@attack
def duplicate_tensor(a: Path) -> None:
    header, data = split_file(weights(a))
    text = json.dumps(header)
    name = f"{FIRST}.lora_A.weight"
    again = json.dumps({name: header[name]})[1:-1]
    raw_file(weights(a), text[:-1] + ", " + again + "}", data)


@attack
def duplicate_key_in_an_entry(a: Path) -> None:
    header, data = split_file(weights(a))
    text = json.dumps(header).replace('"dtype": "F32"', '"dtype": "F32", "dtype": "F16"', 1)
    raw_file(weights(a), text, data)


@attack
def million_tensors(a: Path) -> None:
    entry = '":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"'
    names = entry.join(f"{index:x}" for index in range(1_000_000))
    text = '{"' + names + entry.removesuffix(',"') + "}"
    raw_file(weights(a), text)


@attack
def as_many_tensors_as_fit(a: Path) -> None:
    """250,000 entries below the limit on header bytes, above that on tensors."""
    entry = '":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"'
    names = entry.join(f"{index:x}" for index in range(250_000))
    raw_file(weights(a), '{"' + names + entry.removesuffix(',"') + "}")


@attack
def many_tensors_within_limits(a: Path) -> None:
    entry = '":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"'
    names = entry.join(f"{index:x}" for index in range(50_000))
    raw_file(weights(a), '{"' + names + entry.removesuffix(',"') + "}")


@attack
def shape_of_a_million_dimensions(a: Path) -> None:
    shape = ",".join(["1"] * 1_000_000)
    entry = f'{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,4]}}'
    raw_file(weights(a), f'{{"{FIRST}.lora_A.weight":{entry}}}', bytes(4))


@attack
def shape_of_a_hundred_dimensions(a: Path) -> None:
    shape = [1] * 100 + [RANK, D_IN]
    with_header(a, lambda h: h[f"{FIRST}.lora_A.weight"].update(shape=shape))


@attack
def shape_of_no_bytes_and_huge_axes(a: Path) -> None:
    with_header(
        a,
        lambda h: h.update(x={"dtype": "F32", "shape": [2**62, 2**62, 0], "data_offsets": [0, 0]}),
    )


@attack
def negative_offsets(a: Path) -> None:
    with_header(a, lambda h: h[f"{FIRST}.lora_A.weight"].update(data_offsets=[-8, 0]))


@attack
def reversed_offsets(a: Path) -> None:
    with_header(a, lambda h: h[f"{FIRST}.lora_A.weight"]["data_offsets"].reverse())


@attack
def overlapping_offsets(a: Path) -> None:
    with_header(a, lambda h: h.update({f"{FIRST}.lora_B.weight": h[f"{FIRST}.lora_A.weight"]}))


@attack
def offsets_beyond_the_file(a: Path) -> None:
    huge = [2**40, 2**40 + 4 * RANK * D_IN]
    with_header(a, lambda h: h[f"{FIRST}.lora_A.weight"].update(data_offsets=huge))


@attack
def hole_between_tensors(a: Path) -> None:
    header, data = split_file(weights(a))
    for entry in header.values():
        if "data_offsets" in entry and entry["data_offsets"][0]:
            entry["data_offsets"] = [offset + 64 for offset in entry["data_offsets"]]
    raw_file(weights(a), json.dumps(header), data[:144] + b"\xcc" * 64 + data[144:])


@attack
def shape_that_overflows(a: Path) -> None:
    with_header(a, lambda h: h[f"{FIRST}.lora_A.weight"].update(shape=[2**62, 4]))


@attack
def negative_shape(a: Path) -> None:
    with_header(a, lambda h: h[f"{FIRST}.lora_A.weight"].update(shape=[-3, -16]))


@attack
def fractional_shape(a: Path) -> None:
    with_header(a, lambda h: h[f"{FIRST}.lora_A.weight"].update(shape=[3.0, 16.0]))


@attack
def boolean_shape(a: Path) -> None:
    with_header(a, lambda h: h[f"{FIRST}.lora_A.weight"].update(shape=[True, 48]))


@attack
def dtype_lie_float_as_integer(a: Path) -> None:
    with_header(a, lambda h: h[f"{FIRST}.lora_A.weight"].update(dtype="I32"))


@attack
def dtype_lie_half_the_bytes(a: Path) -> None:
    with_header(a, lambda h: h[f"{FIRST}.lora_A.weight"].update(dtype="F16"))


@attack
def dtype_unknown(a: Path) -> None:
    with_header(a, lambda h: h[f"{FIRST}.lora_A.weight"].update(dtype="Q4_K"))


@attack
def dtype_is_a_number(a: Path) -> None:
    with_header(a, lambda h: h[f"{FIRST}.lora_A.weight"].update(dtype=32))


@attack
def metadata_is_nested(a: Path) -> None:
    with_header(a, lambda h: h.update(__metadata__={"a": {"b": "c"}}))


@attack
def no_tensors(a: Path) -> None:
    raw_file(weights(a), "{}")


# what the tensors hold


@attack
def nan_in_a(a: Path) -> None:
    with_tensors(a, lambda t: t[f"{FIRST}.lora_A.weight"].__setitem__((0, 0), np.nan))


@attack
def infinity_in_b(a: Path) -> None:
    with_tensors(a, lambda t: t[f"{FIRST}.lora_B.weight"].__setitem__((0, 0), -np.inf))


@attack
def values_that_overflow_float32(a: Path) -> None:
    found = tensors(a)
    found[f"{FIRST}.lora_B.weight"] = np.full((D_OUT, RANK), 1e300)
    weights(a).write_bytes(safetensors_bytes(found, "F64"))


@attack
def untrained(a: Path) -> None:
    found = {k: 0 * v if "lora_B" in k else v for k, v in tensors(a).items()}
    weights(a).write_bytes(safetensors_bytes(found))


@attack
def denormal_b(a: Path) -> None:
    found = {k: v * 1e-40 if "lora_B" in k else v for k, v in tensors(a).items()}
    weights(a).write_bytes(safetensors_bytes(found))


@attack
def unpaired_a(a: Path) -> None:
    with_tensors(a, lambda t: t.pop(f"{FIRST}.lora_B.weight"))


@attack
def unpaired_b(a: Path) -> None:
    with_tensors(a, lambda t: t.pop(f"{FIRST}.lora_A.weight"))


@attack
def empty_factor_of_zero3(a: Path) -> None:
    with_tensors(a, lambda t: t.update({f"{FIRST}.lora_A.weight": np.zeros(0)}))


@attack
def flattened_factor_of_fsdp(a: Path) -> None:
    with_tensors(a, lambda t: t.update({f"{FIRST}.lora_A.weight": np.ones(RANK * D_IN)}))


@attack
def scalar_factor(a: Path) -> None:
    with_tensors(a, lambda t: t.update({f"{FIRST}.lora_A.weight": np.array(1.0)}))


@attack
def ranks_that_differ(a: Path) -> None:
    with_tensors(a, lambda t: t.update({f"{FIRST}.lora_A.weight": np.ones((RANK + 1, D_IN))}))


@attack
def absurd_rank(a: Path) -> None:
    """A million ranks at a site of 12 x 16."""
    rank = 200_000
    found = tensors(a)
    found[f"{FIRST}.lora_A.weight"] = np.ones((rank, D_IN), np.float16)
    found[f"{FIRST}.lora_B.weight"] = np.ones((D_OUT, rank), np.float16)
    weights(a).write_bytes(safetensors_bytes(found, "F16"))
    with_config(a, rank_pattern={module_paths()[0]: rank})


@attack
def absurd_rank_undeclared(a: Path) -> None:
    found = tensors(a)
    found[f"{FIRST}.lora_A.weight"] = np.ones((50_000, D_IN), np.float16)
    found[f"{FIRST}.lora_B.weight"] = np.ones((D_OUT, 50_000), np.float16)
    weights(a).write_bytes(safetensors_bytes(found, "F16"))


@attack
def five_dimensional_factor(a: Path) -> None:
    with_tensors(a, lambda t: t.update({f"{FIRST}.lora_B.weight": np.ones((2, 1, 2, 3, 1))}))


@attack
def dora(a: Path) -> None:
    with_tensors(a, lambda t: t.update({f"{FIRST}.lora_magnitude_vector": np.ones(D_OUT)}))


@attack
def full_weight_beside(a: Path) -> None:
    with_tensors(a, lambda t: t.update({"base_model.model.lm_head.weight": np.ones((5, 16))}))


@attack
def base_weight_saved_alongside(a: Path) -> None:
    name = "base_model.model.model.embed_tokens.base_layer.weight"
    with_tensors(a, lambda t: t.update({name: np.ones((5, 16))}))


@attack
def trainable_tokens(a: Path) -> None:
    name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    with_tensors(a, lambda t: t.update({name: np.ones((2, 16))}))


@attack
def trained_bias(a: Path) -> None:
    with_tensors(a, lambda t: t.update({f"{FIRST}.lora_B.bias": np.ones(D_OUT)}))


@attack
def second_adapter_in_the_file(a: Path) -> None:
    with_tensors(
        a,
        lambda t: t.update({k.replace(".weight", ".other.weight"): v for k, v in list(t.items())}),
    )


@attack
def same_site_by_another_name(a: Path) -> None:
    """layers.00 is layers.0: two updates of one weight."""
    with_tensors(
        a,
        lambda t: t.update({k.replace("layers.0.", "layers.00."): v for k, v in list(t.items())}),
    )


@attack
def layer_beyond_the_base(a: Path) -> None:
    with_tensors(
        a,
        lambda t: [
            t.update({k.replace("layers.1.", "layers.99999."): t.pop(k)})
            for k in list(t)
            if "layers.1." in k
        ],
    )


@attack
def layer_of_many_digits(a: Path) -> None:
    digits = "9" * 400
    with_tensors(
        a,
        lambda t: [
            t.update({k.replace("layers.1.", f"layers.{digits}."): t.pop(k)})
            for k in list(t)
            if "layers.1." in k
        ],
    )


# names


@attack
def homoglyph_in_a_name(a: Path) -> None:
    """A Cyrillic letter in `lora`: what PEFT would ignore must not be read, nor the reverse."""
    with_tensors(
        a, lambda t: [t.update({k.replace("lora", "l\u043era"): t.pop(k)}) for k in list(t)[:2]]
    )


@attack
def zero_width_space_in_a_name(a: Path) -> None:
    with_tensors(
        a, lambda t: [t.update({k.replace(".mlp", ".\u200bmlp"): t.pop(k)}) for k in list(t)]
    )


@attack
def fullwidth_digit_for_the_layer(a: Path) -> None:
    with_tensors(
        a,
        lambda t: [t.update({k.replace("layers.1", "layers.\uff11"): t.pop(k)}) for k in list(t)],
    )


@attack
def right_to_left_override(a: Path) -> None:
    with_tensors(a, lambda t: t.update({"\u202egnp.thgiew": np.ones(2)}))


@attack
def terminal_escape_in_a_name(a: Path) -> None:
    with_tensors(a, lambda t: t.update({"\x1b[2J\x1b[1;32mclear\x1b[0m\x07": np.ones(2)}))


@attack
def terminal_escape_in_the_metadata(a: Path) -> None:
    with_header(a, lambda h: h.update(__metadata__={"format": "\x1b]0;owned\x07", "x": "\x1b[2J"}))
    with_config(a, base_model_name_or_path="\x1b[2J\x1b[1;32mverdict: clear")


@attack
def newline_in_a_name(a: Path) -> None:
    with_tensors(a, lambda t: t.update({"x\n  clear: nothing found\n": np.ones(2)}))


@attack
def surrogate_in_a_name(a: Path) -> None:
    header, data = split_file(weights(a))
    text = json.dumps(header)
    name = f"{FIRST}.lora_A.weight"
    raw_file(weights(a), text.replace(name, name + "\\ud800"), data)


@attack
def null_byte_in_a_name(a: Path) -> None:
    with_tensors(a, lambda t: t.update({"a\0b": np.ones(2)}))


@attack
def name_of_a_megabyte(a: Path) -> None:
    with_tensors(a, lambda t: t.update({"x." * 500_000 + "lora_A.weight": np.ones((3, 16))}))


@attack
def empty_name(a: Path) -> None:
    with_tensors(a, lambda t: t.update({"": np.ones(2)}))


@attack
def markup_in_a_name(a: Path) -> None:
    with_tensors(a, lambda t: t.update({"[bold red]x[/bold red][link=http://e.vil]": np.ones(2)}))


# the config


@attack
def config_is_missing(a: Path) -> None:
    config(a).unlink()


@attack
def config_is_not_json(a: Path) -> None:
    config(a).write_text("peft_type: LORA")


@attack
def config_with_a_trailing_comma(a: Path) -> None:
    config(a).write_text('{"peft_type": "LORA", "r": 3,}')


@attack
def config_with_comments(a: Path) -> None:
    config(a).write_text('{"r": 3 /* rank */}')


@attack
def config_nested_deeply(a: Path) -> None:
    config(a).write_text('{"r": ' + "[" * 500_000 + "]" * 500_000 + "}")


@attack
def config_of_100_megabytes(a: Path) -> None:
    config(a).write_text('{"x": "' + "a" * 100_000_000 + '"}')


@attack
def config_with_duplicate_keys(a: Path) -> None:
    text = json.dumps(lora_config())
    config(a).write_text(text[:-1] + ', "lora_alpha": 0.0001}')


@attack
def nan_alpha(a: Path) -> None:
    config(a).write_text(json.dumps(lora_config(lora_alpha=float("nan"))))


@attack
def infinite_alpha(a: Path) -> None:
    config(a).write_text(
        json.dumps(lora_config()).replace('"lora_alpha": 6', '"lora_alpha": 1e999')
    )


@attack
def alpha_of_many_digits(a: Path) -> None:
    digits = "9" * 5000
    config(a).write_text(
        json.dumps(lora_config()).replace('"lora_alpha": 6', f'"lora_alpha": {digits}')
    )


@attack
def alpha_is_true(a: Path) -> None:
    with_config(a, lora_alpha=True)


@attack
def no_alpha(a: Path) -> None:
    with_config(a, lora_alpha=None)


@attack
def rank_is_negative(a: Path) -> None:
    with_config(a, r=-3)


@attack
def rank_is_huge(a: Path) -> None:
    with_config(a, r=10**9)


@attack
def rank_pattern_is_a_list(a: Path) -> None:
    with_config(a, rank_pattern=[1, 2])


@attack
def as_many_patterns_as_fit(a: Path) -> None:
    with_config(a, alpha_pattern={f"x.{i}": 5 for i in range(250_000)})


@attack
def thousand_patterns_that_backtrack(a: Path) -> None:
    slow = r"(?:[a-z_.0-9]|\w|\w\w|.)+(?<!j)"
    with_config(a, alpha_pattern={f"{slow}(?#{i})": 5 for i in range(1000)})


@attack
def many_patterns_to_compile(a: Path) -> None:
    with_config(a, alpha_pattern={rf"(?:\w|[a-z_.0-9])+[!?]{i}": 5 for i in range(30_000)})


@attack
def pattern_that_is_no_regex(a: Path) -> None:
    with_config(a, alpha_pattern={"(((": 5})


@attack
def pattern_with_a_huge_repeat(a: Path) -> None:
    with_config(a, rank_pattern={"(a{65000}){65000}": 3})


@attack
def unknown_peft_type(a: Path) -> None:
    with_config(a, peft_type="MADE_UP")


@attack
def peft_type_is_an_object(a: Path) -> None:
    with_config(a, peft_type={"LORA": 1})


@attack
def another_peft_type_than_the_tensors(a: Path) -> None:
    with_config(a, peft_type="LOHA")


@attack
def base_is_unknown(a: Path) -> None:
    with_config(a, base_model_name_or_path="someone/else")


@attack
def base_is_a_path_upwards(a: Path) -> None:
    with_config(a, base_model_name_or_path="../../../../etc/passwd")


@attack
def base_is_a_list(a: Path) -> None:
    with_config(a, base_model_name_or_path=["tiny-base"])


@attack
def layer_replication_bomb(a: Path) -> None:
    with_config(a, layer_replication=[[0, 10_000]] * 100_000)


@attack
def target_parameters_of_experts(a: Path) -> None:
    with_config(a, target_parameters=["self_attn.q_proj.gate_up_proj"])


@attack
def base_changing_initialisation(a: Path) -> None:
    with_config(a, init_lora_weights="pissa_niter_16")


# several files


@attack
def pickle_beside_the_weights(a: Path) -> None:
    (a / "adapter_model.bin").write_bytes(pickle.dumps({"a": 1}))


@attack
def second_weight_file(a: Path) -> None:
    (a / "new_embeddings.safetensors").write_bytes(weights(a).read_bytes())


def _index(adapter: Path, mapping: Any, name: str = "adapter_model") -> None:
    text = json.dumps({"metadata": {}, "weight_map": mapping})
    (adapter / f"{name}.safetensors.index.json").write_text(text)


@attack
def index_with_path_traversal(a: Path) -> None:
    _index(a, {f"{FIRST}.lora_A.weight": "../../../../etc/passwd.safetensors"})


@attack
def index_with_absolute_path(a: Path) -> None:
    _index(a, {f"{FIRST}.lora_A.weight": "/etc/hostname.safetensors"})


@attack
def index_names_a_pickle(a: Path) -> None:
    _index(a, {f"{FIRST}.lora_A.weight": "adapter_model.bin"})


@attack
def index_names_a_missing_shard(a: Path) -> None:
    _index(a, {f"{FIRST}.lora_A.weight": "model-00001-of-00002.safetensors"})


@attack
def index_promises_more_tensors(a: Path) -> None:
    weights(a).rename(a / "model-00001-of-00001.safetensors")
    _index(a, {"not.there": "model-00001-of-00001.safetensors"})


@attack
def index_of_many_shards(a: Path) -> None:
    _index(a, {f"t{i}": f"model-{i:05d}-of-99999.safetensors" for i in range(50_000)})


@attack
def index_is_empty(a: Path) -> None:
    _index(a, {})


@attack
def index_maps_to_numbers(a: Path) -> None:
    _index(a, {"a": 5})


@attack
def tensor_in_two_shards(a: Path) -> None:
    content = weights(a).read_bytes()
    weights(a).unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        (a / name).write_bytes(content)
    keys = list(tensors(a))
    _index(a, {key: names[i % 2] for i, key in enumerate(keys)})


@attack
def shard_without_its_index(a: Path) -> None:
    weights(a).rename(a / "adapter_model-00001-of-00002.safetensors")


@attack
def adapter_split_over_two_files(a: Path) -> None:
    found = tensors(a)
    half = dict(list(found.items())[: len(found) // 2])
    rest = {name: value for name, value in found.items() if name not in half}
    weights(a).write_bytes(safetensors_bytes(half))
    (a / "adapter_model_2.safetensors").write_bytes(safetensors_bytes(rest))


# links


@attack
def link_out_of_the_target(a: Path) -> None:
    outside = a.parent / f"{a.name}-outside.safetensors"
    weights(a).rename(outside)
    weights(a).symlink_to(outside)


@attack
def config_links_out_of_the_target(a: Path) -> None:
    outside = a.parent / f"{a.name}-outside.json"
    config(a).rename(outside)
    config(a).symlink_to(outside)


@attack
def link_to_itself(a: Path) -> None:
    weights(a).unlink()
    weights(a).symlink_to(weights(a).name)


@attack
def link_to_a_device(a: Path) -> None:
    weights(a).unlink()
    weights(a).symlink_to("/dev/zero")


@attack
def directory_links_out_of_the_target(a: Path) -> None:
    weights(a).unlink()
    config(a).unlink()
    (a / "more").symlink_to("/usr", target_is_directory=True)


@attack
def directory_links_to_itself(a: Path) -> None:
    """Harmless by itself: what it leads to is scanned once, where it lies."""
    config(a).unlink()
    (a / "loop").symlink_to(".", target_is_directory=True)


# pickles


class _Payload:
    """Creates a file if it is ever unpickled with its class."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


def payload_mark(adapter: Path) -> Path:
    """What appears if an attack's code runs."""
    return adapter.parent / f"{adapter.name}-CODE-RAN"


def _pickle(adapter: Path, content: bytes, name: str = "adapter_model.bin") -> None:
    weights(adapter).unlink()
    (adapter / name).write_bytes(content)


@attack
def pickle_payload(a: Path) -> None:
    _pickle(a, pickle.dumps(_Payload(payload_mark(a)), protocol=2))


@attack
def pickle_payload_in_an_archive(a: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Payload(payload_mark(a)), protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    _pickle(a, buffer.getvalue())


@attack
def pickle_payload_in_protocol_0(a: Path) -> None:
    _pickle(a, pickle.dumps(_Payload(payload_mark(a)), protocol=0))


@attack
def pickle_payload_with_a_safetensors_name(a: Path) -> None:
    weights(a).write_bytes(pickle.dumps(_Payload(payload_mark(a)), protocol=4))


@attack
def pickle_of_plain_data(a: Path) -> None:
    _pickle(a, pickle.dumps({"a": [1, 2, 3]}, protocol=2))


@attack
def pickle_truncated(a: Path) -> None:
    _pickle(a, pickle.dumps({"a": [1, 2, 3]}, protocol=2)[:-4])


@attack
def pickle_with_strides_of_zero(a: Path) -> None:
    import torch

    state = {f"{FIRST}.lora_A.weight": torch.ones(1).expand(10**6, 10**6)}
    weights(a).unlink()
    torch.save(state, a / "adapter_model.bin")


@attack
def archive_bomb_as_a_checkpoint(a: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(300_000_000))
    _pickle(a, buffer.getvalue())


# npz and GGUF


def _npz(adapter: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    weights(adapter).unlink()
    with zipfile.ZipFile(adapter / "adapters.npz", "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@attack
def npz_with_python_objects(a: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Payload(payload_mark(a))], dtype=object), allow_pickle=True)
    _npz(a, {"model.layers.0.self_attn.q_proj.lora_a.npy": buffer.getvalue()})


@attack
def npz_bomb(a: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (100000000,)}"
    content = _npy(header, bytes(400_000_000))
    _npz(a, {"x.lora_a.npy": content}, zipfile.ZIP_DEFLATED)


@attack
def npz_shape_lie(a: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}"
    _npz(a, {"x.lora_a.npy": _npy(header, bytes(16))})


@attack
def npz_header_is_code(a: Path) -> None:
    _npz(a, {"x.lora_a.npy": _npy(f"__import__('os').mkdir({str(payload_mark(a))!r})")})


@attack
def npz_with_path_traversal(a: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"
    _npz(a, {"../../escaped.npy": _npy(header, bytes(8))})


@attack
def npz_truncated(a: Path) -> None:
    np.savez(a / "adapters.npz", x=np.ones(1000))
    weights(a).unlink()
    content = (a / "adapters.npz").read_bytes()
    (a / "adapters.npz").write_bytes(content[: len(content) // 2])


def _gguf(adapter: Path, content: bytes) -> None:
    weights(adapter).unlink()
    (adapter / "lora.gguf").write_bytes(content)


def _gguf_string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _gguf_header(tensors: int, entries: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, entries)


@attack
def gguf_with_2_to_63_tensors(a: Path) -> None:
    _gguf(a, _gguf_header(2**63, 0))


@attack
def gguf_with_2_to_63_entries(a: Path) -> None:
    _gguf(a, _gguf_header(0, 2**63))


@attack
def gguf_with_a_huge_string(a: Path) -> None:
    _gguf(a, _gguf_header(0, 1) + struct.pack("<Q", 2**60))


@attack
def gguf_with_a_huge_array(a: Path) -> None:
    entry = _gguf_string("x") + struct.pack("<IIQ", 9, 4, 2**60)
    _gguf(a, _gguf_header(0, 1) + entry)


@attack
def gguf_with_nested_arrays(a: Path) -> None:
    entry = _gguf_string("x") + struct.pack("<IIQ", 9, 9, 1) * 1000
    _gguf(a, _gguf_header(0, 1) + entry)


@attack
def gguf_of_version_1(a: Path) -> None:
    _gguf(a, b"GGUF" + struct.pack("<IQQ", 1, 0, 0))


@attack
def gguf_truncated(a: Path) -> None:
    entry = _gguf_string("general.type") + struct.pack("<I", 8) + _gguf_string("adapter")
    _gguf(a, (_gguf_header(2, 1) + entry)[:-3])


@attack
def gguf_tensor_beyond_the_file(a: Path) -> None:
    described = _gguf_string("blk.0.attn_q.weight.lora_a")
    described += struct.pack("<IQQIQ", 2, 16, 3, 0, 2**50)
    _gguf(a, _gguf_header(1, 0) + described + bytes(256))


@attack
def gguf_of_a_whole_model(a: Path) -> None:
    entry = _gguf_string("general.type") + struct.pack("<I", 8) + _gguf_string("model")
    _gguf(a, _gguf_header(0, 1) + entry + bytes(64))


@attack
def gguf_with_nan_alpha(a: Path) -> None:
    entries = b"".join(
        _gguf_string(key) + struct.pack("<I", 8) + _gguf_string(value)
        for key, value in (("general.type", "adapter"), ("adapter.type", "lora"))
    )
    alpha = _gguf_string("adapter.lora.alpha") + struct.pack("<If", 6, float("nan"))
    _gguf(a, _gguf_header(0, 3) + entries + alpha + bytes(64))


# What lies beside the weights, and files that are not what they seem


def _pickled(state: bytes = b"", name: str = "archive") -> bytes:
    """An archive as `torch.save` writes it, of a dict with one 2 x 2 tensor under LoRA's name."""
    key = f"{FIRST}.lora_A.weight".encode()
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
        b"X\x01\0\0\x000X\x03\0\0\0cpuK\x04tQK\0K\x02K\x02\x86K\x02K\x01\x86\x89"
        b"ccollections\nOrderedDict\n)RtR"
    )
    state = state or b"\x80\x02}(X" + struct.pack("<I", len(key)) + key + tensor + b"u."
    members = {"data.pkl": state, "byteorder": b"little", "data/0": bytes(16), "version": b"3\n"}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}/{member}"), content)
    return file.getvalue()


def _arrays(**arrays: Array) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _two_archives(first: bytes, second: bytes) -> bytes:
    """One file with two directories: its end record names the first, the second lies before it."""
    end = struct.Struct("<4s4H2LH")
    *_, length, at, _ = end.unpack(first[-end.size :])
    count = end.unpack(first[-end.size :])[3]
    body = first + second[: -end.size]
    return body + end.pack(b"PK\5\6", 0, 0, count, count, length, at, 0)


def _adapter_named(name: str) -> Attack:
    def put(a: Path) -> None:
        (a / name).parent.mkdir(parents=True, exist_ok=True)
        (a / name).write_bytes(_pickled())

    return put


for _name in (
    "optimizer.pt",
    "rng_state_3.pth",
    "scheduler.bin",
    "training_args.bin",
    "Other.CKPT",
):
    ATTACKS[f"beside_an_adapter_as_{_name}"] = _adapter_named(_name)


@attack
def beside_an_empty_state(a: Path) -> None:
    (a / "optimizer.pt").write_bytes(b"")


@attack
def beside_a_pipe_as_a_state(a: Path) -> None:
    os.mkfifo(a / "optimizer.pt")


@attack
def beside_weights_in_capital_letters(a: Path) -> None:
    (a / "SECOND.SAFETENSORS").write_bytes(weights(a).read_bytes())


@attack
def beside_a_shard_without_an_index(a: Path) -> None:
    (a / "model-00002-of-00003.safetensors").write_bytes(weights(a).read_bytes())


@attack
def beside_an_index_of_pickles(a: Path) -> None:
    (a / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "x.bin"}}')


@attack
def shard_that_is_a_pipe(a: Path) -> None:
    weights(a).unlink()
    os.mkfifo(a / "x-00001-of-00001.safetensors")
    index = {"weight_map": {f"{FIRST}.lora_A.weight": "x-00001-of-00001.safetensors"}}
    (a / "adapter_model.safetensors.index.json").write_text(json.dumps(index))


@attack
def index_that_is_a_pipe(a: Path) -> None:
    weights(a).unlink()
    os.mkfifo(a / "adapter_model.safetensors.index.json")


@attack
def weights_that_are_a_device(a: Path) -> None:
    weights(a).unlink()
    weights(a).symlink_to("/dev/zero")


@attack
def weights_that_are_a_socket(a: Path) -> None:
    weights(a).unlink()
    here = Path.cwd()
    os.chdir(a)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(weights(a).name)
    finally:
        os.chdir(here)


@attack
def archives_two_arrays_and_a_pickle(a: Path) -> None:
    weights(a).unlink()
    (a / "adapter_model.bin").write_bytes(_two_archives(_pickled(), _arrays(x=np.ones(3))))


@attack
def archives_two_arrays_and_arrays(a: Path) -> None:
    weights(a).unlink()
    both = _two_archives(_arrays(x=np.ones(3)), _arrays(y=np.zeros(3)))
    (a / "adapters.npz").write_bytes(both)


@attack
def archive_with_a_tail(a: Path) -> None:
    weights(a).unlink()
    (a / "adapters.npz").write_bytes(_arrays(x=np.ones(3)) + _pickled())


@attack
def hollow_weights_of_20_gigabytes(a: Path) -> None:
    shape = [2**15, 2**15]
    size = 4 * shape[0] * shape[1]
    entries = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_A.weight": {
            "dtype": "F32", "shape": shape, "data_offsets": [layer * size, (layer + 1) * size],
        }
        for layer in range(5)
    }  # fmt: skip
    raw_file(weights(a), json.dumps(entries))
    os.truncate(weights(a), weights(a).stat().st_size + 5 * size)


@attack
def hollow_config(a: Path) -> None:
    os.truncate(config(a), 20 * 2**30)


@attack
def numbers_of_400_digits(a: Path) -> None:
    config(a).write_text(json.dumps(lora_config())[:-1] + f', "lora_dropout": {"9" * 400}}}')


@attack
def numbers_of_5000_digits(a: Path) -> None:
    config(a).write_text(json.dumps(lora_config())[:-1] + f', "lora_dropout": {"1" * 5000}}}')


@attack
def numbers_beyond_every_float(a: Path) -> None:
    config(a).write_text(json.dumps(lora_config())[:-1] + ', "lora_dropout": 1e5000}')


def build(root: Path, name: str) -> Path:
    """Builds one attack in `root / name`."""
    adapter = honest(root / name)
    ATTACKS[name](adapter)
    return adapter


def main() -> None:
    """Builds the whole corpus in the directory the command line names."""
    root = Path(sys.argv[1])
    for name in ATTACKS:
        build(root, name)
    sys.stdout.write(f"{len(ATTACKS)} attacks in {root}\n")


if __name__ == "__main__":
    main()
