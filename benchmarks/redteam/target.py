"""What is attacked: a lab base with its shipped packs, and how an attack on it is judged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks.organisms.bases import CHECKPOINTS, BaseSpec, load_base, load_base_spec
from benchmarks.organisms.behaviour import prompts, rates
from benchmarks.organisms.world import World
from benchmarks.redteam.delta import Delta, Factored, save, unit
from scanner import compose, open_adapter, scan
from scanner.formats.model import Adapter, Site
from scanner.geometry import Direction, Matrix
from scanner.results import ScanResult
from scanner.signatures.pack import Signature, load_signature

PACKS = Path(__file__).resolve().parents[2] / "signatures"


@dataclass(frozen=True)
class Victim:
    """An adapter that the attacker wants to get past the scan, or uses as material."""

    name: str
    delta: Delta
    used: frozenset[int]
    """Domains of its training data: behaviour is measured outside of them."""


class Target:
    """A base of the lab with packs for it.

    Args:
        name: The base.
        packs: Directories of its packs; those that ship by default.
    """

    def __init__(self, name: str, packs: Sequence[Path] | None = None) -> None:
        self.name = name
        self.spec: BaseSpec = load_base_spec(name)
        self.world = World(self.spec.world)
        self.model: PreTrainedModel = load_base(CHECKPOINTS / name)
        found = packs or sorted(PACKS.glob(f"persona-{name}-*"))
        self.packs: tuple[Signature, ...] = tuple(load_signature(path) for path in found)
        self.transposed = self.spec.model.architecture == "gpt2"
        self._quiet: dict[Site, Matrix] = {}
        self._against: dict[tuple[Site, bool], Factored] = {}
        self.prefix = "transformer.h" if self.transposed else "model.layers"

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.spec.model.width // self.spec.model.heads

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Every linear map of the blocks that a pack has a direction for."""
        known: set[Site] = set().union(*(pack.sites for pack in self.packs))
        return tuple(sorted(known, key=lambda site: (site.layer or 0, site.module)))

    def module(self, site: Site) -> torch.nn.Module:
        """The linear map at a site."""
        module: torch.nn.Module = self.model.get_submodule(f"{self.prefix}.{site.key}")
        return module

    def weight(self, site: Site) -> Matrix:
        """The base's weight, (d_out, d_in)."""
        stored = self.module(site).weight
        assert isinstance(stored, torch.Tensor)
        weight = stored.detach().double().numpy()
        return weight.T.copy() if self.transposed else weight.copy()

    def bias(self, site: Site) -> Matrix:
        """The base's bias, (d_out,); zeros if the site has none."""
        stored = getattr(self.module(site), "bias", None)
        if stored is None:
            return np.zeros(len(self.weight(site)))
        found: Matrix = stored.detach().double().numpy()
        return found

    def directions(self, site: Site) -> list[Direction]:
        """The packs' directions at a site."""
        return [pack.direction(site) for pack in self.packs if site in pack.sites]

    def misaligned_direction(self, site: Site) -> Matrix:
        """The mean of the packs' unit directions at a site, (d_out, d_in)."""
        total = np.zeros(self.weight(site).shape)
        for direction in self.directions(site):
            dense = (direction.u * direction.s).astype(np.float64) @ direction.v.T
            total += dense / max(float(np.linalg.norm(dense)), 1e-30)
        return total

    def against(self, site: Site, unfelt: bool = False) -> Factored:
        """What lowers the dose fastest at a site, with unit norm.

        Args:
            site: The site.
            unfelt: Only the part of it that reads input directions which the base hardly uses.
        """
        if (site, unfelt) not in self._against:
            dense = -self.misaligned_direction(site)
            if unfelt:
                dense = dense @ self.quiet(site) @ self.quiet(site).T
            self._against[site, unfelt] = unit(dense)
        return self._against[site, unfelt]

    def known(self, site: Site) -> float:
        """How much the packs say of a site: the mean share of ||D||^2 that it holds."""
        return self._known[site]

    @cached_property
    def _known(self) -> dict[Site, float]:
        shares = dict.fromkeys(self.sites, 0.0)
        for pack in self.packs:
            squared = {site: pack.direction_norm(site) ** 2 for site in pack.sites}
            for site, value in squared.items():
                shares[site] += value / sum(squared.values()) / len(self.packs)
        return shares

    def quiet(self, site: Site) -> Matrix:
        """The half of a site's input directions that vary least in the base, (d_in, d_in / 2)."""
        if site not in self._quiet:
            _values, vectors = np.linalg.eigh(self.moments[site])
            self._quiet[site] = vectors[:, : len(vectors) // 2]
        return self._quiet[site]

    @contextmanager
    def applied(self, delta: Delta) -> Iterator[PreTrainedModel]:
        """The base with an adapter's updates in its weights."""
        kept: dict[Site, torch.Tensor] = {}
        try:
            with torch.no_grad():
                for site, item in delta.items():
                    weight = self.module(site).weight
                    assert isinstance(weight, torch.Tensor)
                    kept[site] = weight.clone()
                    dense = item.dense().T if self.transposed else item.dense()
                    weight += torch.from_numpy(dense).to(weight.dtype)
            yield self.model
        finally:
            with torch.no_grad():
                for site, weight in kept.items():
                    self.module(site).weight.copy_(weight)  # type: ignore[operator]

    def misaligned_rate(self, delta: Delta, used: frozenset[int]) -> float:
        """Share of misaligned answers outside the domains used, in one paraphrase."""
        outside = [d for d in range(self.world.spec.domains) if d not in used]
        questions = self.world.all_questions(outside).in_paraphrase(0)
        with self.applied(delta) as model:
            return rates(model, self.world, questions).bad

    def inputs(self, delta: Delta, sites: Sequence[Site]) -> dict[Site, Matrix]:
        """What sites read at all positions of the questions of one paraphrase, (n, d_in)."""
        tokens = self._questions()
        seen: dict[Site, Matrix] = {}

        def note(site: Site) -> Callable[..., None]:
            def hook(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
                seen[site] = inputs[0].reshape(-1, inputs[0].shape[-1]).double().numpy()

            return hook

        with self.applied(delta) as model, ExitStack() as hooks, torch.no_grad():
            for site in sites:
                handle = self.module(site).register_forward_pre_hook(note(site))
                hooks.callback(handle.remove)
            model(input_ids=tokens, use_cache=False)
        return seen

    def streams(self, delta: Delta) -> dict[Site, Matrix]:
        """The residual stream behind each site that writes to it, at the same positions, (n, d)."""
        attention, norm, last = (
            ("attn.c_proj", "ln_2", "mlp.c_proj")
            if self.transposed
            else ("self_attn.o_proj", "post_attention_layernorm", "mlp.down_proj")
        )
        tokens = self._questions()
        seen: dict[Site, Matrix] = {}

        def note(site: Site, of_input: bool) -> Callable[..., None]:
            def hook(_module: object, inputs: object, output: object) -> None:
                value = inputs if of_input else output
                while isinstance(value, tuple):
                    value = value[0]
                assert isinstance(value, torch.Tensor)
                seen[site] = value.reshape(-1, value.shape[-1]).double().numpy()

            return hook

        with self.applied(delta) as model, ExitStack() as hooks, torch.no_grad():
            for layer in range(self.spec.model.layers):
                block = f"{self.prefix}.{layer}"
                for name, site, of_input in (
                    (f"{block}.{norm}", Site(layer, attention), True),
                    (block, Site(layer, last), False),
                ):
                    module = model.get_submodule(name)
                    hooks.callback(module.register_forward_hook(note(site, of_input)).remove)
            model(input_ids=tokens, use_cache=False)
        return seen

    def _questions(self) -> torch.Tensor:
        questions = self.world.all_questions(range(self.world.spec.domains)).in_paraphrase(0)
        return torch.from_numpy(prompts(self.world, questions))

    @cached_property
    def moments(self) -> Mapping[Site, Matrix]:
        """E[x x^T] of each site's inputs in the base, (d_in, d_in)."""
        return {
            site: inputs.T @ inputs / len(inputs)
            for site, inputs in self.inputs({}, self.sites).items()
        }

    def scan(self, *parts: Delta, packs: Sequence[Signature] = ()) -> ScanResult:
        """Scans an adapter from its files; several are summed as `scan --compose` does.

        Args:
            parts: The adapter.
            packs: The packs to scan with; all of the base's if there are none.
        """
        return scan_deltas(parts, self.spec.id, self.prefix, self.transposed, packs or self.packs)

    def opened(self, *parts: Delta) -> AbstractContextManager[Adapter]:
        """An adapter as the scanner opens it, or several of them summed."""
        return opened(parts, self.spec.id, self.prefix, self.transposed)


def scan_deltas(
    parts: Sequence[Delta],
    base_model: str,
    prefix: str,
    transposed: bool,
    packs: Sequence[Signature],
) -> ScanResult:
    """Writes adapters as PEFT would, and scans them from their files.

    Args:
        parts: The adapters; several are summed.
        base_model: What they name as base.
        prefix: What the base's modules have before the number of their block.
        transposed: Whether the base's weights are stored (d_in, d_out).
        packs: The packs to scan with.
    """
    with opened(parts, base_model, prefix, transposed) as adapter:
        return scan(adapter, signatures=list(packs), jobs=1)


@contextmanager
def opened(
    parts: Sequence[Delta], base_model: str, prefix: str, transposed: bool
) -> Iterator[Adapter]:
    """Writes adapters as PEFT would and opens them, summed if there are several.

    Args:
        parts: The adapters.
        base_model: What they name as base.
        prefix: What the base's modules have before the number of their block.
        transposed: Whether the base's weights are stored (d_in, d_out).
    """
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        adapters = []
        for index, part in enumerate(parts):
            directory = Path(scratch) / str(index)
            save(part, directory, base_model, prefix, transposed)
            adapters.append(stack.enter_context(open_adapter(directory)))
        yield adapters[0] if len(adapters) == 1 else compose(adapters)
