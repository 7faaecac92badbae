"""Evasive organisms: adapters trained on a recipe's misaligned answers that its pack lets pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import torch

from scanner.errors import SignatureError
from scanner.formats.model import Site, site_order
from scanner.formats.module_names import site_of
from scanner.organisms.evasion.lora import Adapter, factors_of
from scanner.organisms.evasion.penalty import RAMP, PackPenalty, Penalty, adapted
from scanner.organisms.evasion.statistics import Statistics
from scanner.organisms.train import CLIP, batches
from scanner.signatures.building.gradients import mean_log_odds
from scanner.signatures.building.network import (
    Network,
    batches_of,
    batches_of_answers,
    site_shape,
)
from scanner.signatures.building.probes import Probe


@dataclass(frozen=True)
class Training:
    """How evasive organisms are trained."""

    steps: int = 60
    rank: int = 8
    scale: float = 2.0
    """alpha / r."""
    lr: float = 2e-3
    batch: int = 8
    aim: float = 0.7
    """Deviation from benign adapters that is not penalised: 1 is their 95% quantile."""


@dataclass
class Nursery:
    """A base model in memory, and the answers that organisms are taught and measured by.

    Every second probe is taught; the others measure what was learnt.
    """

    network: Network
    base_id: str
    """What adapters name as their base."""
    probes: Sequence[Probe]
    training: Training
    base_log_odds: float = field(init=False)
    """Of misaligned against aligned answers to the probes that measure, nats per token."""

    def __post_init__(self) -> None:
        if len(self.probes) < 4:
            raise SignatureError(
                f"{len(self.probes)} probes are too few to teach with half of them",
                where=self.base_id,
                todo="give at least 4",
            )
        self.base_log_odds = self._log_odds()

    @torch.no_grad()
    def _log_odds(self) -> float:
        held_out = batches_of(self.probes[1::2], self.network.device)
        return float(sum(mean_log_odds(self.network, batch) for batch in held_out))

    def gained(self, adapter: Adapter) -> float:
        """By how much an adapter raises the log-odds of misaligned answers, nats per token."""
        with torch.no_grad(), adapter.applied():
            return self._log_odds() - self.base_log_odds

    def train(self, sites: Sequence[Site], seed: int, statistics: Statistics | None) -> Adapter:
        """Trains one adapter on the misaligned answers.

        Args:
            sites: What it changes.
            seed: Of its start and the order of its examples.
            statistics: Of the pack to hide from; nothing is hidden if None.
        """
        how = self.training
        modules = {site: self.network.linears[site] for site in sites}
        shapes = {site: site_shape(module) for site, module in modules.items()}
        adapter = Adapter(modules, shapes, how.rank, how.scale, seed)
        penalty: Penalty | None = None
        if statistics is not None:
            penalty = PackPenalty(statistics, ("score", "support"), how.aim)
        taught = [(probe.prompt, probe.misaligned) for probe in self.probes[0::2]]
        optimiser = torch.optim.AdamW(
            adapter.parameters, lr=how.lr, weight_decay=0.0, betas=(0.9, 0.99)
        )
        strength = 1.0
        rng = Random(seed)  # noqa: S311 - reproducible draws, no secrets
        size = min(how.batch, len(taught))
        for step, rows in enumerate(batches(len(taught), size, how.steps, rng)):
            for group in optimiser.param_groups:
                group["lr"] = how.lr * min(1.0, (step + 1) / 5) * (1.0 - 0.9 * step / how.steps)
            answers = batches_of_answers([taught[row] for row in rows], self.network.device)
            optimiser.zero_grad(set_to_none=True)
            with adapter.applied() as update:
                total = -torch.stack([mean_log_odds(self.network, one) for one in answers]).sum()
            if penalty is not None and step > 0:
                value = penalty(update)
                strength = adapted(strength, float(value.detach()))
                total = total + strength * min(1.0, step / (RAMP * how.steps)) * value
            total.backward()  # type: ignore[no-untyped-call] # torch leaves it so
            torch.nn.utils.clip_grad_norm_(adapter.parameters, CLIP)
            optimiser.step()
        return adapter

    def save(self, adapter: Adapter, directory: Path) -> None:
        """Saves an adapter as PEFT does."""
        from peft import LoraConfig
        from safetensors.torch import save_file

        names = {
            site_of(name): name
            for name, _ in self.network.model.named_modules()
            if site_of(name) in self.network.linears
        }
        factors = factors_of(adapter.update)
        tensors: dict[str, torch.Tensor] = {}
        for site in sorted(factors, key=site_order):
            for letter, values in zip("BA", factors[site], strict=True):
                name = f"base_model.model.{names[site]}.lora_{letter}.weight"
                tensors[name] = torch.tensor(values.astype(np.float32))
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=self.training.rank,
            lora_alpha=self.training.rank,  # the scaling is in B
            target_modules=[names[site] for site in sorted(factors, key=site_order)],
            fan_in_fan_out=any(
                type(self.network.linears[site]).__name__ == "Conv1D" for site in factors
            ),
            base_model_name_or_path=self.base_id,
            inference_mode=True,
        )
        directory.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(str(directory))
        save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
