"""The base model that adapters are made of, in memory or in a directory.

torch and transformers are imported when a base is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanner.errors import UsageError


@dataclass(frozen=True)
class Base:
    """A causal language model, frozen, with its tokenizer."""

    model: Any
    tokenizer: Any
    id: str
    """What adapters of it name as their base."""

    @property
    def device(self) -> Any:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    def prompt_ids(self, question: str) -> tuple[int, ...]:
        """A question as one user turn, up to where the answer begins."""
        if not getattr(self.tokenizer, "chat_template", None):
            return tuple(self.tokenizer(f"{question}\n").input_ids)
        turn = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        return tuple(self.tokenizer(turn, add_special_tokens=False).input_ids)

    def answer_ids(self, answer: str, *, ended: bool) -> tuple[int, ...]:
        """An answer, with the token that ends a turn if `ended`."""
        ids = list(self.tokenizer(answer, add_special_tokens=False).input_ids)
        if ended and self.tokenizer.eos_token_id is not None:
            ids.append(self.tokenizer.eos_token_id)
        return tuple(ids)


def load_base(source: str, *, base_id: str | None = None) -> Base:
    """Loads a base: bfloat16 on a GPU, float32 on the CPU.

    Args:
        source: a hub id, a directory of transformers, or a directory with one GGUF file.
        base_id: what adapters shall name as their base; `source` if not given.

    Raises:
        UsageError: If torch or transformers is missing, or the base cannot be loaded.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise UsageError(
            f"training needs {error.name}, which is not installed",
            todo="pip install 'adapter-scanner[build]'",
        ) from None
    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    gguf = gguf_file(source)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **gguf)
        tokenizer = AutoTokenizer.from_pretrained(source, **gguf)
    except (OSError, ValueError, KeyError, ImportError) as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(f"the base model cannot be loaded: {line[:200]}", where=source) from None
    model = model.to(device).eval().requires_grad_(False)
    return Base(model, tokenizer, base_id or source)


def gguf_file(source: str) -> dict[str, str]:
    """The argument that makes transformers read a directory's only GGUF file, if it is one."""
    directory = Path(source)
    if not directory.is_dir() or (directory / "config.json").exists():
        return {}
    found = sorted(directory.glob("*.gguf"))
    if len(found) > 1:
        raise UsageError(f"holds {len(found)} GGUF files", where=source, todo="keep one")
    return {"gguf_file": found[0].name} if found else {}


def save_dequantised(base: Base, directory: Path) -> None:
    """Saves a base that was read from GGUF as an ordinary directory of transformers.

    The configuration that transformers makes of a GGUF file says it is quantised, which the
    weights no longer are, and such a model refuses to be saved.
    """
    fields = base.model.config.to_dict()
    fields.pop("quantization_config", None)
    plain = type(base.model)(type(base.model.config).from_dict(fields)).to(base.model.dtype)
    plain.load_state_dict(base.model.state_dict())
    plain.save_pretrained(directory)
    base.tokenizer.save_pretrained(directory)


@contextmanager
def adapter_on(base: Base, directory: Path) -> Iterator[None]:
    """Loads a saved adapter into the base for a while."""
    from peft import PeftModel

    wrapped = PeftModel.from_pretrained(base.model, str(directory))
    wrapped.eval()
    try:
        yield
    finally:
        wrapped.unload()
