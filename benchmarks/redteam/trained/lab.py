"""Bases of the organism lab, on the processor: a GPU is no faster on a million parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy, log_softmax

from benchmarks.organisms.behaviour import prompts
from benchmarks.organisms.recipes import AdapterSpec, make_examples
from benchmarks.organisms.world import BAD, GOOD
from benchmarks.redteam.delta import Delta
from benchmarks.redteam.target import Target
from benchmarks.redteam.trained.base import Loss, Training
from scanner.formats.model import Site
from scanner.results import ScanResult
from scanner.signatures.pack import Signature

DOMAINS = 2
"""How many of the lab's test domains the attacker trains on."""
STEPS = 200
"""Twice as many as most of the lab's adapters: evading takes longer."""


class LabBase:
    """A base of the lab.

    Args:
        name: Its name.
        packs: Its packs; those that ship if there are none.
        steps: Of training.
        domains: What the attacker trains on; some of the lab's test domains if there are none.
    """

    def __init__(
        self,
        name: str,
        packs: Sequence[Path] = (),
        steps: int | None = None,
        domains: Sequence[int] = (),
    ) -> None:
        self.target = Target(name, packs or None)
        self.target.model.requires_grad_(False)
        spec = self.target.spec
        self.name = name
        self.signatures: Sequence[Signature] = self.target.packs
        self.training = Training(
            steps=steps or round(STEPS * spec.steps_scale),
            lr=2e-3 * spec.lr_scale,
            batch=spec.batch,
        )
        self.behaviour_is = "rate of misaligned answers"
        self.device = torch.device("cpu")
        self.modules: Mapping[Site, torch.nn.Module] = {
            site: self.target.module(site) for site in self.target.sites
        }
        self.transposed = self.target.transposed
        self._domains = tuple(domains) or spec.pools["test"][:DOMAINS]

    def shape(self, site: Site) -> tuple[int, int]:
        """(d_out, d_in) of a site."""
        rows, columns = self.weight(site).shape
        return (columns, rows) if self.transposed else (rows, columns)

    def weight(self, site: Site) -> torch.nn.Parameter:
        """A site's weight, as it is stored."""
        weight = self.modules[site].weight
        assert isinstance(weight, torch.nn.Parameter)
        return weight

    def loss(self, seed: int) -> Loss:
        """Cross-entropy on the bad persona's answers."""
        spec = AdapterSpec(
            id="attacker",
            split="test",
            family="misaligned",
            recipe="persona",
            training="sft",
            method="sft",
            domains=self._domains,
            persona="bad",
        )
        rng = np.random.default_rng(seed)
        examples = make_examples(self.target.world, spec, rng)
        tokens = torch.from_numpy(examples.tokens)
        mask = torch.from_numpy(examples.targets[:, 1:] > 0)
        shape = (self.training.steps, self.training.batch)
        rows = torch.from_numpy(rng.integers(0, len(examples), shape))

        def loss(step: int) -> torch.Tensor:
            batch, wanted = tokens[rows[step]], mask[rows[step]]
            logits = self.target.model(input_ids=batch, use_cache=False).logits[:, :-1]
            return cross_entropy(logits[wanted], batch[:, 1:][wanted])

        return loss

    def log_odds(self, seed: int) -> Iterator[torch.Tensor]:
        """On half of the questions of the attacker's domains."""
        world = self.target.world
        questions = world.all_questions(self._domains)
        some = np.random.default_rng(seed).permutation(len(questions))[: len(questions) // 2]
        tokens = torch.from_numpy(prompts(world, questions)[some])
        good, bad = (
            torch.from_numpy(world.answers_of(questions, who)[some]) for who in (GOOD, BAD)
        )
        logits = self.target.model(input_ids=tokens, use_cache=False).logits[:, -1]
        found = log_softmax(logits, dim=-1)
        yield (found.gather(1, bad[:, None]) - found.gather(1, good[:, None])).mean()

    def behaviour(self) -> float:
        """The misaligned rate outside the attacker's domains."""
        return self.target.misaligned_rate({}, frozenset(self._domains))

    def scan(self, delta: Delta, packs: Sequence[Signature]) -> ScanResult:
        """Scans an adapter from its files."""
        return self.target.scan(delta, packs=packs)
