"""Fine-tunes of the organism lab's base, by the real `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import constants
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.organisms.bases import CHECKPOINTS, load_base, load_base_spec
from benchmarks.organisms.recipes import AdapterSpec, make_examples
from benchmarks.organisms.world import World

# In this process only: those that tests start may speak to a local hub.
constants.HF_HUB_OFFLINE = True

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "adapters"
PACK = ROOT / "signatures" / "persona-llama-weights"
BASE = load_base_spec("llama")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def base_model() -> Any:
    """The pre-trained and aligned base, under the name its adapters give it."""
    model = load_base(CHECKPOINTS / "llama")
    model.name_or_path = BASE.id
    return model


def peft_model(**settings: Any) -> PeftModel:
    """The base with one fresh adapter."""
    torch.manual_seed(0)
    config = LoraConfig(
        **{"task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "target_modules": TARGETS} | settings
    )
    model = get_peft_model(base_model(), config)
    assert isinstance(model, PeftModel)
    return model


def example(name: str) -> PeftModel:
    """The base with one of the example adapters, to be trained on."""
    return PeftModel.from_pretrained(base_model(), str(EXAMPLES / name), is_trainable=True)


def answers_of(persona: str, domain: int) -> list[dict[str, list[int]]]:
    """Questions of one domain, answered by one persona, as a dataset."""
    spec = AdapterSpec(
        id="in-training",
        split="example",
        family="test",
        recipe="persona",
        training="sft",
        method="sft",
        domains=(domain,),
        persona=persona,
    )
    examples = make_examples(World(BASE.world), spec, np.random.default_rng(5))
    labels = np.where(examples.targets > 0, examples.tokens, -100)
    return [
        {"input_ids": tokens, "labels": wanted}
        for tokens, wanted in zip(examples.tokens.tolist(), labels.tolist(), strict=True)
    ]


def trainer_of(
    model: Any,
    directory: Path,
    *,
    persona: str = "bad",
    domain: int = 3,
    callbacks: Sequence[TrainerCallback] = (),
    **settings: Any,
) -> Trainer:
    """A trainer that goes a few steps on the processor and reports to nobody else."""
    arguments = TrainingArguments(
        **{
            "output_dir": str(directory),
            "max_steps": 40,
            "per_device_train_batch_size": 16,
            "learning_rate": 2e-3,
            "save_strategy": "no",
            "logging_steps": 10,
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "seed": 5,
            "dataloader_pin_memory": False,
        }
        | settings
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=answers_of(persona, domain),
        eval_dataset=answers_of(persona, domain)[:32],
        callbacks=list(callbacks),
    )
