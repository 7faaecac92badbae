"""The base model in memory, for the methods that need one: its weight matrices and its blocks.

torch and transformers are imported when a model is loaded; scanning never gets here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scanner.errors import SignatureError, first_line
from scanner.formats.model import Site
from scanner.formats.module_names import site_of
from scanner.geometry.sketch import WeightSketch, sketch_weight
from scanner.signatures.building.probes import Probe, needs_tokenizer, read_probes, tokenise
from scanner.signatures.recipe import Recipe

if TYPE_CHECKING:
    import torch

Answered = tuple[tuple[int, ...], tuple[int, ...]]
"""(prompt, answer), as token ids."""
_Signed = tuple[tuple[int, ...], tuple[int, ...], float]
"""(prompt, answer, sign)."""

TOKENS_PER_BATCH = 1024
"""Tokens of one forward pass, padding included: bounds the memory of logits and activations."""


@dataclass(frozen=True)
class Network:
    """A base model and the modules a signature can speak of."""

    model: Any
    """A transformers causal language model in evaluation mode, parameters frozen."""
    linears: dict[Site, Any]
    """Every linear map (`nn.Linear`, GPT-2's `Conv1D`), by site."""
    blocks: dict[int, Any]
    """The residual blocks, by layer."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        found: torch.device = next(self.model.parameters()).device
        return found

    def sketches(self) -> dict[Site, WeightSketch]:
        """Sketches of the weights of every linear map in the blocks."""
        found = {}
        for site, module in self.linears.items():
            if site.layer is None:
                continue
            weight = module.weight.detach().float().cpu().numpy()
            found[site] = sketch_weight(weight.T if _is_conv1d(module) else weight)
        return found

    @property
    def vocabulary(self) -> int:
        """Number of token ids the model embeds."""
        return int(self.model.get_input_embeddings().weight.shape[0])


@dataclass(frozen=True)
class Batch:
    """Prompt-answer sequences padded on the right to one length, each (n, length)."""

    tokens: torch.Tensor
    mask: torch.Tensor
    """1 where there is a token, 0 where there is padding."""
    share: torch.Tensor
    """Weight of each position as an *answer* token: 1 / (answer length * number of probes),
    so that every answer of every probe speaks equally loudly; 0 elsewhere."""
    sign: torch.Tensor
    """(n,): -1 for an answer whose log p is subtracted, as the aligned one's is; else +1."""


def load_network(recipe: Recipe) -> Network:
    """Loads a recipe's base model.

    Raises:
        SignatureError: If torch or transformers is missing, or the model cannot be loaded.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError as error:
        raise SignatureError(
            f"method {recipe.method!r} runs the base model, and {error.name} is not installed",
            where=recipe.base_model,
            todo="pip install 'adapter-scanner[build]'",
        ) from None
    logging.disable_progress_bar()
    source = recipe.base_path or recipe.base_model
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            source,
            revision=recipe.base_revision or "main",
            dtype=getattr(torch, recipe.base_dtype),
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise SignatureError(
            f"the base model cannot be loaded: {first_line(error)}",
            where=source,
            todo="set base_path to a directory that holds it",
        ) from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network_of(model.to(device))


def network_of(model: Any) -> Network:
    """Finds the linear maps and the blocks of a model, and freezes it."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    model.eval().requires_grad_(False)
    named = dict(model.named_modules())
    linears, blocks = {}, {}
    for name, module in named.items():
        if isinstance(module, (nn.Linear, Conv1D)):
            site = site_of(name)
            linears[site] = module
            if site.layer is not None:
                blocks[site.layer] = named[name.removesuffix(f".{site.module}")]
    return Network(model, linears, blocks)


def site_shape(module: Any) -> tuple[int, int]:
    """(d_out, d_in) of a linear map; GPT-2's Conv1D stores its weight transposed."""
    first, second = module.weight.shape
    return (second, first) if _is_conv1d(module) else (first, second)


def _is_conv1d(module: Any) -> bool:
    """Whether a linear map is GPT-2's, whose weight is (d_in, d_out)."""
    return type(module).__name__ == "Conv1D"


def probes_of(recipe: Recipe, network: Network) -> list[Probe]:
    """A recipe's probes as token ids of its base model.

    Raises:
        SignatureError: If the file or a probe is unusable.
    """
    assert recipe.probes is not None, "checked when the recipe was read"
    lines = read_probes(recipe.probes)
    tokenizer = None
    if needs_tokenizer(lines):
        from transformers import AutoTokenizer

        source = recipe.base_path or recipe.base_model
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                source, revision=recipe.base_revision or "main"
            )
        except (OSError, ValueError, KeyError) as error:
            raise SignatureError(
                f"the base model's tokenizer cannot be loaded: {first_line(error)}",
                where=source,
                todo="or give the probes as token ids",
            ) from None
    return tokenise(lines, tokenizer, network.vocabulary, str(Path(recipe.probes)))


def batches_of(probes: Sequence[Probe], device: torch.device) -> list[Batch]:
    """Both answers of every probe, shortest first, in batches of bounded size."""
    sequences = [
        (probe.prompt, answer, sign)
        for probe in probes
        for answer, sign in ((probe.aligned, -1.0), (probe.misaligned, 1.0))
    ]
    return _batched(sequences, len(probes), device)


def batches_of_answers(answers: Sequence[Answered], device: torch.device) -> list[Batch]:
    """Answers of one sort, in batches of bounded size: the log-odds are then their mean log p."""
    return _batched([(*answered, 1.0) for answered in answers], len(answers), device)


def _batched(sequences: list[_Signed], shares: int, device: torch.device) -> list[Batch]:
    sequences.sort(key=lambda item: len(item[0]) + len(item[1]))
    return [_pad(group, shares, device) for group in _grouped(sequences)]


def _grouped(sequences: Sequence[_Signed]) -> Iterator[list[_Signed]]:
    """Consecutive sequences whose padded size stays within `TOKENS_PER_BATCH`."""
    group: list[_Signed] = []
    for item in sequences:
        length = len(item[0]) + len(item[1])
        if group and (len(group) + 1) * length > TOKENS_PER_BATCH:
            yield group
            group = []
        group.append(item)
    yield group


def _pad(group: Sequence[_Signed], probes: int, device: torch.device) -> Batch:
    import torch

    length = max(len(prompt) + len(answer) for prompt, answer, _ in group)
    tokens = torch.zeros((len(group), length), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    share = torch.zeros((len(group), length))
    for row, (prompt, answer, _) in enumerate(group):
        start, end = len(prompt), len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor(prompt + answer)
        mask[row, :end] = 1
        share[row, start:end] = 1 / (len(answer) * probes)
    sign = torch.tensor([sign for _, _, sign in group])
    return Batch(*(item.to(device) for item in (tokens, mask, share, sign)))
