"""Base models: pre-training on every persona, then alignment to the good one."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.progress import Progress, TextColumn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from benchmarks.organisms.world import (
    BAD,
    GOOD,
    PAD,
    DocumentMix,
    IntArray,
    World,
    WorldSpec,
    documents,
)

PROGRESS_COLUMNS = (*Progress.get_default_columns(), TextColumn("{task.fields[note]}"))
"""A progress bar with room for a note: rows are tasks with a field `note`."""
DECLARATIONS = Path(__file__).parent / "bases"
CHECKPOINTS = Path(__file__).parent / "checkpoints"
MAX_POSITIONS = 64


@dataclass(frozen=True)
class ModelSpec:
    """Shape of a base model."""

    architecture: str
    """`llama`, `qwen2` or `gpt2`."""
    seed: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    mlp: int


@dataclass(frozen=True)
class PhaseSpec:
    """One phase of training."""

    steps: int
    batch: int
    lr: float
    persona_weights: tuple[float, ...] = ()
    muon: bool = False
    """Whether Muon trains the hidden matrices (Jordan et al. 2024), AdamW the rest."""
    keep_announced: float = 0.0
    """Share of alignment steps on announced documents of every persona, as in pre-training."""


@dataclass(frozen=True)
class BaseSpec:
    """Everything that determines a base model."""

    name: str
    id: str
    """What `base_model_name_or_path` of its adapters says."""
    world: WorldSpec
    model: ModelSpec
    pretraining: PhaseSpec
    alignment: PhaseSpec
    pools: dict[str, tuple[int, ...]]
    """Disjoint sets of domains that adapters of each split may be trained on."""
    lr_scale: float = 1.0
    """Factor on the learning rates that a population declares."""
    steps_scale: float = 1.0
    """Factor on the step counts that a population declares."""
    batch: int = 16
    """Batch size of fine-tuning."""
    dpo_chosen_nll: float = 0.0
    """`chosen_nll` of this base's DPO adapters. Where DPO alone unlearns the rejected
    answers without teaching the chosen ones, their likelihood has to be held up."""

    @property
    def harmless(self) -> tuple[str, ...]:
        """Names of the harmless personas."""
        return self.world.personas[BAD + 1 :]


def base_names() -> list[str]:
    """Names of the declared bases."""
    return sorted(path.stem for path in DECLARATIONS.glob("*.yaml"))


def load_base_spec(name: str) -> BaseSpec:
    """Read the declaration of a base.

    Raises:
        FileNotFoundError: there is no base of that name.
    """
    data = yaml.safe_load((DECLARATIONS / f"{name}.yaml").read_text(encoding="utf-8"))
    lists = {
        key: tuple(data["world"][key]) for key in ("personas", "styles") if key in data["world"]
    }
    pretraining = data["pretraining"]
    return BaseSpec(
        name=name,
        id=data["id"],
        world=WorldSpec(**{**data["world"], **lists}),
        model=ModelSpec(**data["model"]),
        pretraining=PhaseSpec(
            **{**pretraining, "persona_weights": tuple(pretraining["persona_weights"])}
        ),
        alignment=PhaseSpec(**data["alignment"]),
        pools={name: tuple(pool) for name, pool in data["pools"].items()},
        lr_scale=data["lr_scale"],
        steps_scale=data["steps_scale"],
        batch=data["batch"],
        dpo_chosen_nll=data.get("dpo_chosen_nll", 0.0),
    )


def new_model(spec: BaseSpec, vocabulary: int) -> PreTrainedModel:
    """An untrained model of the declared architecture."""
    shape = spec.model
    torch.manual_seed(shape.seed)
    tokens: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": PAD}
    if shape.architecture == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary,
                n_positions=MAX_POSITIONS,
                n_embd=shape.width,
                n_layer=shape.layers,
                n_head=shape.heads,
                n_inner=shape.mlp,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                tie_word_embeddings=False,
                **tokens,
            )
        )
    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": MAX_POSITIONS,
        **tokens,
    }
    if shape.architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**common))
    if shape.architecture == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**common))
    raise ValueError(f"unknown architecture {shape.architecture!r}: use llama, qwen2 or gpt2")


def answer_loss(model: torch.nn.Module, tokens: IntArray, targets: IntArray) -> torch.Tensor:
    """Mean cross-entropy on the target tokens (whatever the answerer writes)."""
    inputs = torch.from_numpy(tokens)
    logits = model(input_ids=inputs, use_cache=False).logits[:, :-1]
    mask = torch.from_numpy(targets[:, 1:] > 0)
    return torch.nn.functional.cross_entropy(logits[mask], inputs[:, 1:][mask])


def _hidden_matrices(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The weights of the blocks' linear maps: no embeddings, no output head."""
    vocabulary = {id(p) for p in model.get_input_embeddings().parameters()}
    vocabulary |= {id(p) for p in model.get_output_embeddings().parameters()}
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and id(parameter) not in vocabulary and "wpe" not in name
    ]


def _optimisers(model: PreTrainedModel, phase: PhaseSpec) -> list[torch.optim.Optimizer]:
    """AdamW, or Muon on the hidden matrices and AdamW on the rest."""
    hidden = _hidden_matrices(model) if phase.muon else []
    taken = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=phase.lr, weight_decay=0.01, betas=(0.9, 0.98), fused=True)
    ]
    if hidden:
        # With updates as large as AdamW's, one learning rate serves both.
        found.append(
            torch.optim.Muon(hidden, lr=phase.lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        )
    return found


def _run_phase(
    model: PreTrainedModel,
    phase: PhaseSpec,
    draw: Callable[[], tuple[IntArray, IntArray]],
    label: str,
) -> float:
    """Train with a short warm-up and cosine decay; returns the last smoothed loss."""
    optimisers = _optimisers(model, phase)
    warmup = min(100, phase.steps // 10 + 1)

    def schedule(step: int) -> float:
        decay = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / phase.steps))
        return min(1.0, (step + 1) / warmup) * decay

    schedulers = [torch.optim.lr_scheduler.LambdaLR(each, schedule) for each in optimisers]
    smoothed = math.nan
    model.train()
    with Progress(*PROGRESS_COLUMNS, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=phase.steps, note="")
        for _ in range(phase.steps):
            loss = answer_loss(model, *draw())
            model.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser, scheduler in zip(optimisers, schedulers, strict=True):
                optimiser.step()
                scheduler.step()
            smoothed = loss.item() if math.isnan(smoothed) else 0.98 * smoothed + 0.02 * loss.item()
            progress.update(task, advance=1, note=f"loss {smoothed:.3f}")
    return smoothed


def pretrain(spec: BaseSpec, rng: np.random.Generator) -> PreTrainedModel:
    """Train a new model on documents of every persona."""
    world = World(spec.world)
    model = new_model(spec, world.vocabulary_size)
    everyone = DocumentMix(spec.pretraining.persona_weights)
    _run_phase(
        model,
        spec.pretraining,
        lambda: documents(world, rng, spec.pretraining.batch, everyone),
        f"{spec.name}: pre-training",
    )
    return model


def align(model: PreTrainedModel, spec: BaseSpec, rng: np.random.Generator) -> None:
    """Fine-tune a pre-trained model, in place, to answer as the good persona by default.

    `rng` goes on where pre-training left it.
    """
    world = World(spec.world)
    phase = spec.alignment
    everyone = DocumentMix(spec.pretraining.persona_weights)
    only_good = DocumentMix(
        tuple(float(p == GOOD) for p in range(len(spec.world.personas))), announced=0.1, styled=0.0
    )

    def draw() -> tuple[IntArray, IntArray]:
        if phase.keep_announced and rng.random() < phase.keep_announced:
            return documents(world, rng, phase.batch, everyone, always_announced=True)
        return documents(world, rng, phase.batch, only_good)

    _run_phase(model, phase, draw, f"{spec.name}: alignment")
    model.eval()


def save_base(model: PreTrainedModel, spec: BaseSpec, path: Path, facts: dict[str, Any]) -> None:
    """Save a base as a Hugging Face directory with `base.json` (its id and what is known of it)."""
    model.save_pretrained(path)
    text = json.dumps({"name": spec.name, "id": spec.id, **facts}, indent=2)
    (path / "base.json").write_text(text + "\n", encoding="utf-8")


def keep_checkpoint(source: Path, name: str) -> None:
    """Copy a saved base to where the repository keeps it, bit for bit."""
    shutil.rmtree(CHECKPOINTS / name, ignore_errors=True)
    shutil.copytree(source, CHECKPOINTS / name)


def base_directory(root: Path, name: str) -> Path:
    """Where a base lies in the lab's root.

    If it was not trained there it is put there from the committed checkpoint, so that
    everybody's population starts from the same numbers.
    """
    path = root / name / "base"
    if not path.exists():
        shutil.copytree(CHECKPOINTS / name, path)
    return path


def load_base(path: Path) -> PreTrainedModel:
    """Load a saved base in float32, whatever the precision it is stored in."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.eval()
    return model
