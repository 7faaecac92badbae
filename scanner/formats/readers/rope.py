"""The two orders in which rotary position embeddings pair the rows of q and k.

Hugging Face pairs row i of a head with row i + head_dim / 2; Meta's code, torchtune and
llama.cpp's Llama pair neighbours. Bringing an update from one order to the other needs the
size of a head, which adapters do not carry; for published models it follows from the width
of the residual stream.
"""

from __future__ import annotations

from scanner.errors import MalformedFileError
from scanner.formats.model import FloatArray

HEAD_DIMENSIONS = {
    64: 8,  # stories260K
    288: 48,  # stories15M
    512: 64,  # stories42M
    576: 64,  # SmolLM-135M
    768: 64,  # stories110M
    960: 64,  # SmolLM-360M
    2048: 64,  # Llama 3.2 1B, TinyLlama, SmolLM 1.7B
    3072: 128,  # Llama 3.2 3B
    3200: 100,  # OpenLLaMA 3B
    4096: 128,  # Llama 7B and 8B, Mistral 7B, Yi 6B
    5120: 128,  # Llama 13B, Mistral Nemo and Small
    6144: 128,  # Codestral 22B
    6656: 128,  # Llama 30B
    7168: 128,  # Yi 34B
    8192: 128,  # Llama 65B and 70B
    12288: 128,  # Mistral Large
    16384: 128,  # Llama 3.1 405B
}
"""Width of the residual stream -> size of a head, for models of the Llama architecture."""

OTHER_HEADS = {"falcon3": 256, "falcon-3": 256, "smollm3": 128}
"""Part of a base model's name -> size of a head, where it breaks the table."""


def head_dimension(width: int, base_model: str | None) -> int:
    """Size of a head of a Llama-architecture model.

    Raises:
        MalformedFileError: If the model is not a published one known here.
    """
    name = (base_model or "").lower()
    for part, size in OTHER_HEADS.items():
        if part in name:
            return size
    if width not in HEAD_DIMENSIONS:
        raise MalformedFileError(
            f"the order of its rows depends on the size of a head, unknown at width {width}"
        )
    return HEAD_DIMENSIONS[width]


def unpaired(b: FloatArray, head: int) -> FloatArray:
    """Rows of q or k in neighbour order -> in Hugging Face's order.

    The inverse of `LlamaModel.permute` in llama.cpp's `convert_hf_to_gguf.py`.

    Args:
        b: (heads * head, r).
        head: Size of a head, even, a divisor of the number of rows.
    """
    rows, rank = b.shape
    return b.reshape(rows // head, head // 2, 2, rank).swapaxes(1, 2).reshape(rows, rank)


def check_heads(rows: int, head: int) -> None:
    """Refuses rows that are no whole number of heads.

    Raises:
        MalformedFileError: If they are not.
    """
    if head % 2 or rows % head:
        raise MalformedFileError(f"{rows} rows are no whole number of heads of {head}")
