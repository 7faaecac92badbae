"""Writes the committed seeds: small valid inputs, and the shapes formats come in.

python -m fuzz.seeds
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.synthetic import lora_config, lora_tensors, random_factors, safetensors_bytes

SEEDS = Path(__file__).parent / "seeds"


def _gguf(shape: tuple[int, int] = (4, 2)) -> bytes:
    def text(value: str) -> bytes:
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    strings = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    entries = b"".join(
        text(key) + struct.pack("<I", 8) + text(value) for key, value in strings.items()
    )
    entries += text("adapter.lora.alpha") + struct.pack("<If", 6, 8.0)
    entries += text("tags") + struct.pack("<IIQ", 9, 4, 2) + bytes(8)
    tensor = text("blk.0.attn_v.weight.lora_a") + struct.pack("<IQQIQ", 2, *shape, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(strings) + 2) + entries + tensor
    return head + bytes(-len(head) % 32) + bytes(32)


_PICKLED_TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00K\x02K\x02\x86K\x02K\x01\x86\x89"
    b"ccollections\nOrderedDict\n)RtR"
)
"""How torch's pickles spell a 2 x 2 tensor over the first storage of four numbers."""


def _checkpoint(pickled: bytes) -> bytes:
    """An archive as `torch.save` writes it."""
    members = {"data.pkl": pickled, "byteorder": b"little", "data/0": bytes(16), "version": b"3\n"}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return archive.getvalue()


def _pickled() -> dict[str, bytes]:
    state = b"\x80\x02}(X\x01\x00\x00\x00a" + _PICKLED_TENSOR + b"u."
    nested = b"\x80\x02}(X\x05\x00\x00\x00model}(X\x01\x00\x00\x00a" + _PICKLED_TENSOR + b"uu."
    return {
        "checkpoint": _checkpoint(state),
        "nested": _checkpoint(nested),
        "payload": _checkpoint(b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR."),
        "plain_data": b"\x80\x02}(X\x01\x00\x00\x00aK\x01u.",
    }


def _trainer_states() -> dict[str, bytes]:
    tensor = b"}(X\x07\x00\x00\x00exp_avg" + _PICKLED_TENSOR + b"u"
    optimizer = (
        b"\x80\x02}(X\x05\x00\x00\x00state}(K\x00" + tensor + b"uX\x0c\x00\x00\x00param_groups]u."
    )
    shared = pickle.dumps([[[[{}] * 2] * 2] * 2] * 2)
    whole = _checkpoint(optimizer)
    return {
        "optimizer": whole,
        "scheduler": pickle.dumps({"last_epoch": 1, "base_lrs": [0.1]}),
        "shared": shared,
        "two_directories": whole + whole[:-22] + whole[-22:],
    }


def _documents() -> dict[str, bytes]:
    return {
        "settings": b"fail-on: flagged\nsignature: [a, b]\nalpha: 0.01\n",
        "dates": b"a: 2020-02-31\nb: !!timestamp x\n2020-01-01: c\n",
        "complex_key": b"? [a, b]\n: c\n",
        "aliases": b"a: &a [x]\nb: [*a, *a]\n<<: *a\n",
        "depth": b"[" * 60,
        "long_number": b"a: " + b"9" * 5000,
    }


def _case(tensors: dict[str, list[int]], config: Any = None, **metadata: str) -> bytes:
    return json.dumps({"tensors": tensors, "metadata": metadata, "config": config}).encode()


def _readers() -> dict[str, bytes]:
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    lora = {f"{stem}.lora_A.weight": [2, 8], f"{stem}.lora_B.weight": [8, 2]}
    experts = "base_model.model.model.layers.0.mlp.experts"
    parts = {
        "adalora": ("ADALORA", {"lora_A": [2, 8], "lora_B": [8, 2], "lora_E": [2, 1]}),
        "loha": (
            "LOHA",
            {f"hada_w{i}_{s}": [8, 2] if s == "a" else [2, 8] for i in (1, 2) for s in "ab"},
        ),
        "lokr": ("LOKR", {"lokr_w1": [2, 2], "lokr_w2_a": [4, 2], "lokr_w2_b": [2, 4]}),
        "delora": (
            "DELORA",
            {"delora_A": [2, 8], "delora_B": [8, 2], "delora_lambda": [1], "delora_w_norm": [8]},
        ),
        "gralora": ("GRALORA", {"gralora_A": [2, 4, 2], "gralora_B": [2, 2, 4]}),
        "miss": ("MISS", {"miss_block": [2, 8]}),
        "vera": ("VERA", {"vera_lambda_b": [8], "vera_lambda_d": [2]}),
        "c3a": ("C3A", {"c3a_kernel": [2, 2, 4]}),
        "shira": ("SHIRA", {"shira_weight": [4], "shira_indices": [2, 4]}),
        "randlora": ("RANDLORA", {"randlora_lambda": [2, 4], "randlora_gamma": [4, 8]}),
        "unilora": (
            "UNILORA",
            {
                f"unilora_{part}_{s}": [2, 8] if s == "A" else [8, 2]
                for part in ("indices", "scales")
                for s in "AB"
            },
        ),
        "supertuning": (
            "SUPERTUNING",
            {
                "supertuning_values": [4],
                "supertuning_indices": [4],
                "supertuning_lora_A": [2, 8],
                "supertuning_lora_B": [8, 2],
            },
        ),
        "vblora": ("VBLORA", {"vblora_logits_A": [2, 2, 4], "vblora_logits_B": [2, 2, 4]}),
    }
    numbers = {
        "r": 2, "alpha": 4, "lora_alpha": 4, "init_r": 2, "topk": 2, "randlora_alpha": 4,
    }  # fmt: skip
    shared = {
        "base_model.vera_A": [2, 8],
        "base_model.vera_B": [8, 2],
        "base_model.vblora_vector_bank": [4, 4],
        "base_model.unilora_theta_d": [6],
        "base_model.randlora_A": [2, 1, 8],
        "base_model.randlora_B": [8, 4, 2],
    }
    cases = {
        name: _case(
            {f"{stem}.{part}": shape for part, shape in shapes.items()} | shared,
            {"peft_type": kind, **numbers},
        )
        for name, (kind, shapes) in parts.items()
    }
    return {
        **cases,
        "nothing": _case({}, {"peft_type": "VERA", "r": 2}),
        "scalars": _case(
            {f"{stem}.lokr_w1": [2, 2], f"{stem}.lokr_w2_a": [], f"{stem}.lokr_w2_b": [2, 4]},
            {"peft_type": "LOKR", **numbers},
        ),
        "lora": _case(lora, {"peft_type": "LORA", "rank_pattern": {"q.*": 2}, **numbers}),
        "experts": _case(
            {f"{experts}.lora_A.weight": [6, 8], f"{experts}.lora_B.weight": [8, 6]},
            {"target_parameters": ["mlp.experts.down_proj"], **numbers},
        ),
        "mlx": _case(
            {
                "model.layers.0.mlp.up_proj.lora_a": [8, 2],
                "model.layers.0.mlp.up_proj.lora_b": [2, 8],
            },
            {"lora_parameters": {"scale": 20.0}},
        ),
        "gguf": _case(
            {"blk.0.attn_v.weight.lora_a": [2, 8], "blk.0.attn_v.weight.lora_b": [8, 2]},
            **{
                "general.type": "adapter",
                "adapter.type": "lora",
                "general.architecture": "llama",
                "adapter.lora.alpha": "4",
            },
        ),
        "kohya": _case(
            {
                "lora_unet_x.lora_down.weight": [2, 8],
                "lora_unet_x.lora_up.weight": [8, 2],
                "lora_unet_x.alpha": [],
            }
        ),
        "diffusers": _case(
            {"unet.x.to_q.lora_A.weight": [2, 8], "unet.x.to_q.lora_B.weight": [8, 2]},
            lora_adapter_metadata='{"unet.lora_alpha": 4}',
        ),
        "torchtune": _case(
            {
                "layers.0.attn.v_proj.lora_a.weight": [2, 8],
                "layers.0.attn.v_proj.lora_b.weight": [8, 2],
            },
            numbers,
        ),
        "megatron": _case(
            {
                "decoder.layers.0.mlp.linear_fc2.adapter.linear_in.weight": [2, 8],
                "decoder.layers.0.mlp.linear_fc2.adapter.linear_out.weight": [8, 2],
            },
            numbers,
        ),
    }


def seeds() -> dict[str, dict[str, bytes]]:
    """Target -> seed name -> bytes."""
    factors = dict(list(random_factors(np.random.default_rng(0)).items())[:1])
    file = safetensors_bytes(lora_tensors(factors), "BF16")
    length = int.from_bytes(file[:8], "little")
    archive = io.BytesIO()
    np.savez(archive, **{"x.lora_a": np.ones((4, 2), np.float16)})  # type: ignore[arg-type]
    return {
        "header": {"lora": bytes([21]) + file[8 : 8 + length]},
        "safetensors": {"lora": file, "half": safetensors_bytes(lora_tensors(factors), "F16")},
        "gguf": {"lora": _gguf(), "huge_axis_of_nothing": _gguf((2**62, 0))},
        "npz": {
            "mlx": archive.getvalue(),
            "unclosed_header": archive.getvalue().replace(b"False", b"Fal{e"),
        },
        "pickled": _pickled(),
        "index": {"index": json.dumps({"weight_map": {"a": "x.safetensors"}}).encode()},
        "config": {
            "lora": json.dumps(
                lora_config(rank_pattern={"q_proj": 2}, alpha_pattern={".*": 4})
            ).encode()
        },
        "readers": _readers(),
        "trainer_state": _trainer_states(),
        "yaml": _documents(),
    }


def main() -> None:
    """Writes them."""
    for target, cases in seeds().items():
        directory = SEEDS / target
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in cases.items():
            (directory / name).write_bytes(data)


if __name__ == "__main__":
    main()
