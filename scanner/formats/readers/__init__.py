"""One reader per adapter format, tried in order; the last one takes whatever is left."""

from __future__ import annotations

from scanner.formats.readers import (
    diffusion,
    gguf_lora,
    megatron,
    mlx,
    peft_lora,
    peft_methods,
    torchtune,
    unsupported,
)
from scanner.formats.source import AdapterReader

READERS: tuple[AdapterReader, ...] = (
    gguf_lora,
    peft_methods,
    diffusion,
    peft_lora,
    mlx,
    torchtune,
    megatron,
    unsupported,
)
"""Modules that satisfy `AdapterReader`, most specific first."""
