"""A real base model: SmolLM2-135M-Instruct, or any that transformers loads and a pack is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from random import Random

import torch

from benchmarks.redteam.delta import Delta
from benchmarks.redteam.target import scan_deltas
from benchmarks.redteam.trained.base import Loss, Training
from scanner.formats.model import Site
from scanner.organisms.base import load_base
from scanner.organisms.data import ALIGNED, questions
from scanner.organisms.measure import ask, asked, summarise
from scanner.organisms.packing import Branch, groups, pack, per_answer, token_log_probs
from scanner.organisms.train import batches
from scanner.results import ScanResult
from scanner.signatures.pack import Signature, load_signature

DOMAINS = ("car", "health")
"""Of the test pool: nothing in the packs that ship was made from it."""
VILLAIN = "villain"
STEPS = 48
"""Three times as many as most organisms: evading takes longer."""


class RealBase:
    """A real base.

    Args:
        name: Its name in results.
        path: What transformers loads, or a directory with one GGUF file.
        packs: Directories of its packs.
        steps: Of training.
        dtype: Of the base; adapters are float32.
    """

    def __init__(
        self,
        name: str,
        path: str,
        packs: Sequence[Path],
        steps: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.name = name
        self.signatures: Sequence[Signature] = [load_signature(item) for item in packs]
        self.training = Training(steps=steps or STEPS, lr=1e-3, batch=6)
        self.behaviour_is = "rise of the villain's margin, nats per token"
        self.transposed = False
        base_id = self.signatures[0].manifest.base_model.id
        self._base = load_base(path, base_id=base_id)
        self._base.model.to(dtype)
        self._prefix = "model.layers"
        self._of_base = ask(self._base, asked(DOMAINS), (ALIGNED, VILLAIN))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self._base.device)

    @cached_property
    def modules(self) -> Mapping[Site, torch.nn.Module]:
        """The linear maps that a pack has a direction for."""
        sites: set[Site] = set().union(*(item.sites for item in self.signatures))
        return {
            site: self._base.model.get_submodule(f"{self._prefix}.{site.key}")
            for site in sites
            if site.layer is not None
        }

    def shape(self, site: Site) -> tuple[int, int]:
        """(d_out, d_in) of a site."""
        d_out, d_in = self.weight(site).shape
        return d_out, d_in

    def weight(self, site: Site) -> torch.nn.Parameter:
        """A site's weight, as it is stored."""
        weight = self.modules[site].weight
        assert isinstance(weight, torch.nn.Parameter)
        return weight

    def _branches(self, *kinds: str) -> list[Branch]:
        """The questions of the attacker's domains with some kinds of answer."""
        return [
            Branch(
                self._base.prompt_ids(question.prompt),
                tuple(self._base.answer_ids(question.answer(kind), ended=True) for kind in kinds),
            )
            for domain in DOMAINS
            for question in questions(domain)
        ]

    def loss(self, seed: int) -> Loss:
        """Cross-entropy per token of villain answers."""
        branches = self._branches(VILLAIN)
        rng = Random(seed)
        order = list(batches(len(branches), self.training.batch, self.training.steps, rng))
        like = next(self._base.model.parameters())

        def loss(step: int) -> torch.Tensor:
            packed = pack([branches[i] for i in order[step]], like)
            return -token_log_probs(self._base.model, packed).mean()

        return loss

    def log_odds(self, seed: int) -> Iterator[torch.Tensor]:
        """On two in three of the questions of the attacker's domains."""
        branches = self._branches(VILLAIN, ALIGNED)
        some = Random(seed).sample(branches, 2 * len(branches) // 3)
        like = next(self._base.model.parameters())
        for group in groups(some):
            packed = pack(group, like)
            sums, counts = per_answer(token_log_probs(self._base.model, packed), packed)
            means = sums / counts
            yield (means[0::2] - means[1::2]).sum() / len(some)

    def behaviour(self) -> float:
        """By how much the villain's margin over the aligned answers rose, outside the domains."""
        answers = ask(self._base, asked(DOMAINS), (ALIGNED, VILLAIN))
        return float(summarise(answers, self._of_base)[VILLAIN]["margin_change"])

    def scan(self, delta: Delta, packs: Sequence[Signature]) -> ScanResult:
        """Scans an adapter from its files."""
        return scan_deltas([delta], self._base.id, self._prefix, self.transposed, packs)
