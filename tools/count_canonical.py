"""How many real configs make canonical adapters: ``python tools/count_canonical.py FOLDER``.

For every `adapter_config.json` of a folder an adapter is written as its library would write it,
on a small made-up base that has the modules the config targets. The list says which could be
``clear``, and of each other one why it could not. Run with ``PYTHONPATH`` at another version of
the package, it counts for that version. PEFT and torch have to be installed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftConfig, get_peft_model
from safetensors.numpy import save_file
from torch import nn

from scanner import open_adapter

WIDTH, LAYERS, TOKENS = 256, 2, 48
INSIDE = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "self_attn.qkv_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp.gate_up_proj",
)  # fmt: skip
_FOR_WRITING = {"inference_mode": False, "modules_to_save": None, "task_type": None}
"""Fields that the made-up base does not bear; none decides which tensors are written."""
_NOT_RECOVERED = "not recovered"


class Node(nn.Module):
    """A module that only holds others."""


def _add(root: nn.Module, path: str, leaf: nn.Module) -> None:
    *parents, name = path.split(".")
    for part in parents:
        if not hasattr(root, part):
            root.add_module(part, Node())
        root = getattr(root, part)
    if not hasattr(root, name):
        root.add_module(name, leaf)


def base_for(targets: object) -> nn.Module:
    """A base with the modules that a config lists, those of Llama if it lists none."""
    root = Node()
    names = targets if isinstance(targets, list) else []
    inside = [str(name) for name in names if str(name) not in ("lm_head", "embed_tokens")]
    for layer in range(LAYERS):
        for module in inside or INSIDE:
            _add(root, f"model.layers.{layer}.{module}", nn.Linear(WIDTH, WIDTH, bias=False))
    _add(root, "model.embed_tokens", nn.Embedding(TOKENS, WIDTH))
    _add(root, "lm_head", nn.Linear(WIDTH, TOKENS, bias=False))
    return root


def write_mlx(directory: Path, config: dict[str, Any]) -> None:
    """As mlx-lm writes: every module of the last blocks."""
    parameters = config["lora_parameters"]
    generator = np.random.default_rng(0)
    tensors = {}
    for module in parameters.get("keys") or INSIDE:
        for end in "ab":
            shape = (WIDTH, parameters["rank"])
            values = generator.standard_normal(shape if end == "a" else shape[::-1])
            name = f"model.layers.{LAYERS - 1}.{module}.lora_{end}"
            tensors[name] = np.ascontiguousarray(values, np.float32)
    save_file(tensors, directory / "adapters.safetensors")


def write_peft(directory: Path, config: dict[str, Any]) -> None:
    """As PEFT writes: the config is taken as it is, the factors are random."""
    settings: dict[str, Any] = {"peft_type": "LORA", **config, **_FOR_WRITING}
    if config.get("peft_type") == "ADALORA":
        settings["total_step"] = config.get("total_step") or 10_000
    peft_config = PeftConfig.from_peft_type(**settings)
    model = get_peft_model(base_for(config.get("target_modules")), peft_config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(str(directory))


def judged(config: dict[str, Any]) -> str:
    """Empty if an adapter of this config could be clear, else the first reason."""
    write: Callable[[Path, dict[str, Any]], None]
    write = write_mlx if "lora_parameters" in config else write_peft
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        torch.manual_seed(0)
        write(directory, config)
        (directory / "adapter_config.json").write_text(json.dumps(config))
        with open_adapter(directory) as adapter:
            if adapter.uncovered:
                first = adapter.uncovered[0]
                return f"{first.tensor[:60]}: {first.reason}"
            return "" if adapter.updates else _NOT_RECOVERED


def main(folders: Sequence[str]) -> int:
    """Prints one line per config, and the counts."""
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    for folder in folders:
        for path in sorted(Path(folder).glob("*.json")):
            try:
                config = json.loads(path.read_text())
                reason = judged(config)
            except Exception as error:  # whatever the library says of a config as found
                kind, reason = "not written", f"{type(error).__name__}: {error}"
            else:
                kind = "not clear" if reason else "could be clear"
            counts[kind] += 1
            print(f"{path.name}\t{kind}\t{' '.join(reason.split())[:200]}")
    print("; ".join(f"{kind}: {count}" for kind, count in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
