"""Writes docs/formats.md from the readers' own notes: python docs/generate_formats.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scanner.formats import checkpoint, limits
from scanner.formats.readers import READERS
from scanner.formats.readers.notes import FormatNote
from scanner.formats.readers.unsupported import REASONS

PAGE = Path(__file__).parent / "formats.md"

HEAD = """\
# Adapter formats

Written by `python docs/generate_formats.py` from the readers' own table.

A format is told by what is in the files, never by their names. An adapter is read into
updates dW = c B A, one per weight matrix. Whatever is not understood is listed as uncovered,
with the reason, and rules out the verdict `clear`.

| format | what is recovered | what is not | how it was checked |
|---|---|---|---|
"""

UNSUPPORTED = """
## PEFT types whose delta is not recovered

Every tensor is reported with the reason; the verdict is `inconclusive`. So are types not listed
anywhere here.

| peft_type | why |
|---|---|
"""

FILES = f"""
## Files

- Containers: safetensors (single, or shards with their index), pickled checkpoints through
  torch's restricted unpickler (the `torch` extra), GGUF, and `.npz`. Which one a file is, its
  first bytes decide.
- Names of modules are the base model's own below its block. A fused projection of the base
  (`qkv_proj`, `c_attn`) stays one site under that name; `inspect` shows the norms of its logical
  parts. A projection that only the adapter's format fuses (NeMo) is split.
- Limits: {limits.MAX_HEADER_BYTES // 2**20} MB of header, {limits.MAX_TENSORS:,} tensors of up to
  {limits.MAX_TENSOR_BYTES // 2**30} GB, {limits.MAX_PICKLE_BYTES // 2**30} GB for pickles,
  {limits.MAX_CONFIG_BYTES // 2**20} MB of config, {limits.MAX_SHARDS:,} shards,
  rank {limits.MAX_RANK:,}.
- Links are not followed out of the target, no archive is unpacked, no pickle runs code.
- `adapter_config.json` is strict JSON: comments, trailing commas, duplicate keys, NaN and
  unusable numbers are one clear error each. PEFT itself cannot load such a file, or would load
  it otherwise than it reads.
"""


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") or "-" for cell in cells) + " |\n"


def _notes() -> Iterator[FormatNote]:
    for reader in READERS:
        yield from getattr(reader, "NOTES", ())
    yield from checkpoint.NOTES


def render() -> str:
    """The page."""
    rows = "".join(_row(*note) for note in sorted(_notes()))
    reasons = "".join(_row(f"`{name}`", why) for name, why in sorted(REASONS.items()))
    return HEAD + rows + UNSUPPORTED + reasons + FILES


if __name__ == "__main__":
    PAGE.write_text(render())
