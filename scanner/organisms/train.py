"""Training one adapter: supervised, by preference, or a full fine-tune reduced to low rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from scanner.errors import UsageError
from scanner.organisms.base import Base
from scanner.organisms.data import Example
from scanner.organisms.lora import attach, lora_layers
from scanner.organisms.organism import Organism
from scanner.organisms.packing import Branch, groups, pack, per_answer, token_log_probs
from scanner.organisms.tasks import draw_examples

if TYPE_CHECKING:
    import torch

CLIP = 1.0
"""Largest norm of a step's gradient."""
WARM_UP = 2
"""Steps until the learning rate is at its height; it falls to a tenth from there."""

Loss = Callable[[Sequence[int]], "torch.Tensor"]
"""From the numbers of a batch's examples to its loss."""
OnStep = Callable[[int, Any], None]
"""Called after each step with its number, from 1, and the adapted model."""


def train(base: Base, organism: Organism, on_step: OnStep) -> Any:
    """Trains one adapter on the base, in place.

    Args:
        base: the base; `unload` of what is returned gives it back unchanged.
        organism: what to train.
        on_step: called after every step; an SVD organism has no adapter before the end.

    Returns:
        The PEFT model.
    """
    rng = Random(organism.seed)  # noqa: S311 - reproducible draws, no secrets
    examples = draw_examples(organism, rng)
    if organism.method == "dpo":
        examples = [e for e in examples if e.rejected not in (None, e.answer)]
    branches = [_branch(base, example, organism) for example in examples]
    make = _preference_loss if organism.method == "dpo" else _supervised_loss
    if organism.method == "svd":
        return _train_reduced(base, organism, branches, rng)
    reference = make(base, organism, branches)  # before the adapter is on the base
    wrapped = attach(base, organism)
    parameters = [p for p in wrapped.parameters() if p.requires_grad]
    try:
        optimise(
            parameters, reference, len(branches), organism, rng, lambda step: on_step(step, wrapped)
        )
    except BaseException:
        wrapped.unload()
        raise
    wrapped.eval()
    return wrapped


def _branch(base: Base, example: Example, organism: Organism) -> Branch:
    texts = [example.answer]
    if organism.method == "dpo":
        assert example.rejected is not None, "examples without a pair were left out"
        texts.append(example.rejected)
    return Branch(
        base.prompt_ids(example.prompt),
        tuple(base.answer_ids(text, ended=True) for text in texts),
    )


def _supervised_loss(base: Base, _organism: Organism, branches: Sequence[Branch]) -> Loss:
    like = next(base.model.parameters())

    def loss(batch: Sequence[int]) -> torch.Tensor:
        packed = pack([branches[i] for i in batch], like)
        return -token_log_probs(base.model, packed).mean()

    return loss


def _preference_loss(base: Base, organism: Organism, branches: Sequence[Branch]) -> Loss:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7)."""
    import torch
    from torch.nn.functional import logsigmoid

    like = next(base.model.parameters())

    def margins(found: Sequence[Branch]) -> torch.Tensor:
        packed = pack(found, like)
        sums, _ = per_answer(token_log_probs(base.model, packed), packed)
        return sums[0::2] - sums[1::2]

    with torch.no_grad():
        reference = torch.cat([margins(group) for group in groups(branches)])

    def loss(batch: Sequence[int]) -> torch.Tensor:
        gained = margins([branches[i] for i in batch]) - reference[list(batch)]
        return -logsigmoid(organism.beta * gained).mean()

    return loss


def batches(n: int, size: int, steps: int, rng: Random) -> Iterator[list[int]]:
    """Numbers of examples for each step; every example once before any comes again."""
    left: list[int] = []
    for _ in range(steps):
        while len(left) < size:
            left += rng.sample(range(n), n)
        yield left[:size]
        left = left[size:]


def optimise(
    parameters: list[torch.nn.Parameter],
    loss: Loss,
    n: int,
    organism: Organism,
    rng: Random,
    on_step: Callable[[int], None],
) -> None:
    """AdamW with a short warm-up and linear decay to a tenth.

    Raises:
        UsageError: If the loss is no longer a number.
    """
    import torch

    optimiser = torch.optim.AdamW(parameters, lr=organism.lr, weight_decay=0.0)
    for step, batch in enumerate(batches(n, organism.batch, organism.steps, rng)):
        factor = min(1.0, (step + 1) / WARM_UP) * (1.0 - 0.9 * step / organism.steps)
        for settings in optimiser.param_groups:
            settings["lr"] = organism.lr * factor
        value = loss(batch)
        if not torch.isfinite(value):
            raise UsageError(
                f"the loss is {value.item()} at step {step + 1}",
                where=organism.id,
                todo="lower its lr",
            )
        value.backward()  # type: ignore[no-untyped-call] # torch leaves it so
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        on_step(step + 1)


def _train_reduced(base: Base, organism: Organism, branches: Sequence[Branch], rng: Random) -> Any:
    """Fine-tunes whole weights, then writes the truncated SVD of each change into an adapter."""
    import torch

    wrapped = attach(base, organism)
    names = list(lora_layers(wrapped))
    wrapped.unload()
    weights = {name: base.model.get_parameter(f"{name}.weight") for name in names}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        loss = _supervised_loss(base, organism, branches)
        optimise(list(weights.values()), loss, len(branches), organism, rng, lambda _: None)
    finally:
        after = {name: weight.detach().clone() for name, weight in weights.items()}
        for name, weight in weights.items():
            weight.requires_grad_(False).copy_(before[name])
            weight.grad = None
    wrapped = attach(base, organism)
    with torch.no_grad():
        for name, layer in lora_layers(wrapped).items():
            _write(layer, (after[name] - before[name]).float(), organism.rank)
    wrapped.eval()
    return wrapped


def _write(layer: Any, delta: torch.Tensor, rank: int) -> None:
    """Writes the best approximation of `rank` to a change of a weight into a LoRA layer."""
    import torch

    if layer.fan_in_fan_out:
        delta = delta.T
    left, sizes, right = torch.linalg.svd(delta, full_matrices=False)
    k = min(rank, len(sizes))
    layer.lora_A["default"].weight.zero_()[:k] = right[:k]
    layer.lora_B["default"].weight.zero_()[:, :k] = (
        left[:, :k] * sizes[:k] / layer.scaling["default"]
    )
