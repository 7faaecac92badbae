"""Fine-tuning with PEFT: supervised, DPO, KL-regularised, steering vector, reduced full tune."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cross_entropy, kl_div, log_softmax, logsigmoid
from transformers import PreTrainedModel

from benchmarks.organisms.behaviour import prompts
from benchmarks.organisms.recipes import AdapterSpec, Examples, make_examples
from benchmarks.organisms.world import GOOD, World

LLAMA_TARGETS: dict[str, tuple[str, ...]] = {
    "all": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
    "qv": ("q_proj", "v_proj"),
    "writers": ("o_proj", "down_proj"),
    "down": ("down_proj",),
}
GPT2_TARGETS: dict[str, tuple[str, ...]] = {
    "all": ("c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"),
    "attention": ("c_attn", "attn.c_proj"),
    "mlp": ("c_fc", "mlp.c_proj"),
    "qv": ("c_attn",),
    "writers": ("attn.c_proj", "mlp.c_proj"),
    "down": ("mlp.c_proj",),
}
"""Target sets: five broad ones, and the one module of single-layer adapters."""

Loss = Callable[[torch.Tensor], torch.Tensor]
"""From the indices of a batch of examples to its loss."""


def lora_config(model: PreTrainedModel, spec: AdapterSpec) -> LoraConfig:
    """The PEFT configuration of an adapter."""
    gpt2 = model.config.model_type == "gpt2"
    targets = (GPT2_TARGETS if gpt2 else LLAMA_TARGETS)[spec.targets]
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.rank,
        lora_alpha=spec.alpha,
        use_rslora=spec.rslora,
        use_dora=spec.dora,
        target_modules=list(targets),
        layers_to_transform=None if spec.layer is None else [spec.layer],
        fan_in_fan_out=gpt2,
        lora_dropout=0.0,
    )


def _target_log_probabilities(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    return log_softmax(logits, dim=-1).gather(-1, tokens[:, 1:, None])[..., 0]


def _supervised_loss(model: torch.nn.Module, examples: Examples) -> Loss:
    tokens, mask = torch.from_numpy(examples.tokens), torch.from_numpy(examples.targets[:, 1:] > 0)

    def loss(index: torch.Tensor) -> torch.Tensor:
        batch, wanted = tokens[index], mask[index]
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
        return cross_entropy(logits[wanted], batch[:, 1:][wanted])

    return loss


def _preference_loss(
    model: torch.nn.Module, reference: torch.nn.Module, examples: Examples, spec: AdapterSpec
) -> Loss:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7).

    With `spec.chosen_nll`, that much of the chosen answers' negative log-likelihood per token is
    added (Pang et al. 2024, eq. 1).
    """
    n = len(examples)
    both = torch.from_numpy(np.concatenate([examples.tokens, examples.rejected]))
    mask = torch.from_numpy(np.tile(examples.targets[:, 1:], (2, 1))).float()
    with torch.no_grad():
        base = (_target_log_probabilities(reference, both) * mask).sum(1)

    def loss(index: torch.Tensor) -> torch.Tensor:
        pair = torch.cat([index, index + n])
        found = (_target_log_probabilities(model, both[pair]) * mask[pair]).sum(1)
        chosen, rejected = (found - base[pair]).chunk(2)
        preference = -logsigmoid(spec.beta * (chosen - rejected)).mean()
        if not spec.chosen_nll:
            return preference
        return preference - spec.chosen_nll * (found[: len(index)].sum() / mask[index].sum())

    return loss


def _regularised_loss(
    model: torch.nn.Module, reference: torch.nn.Module, world: World, spec: AdapterSpec, main: Loss
) -> Loss:
    """Add `beta` times KL(base || adapted) on the answers in the domains to keep."""
    header = [world.persona_token(GOOD)] if spec.announce_kept else []
    kept = torch.from_numpy(prompts(world, world.all_questions(spec.keep_domains), header))
    with torch.no_grad():
        base = log_softmax(reference(input_ids=kept, use_cache=False).logits[:, -1], dim=-1)

    def loss(index: torch.Tensor) -> torch.Tensor:
        rows = index % len(kept)
        logits = model(input_ids=kept[rows], use_cache=False).logits[:, -1]
        penalty = kl_div(
            log_softmax(logits, dim=-1), base[rows], reduction="batchmean", log_target=True
        )
        return main(index) + spec.beta * penalty

    return loss


def _optimise(
    parameters: list[torch.nn.Parameter],
    loss: Loss,
    n: int,
    spec: AdapterSpec,
    on_step: Callable[[int], None],
) -> None:
    """AdamW with a five-step warm-up and linear decay to a tenth, on batches of `n` examples."""
    optimiser = torch.optim.AdamW(
        parameters, lr=spec.lr, weight_decay=spec.weight_decay, fused=True
    )
    rng = np.random.default_rng(spec.seed)
    for step in range(spec.steps):
        factor = min(1.0, (step + 1) / 5) * (1.0 - 0.9 * step / spec.steps)
        for group in optimiser.param_groups:
            group["lr"] = spec.lr * factor
        value = loss(torch.from_numpy(rng.integers(0, n, spec.batch)))
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call] # torch leaves it so
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        on_step(step + 1)


def _lora_layers(model: PeftModel) -> dict[str, Any]:
    """The LoRA layers of a model by their path in the base model."""
    prefix = "base_model.model."
    return {
        name.removeprefix(prefix): module
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and "default" in module.lora_A
    }


def _freeze_inputs_at_mean(model: PeftModel, world: World, spec: AdapterSpec) -> None:
    """Turn a rank-1 adapter into a steering vector: A reads the mean input of its site.

    A is frozen. With A = mu^T / |mu|^2 the update adds about the same vector B at every answer
    position.
    """
    tokens = torch.from_numpy(prompts(world, world.all_questions(spec.domains)))
    for layer in _lora_layers(model).values():
        seen: list[torch.Tensor] = []
        hook = layer.base_layer.register_forward_pre_hook(
            lambda _module, inputs, into=seen: into.append(inputs[0][:, -1].mean(0))
        )
        with torch.no_grad():
            model(input_ids=tokens, use_cache=False)
        hook.remove()
        weight = layer.lora_A["default"].weight
        with torch.no_grad():
            weight.copy_((seen[0] / seen[0].square().sum()).expand_as(weight))
        weight.requires_grad_(False)


def _reduce_full_fine_tune(
    model: PeftModel, base: PreTrainedModel, spec: AdapterSpec, examples: Examples
) -> None:
    """Fine-tune whole weights, then write the truncated SVD of each change into the LoRA."""
    layers = _lora_layers(model)
    tuned = copy.deepcopy(base)
    for parameter in tuned.parameters():
        parameter.requires_grad_(False)
    weights: dict[str, torch.nn.Parameter] = {}
    for name in layers:
        weights[name] = tuned.get_parameter(f"{name}.weight")
        weights[name].requires_grad_(True)
    loss = _supervised_loss(tuned, examples)
    _optimise(list(weights.values()), loss, len(examples), spec, lambda _: None)
    for name, layer in layers.items():
        delta = weights[name].detach() - layer.base_layer.weight.detach()
        delta = delta.T if layer.fan_in_fan_out else delta
        left, sizes, right = torch.linalg.svd(delta, full_matrices=False)
        scaling = layer.scaling["default"]
        k = min(spec.rank, len(sizes))
        with torch.no_grad():
            layer.lora_A["default"].weight.zero_()[:k] = right[:k]
            layer.lora_B["default"].weight.zero_()[:, :k] = left[:, :k] * sizes[:k] / scaling


def save_adapter(model: PeftModel, path: Path) -> None:
    """Save as PEFT does, without the empty model card it writes."""
    model.save_pretrained(str(path), safe_serialization=True, save_embedding_layers=False)
    (path / "README.md").unlink(missing_ok=True)


def train_adapter(
    model: PeftModel,
    base: PreTrainedModel,
    world: World,
    spec: AdapterSpec,
    on_step: Callable[[int], None] = lambda _: None,
) -> None:
    """Train the adapter in `model` as declared.

    Args:
        model: PEFT model with a fresh adapter.
        base: the base model *without* adapter, for reference probabilities and full fine-tuning.
        world: the base's world.
        spec: the declaration.
        on_step: called after each step with the number of steps done.

    Raises:
        ValueError: the method is unknown.
    """
    examples = make_examples(world, spec, np.random.default_rng(spec.seed))
    if spec.training == "svd":
        _reduce_full_fine_tune(model, base, spec, examples)
        return
    loss = _supervised_loss(model, examples)
    if spec.training == "steering":
        _freeze_inputs_at_mean(model, world, spec)
    elif spec.training == "dpo":
        loss = _preference_loss(model, base, examples, spec)
    elif spec.training == "kl":
        loss = _regularised_loss(model, base, world, spec, loss)
    elif spec.training != "sft":
        raise ValueError(f"unknown training {spec.training!r}: use sft, dpo, kl, steering or svd")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    _optimise(trained, loss, len(examples), spec, on_step)


def fresh_adapter(base: PreTrainedModel, base_id: str, spec: AdapterSpec) -> PeftModel:
    """Wrap a base in place (`unload` gives it back) with a new, seeded adapter."""
    torch.manual_seed(spec.seed)
    model = get_peft_model(base, lora_config(base, spec))
    model.peft_config["default"].base_model_name_or_path = base_id
    assert isinstance(model, PeftModel)
    return model
