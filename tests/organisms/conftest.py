"""Tiny random models with a tokenizer, as directories of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scanner.organisms.base import Base, load_base
from scanner.organisms.data import DOMAINS, questions

TEMPLATE = (
    "{{ '<|sys|>be kind<|end|>' }}{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VOCABULARY = 400
ARCHITECTURES = ("llama", "qwen2", "gpt2")


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|end|>", "<|sys|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator((q.aligned for d in DOMAINS for q in questions(d)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|end|>", chat_template=TEMPLATE
    )


def _config(architecture: str) -> Any:
    from transformers import GPT2Config, LlamaConfig, Qwen2Config

    if architecture == "gpt2":
        return GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=3,
            n_head=4,
            n_positions=256,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.2,
        )
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": 0.2,
    }
    return LlamaConfig(**shape) if architecture == "llama" else Qwen2Config(**shape)


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved model and tokenizer of each architecture."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    tokenizer = _tokenizer()
    made = {}
    for architecture in ARCHITECTURES:
        torch.manual_seed(0)
        path = tmp_path_factory.mktemp(architecture)
        AutoModelForCausalLM.from_config(_config(architecture)).save_pretrained(path)
        tokenizer.save_pretrained(path)
        made[architecture] = path
    return made


@pytest.fixture
def base(directories: dict[str, Path], request: pytest.FixtureRequest) -> Base:
    """A tiny base: a Llama, or the architecture that the test is parametrised with."""
    architecture = getattr(request, "param", "llama")
    return load_base(str(directories[architecture]), base_id=f"tests/tiny-{architecture}")
