"""What loading an adapter changes in its base model: merged minus base, in float64.

Runs in this process with the PEFT that is installed, and as a program of its own in an environment
with an older one (`python -m tests.differential.merging`): one JSON request a line, one JSON answer
a line, the matrices in an .npz file. Nothing of the scanner's readers takes part.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from huggingface_hub import constants

from tests.formats.oracle import HEADS, KV_HEADS, LAYERS, VOCAB, WIDTH, gpt2, llama

constants.HF_HUB_OFFLINE = True

Array = npt.NDArray[np.float64]
Changes = Mapping[str, Array]
"""Module path (one of several experts: with its number before the last name) -> what is added to
its weight, (d_out, d_in). What is no matrix (a bias, a norm) has its parameter's path and shape."""

EXPERTS, EXPERT_INNER = 3, 20


def mixtral() -> Any:
    """A Mixtral of two blocks; from transformers 5 its experts are one tensor per projection."""
    torch.manual_seed(4)
    config = transformers.MixtralConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=EXPERT_INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        num_local_experts=EXPERTS,
        num_experts_per_tok=2,
    )
    config.name_or_path = "tests/tiny-mixtral"
    return transformers.MixtralForCausalLM(config)


BASES: dict[str, Callable[[], Any]] = {"llama": llama, "gpt2": gpt2, "mixtral": mixtral}


@functools.cache
def base_model(name: str) -> Any:
    """One of the bases in float64, built once. Loaders get copies."""
    return BASES[name]().double()


def fresh_copy(name: str) -> Any:
    """A base that a loader may change."""
    return copy.deepcopy(base_model(name))


def _parameters(model: Any) -> dict[str, Array]:
    """Parameter path -> its values; those that stored transposed are (d_out, d_in) again."""
    transposed = (transformers.pytorch_utils.Conv1D, torch.nn.Embedding)
    turned = {
        f"{path}.weight" for path, module in model.named_modules() if isinstance(module, transposed)
    }
    return {
        name: parameter.detach().numpy().T if name in turned else parameter.detach().numpy()
        for name, parameter in model.named_parameters()
    }


@functools.cache
def _base_parameters(name: str) -> dict[str, Array]:
    return _parameters(base_model(name))


def _by_module(name: str, values: Array) -> dict[str, Array]:
    """A parameter under the names of `Changes`."""
    if values.ndim == 3:
        stem, _, leaf = name.rpartition(".")
        return {f"{stem}.{expert}.{leaf}": part for expert, part in enumerate(values)}
    return {name.removesuffix(".weight") if values.ndim == 2 else name: values}


def matrices(base: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a base's weights, under the names of `Changes`."""
    return {
        path: part.shape
        for name, values in _base_parameters(base).items()
        for path, part in _by_module(name, values).items()
    }


def changes(merged: Any, base: str) -> Changes:
    """The base's parameters after a merge, minus those before it, where not zero."""
    found: dict[str, Array] = {}
    after = _parameters(merged)
    for name, before in _base_parameters(base).items():
        delta = after[name] - before
        if np.any(delta):  # NaN counts as a change
            found.update(_by_module(name, delta))
    return found


def merged_by_peft(directory: Path, base: str) -> Changes:
    """Loads an adapter with `PeftModel.from_pretrained` and merges it. Raises what PEFT raises."""
    from peft import PeftModel

    torch.manual_seed(0)
    model = PeftModel.from_pretrained(fresh_copy(base), str(directory))
    return changes(model.double().merge_and_unload(), base)


def merged_by_transformers(directory: Path, base: str) -> Changes:
    """Loads an adapter with transformers' `load_adapter` and merges layer by layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    torch.manual_seed(0)
    model = fresh_copy(base)
    model.load_adapter(str(directory))
    model.double()
    for path, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())
    return changes(model, base)


def _named(found: Changes) -> dict[str, Any]:
    """The arrays under names that are no parameter of `np.savez`."""
    return {f"={name}": delta for name, delta in found.items()}


def main() -> None:
    """Answers requests until the input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"error": ""}
        try:
            found = merged_by_peft(Path(request["directory"]), request["base"])
            np.savez(request["result"], allow_pickle=False, **_named(found))
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
