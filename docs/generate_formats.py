"""Writes docs/formats.md from the readers' own notes: python docs/generate_formats.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scanner.formats import checkpoint, limits
from scanner.formats.readers import READERS
from scanner.formats.readers.notes import CanonNote, FormatNote
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

CANONICAL = """
## Canonical adapters

A reader that understands more than a loader does is as dangerous as one that understands less: an
adapter could hold tensors that are judged and never run. An adapter is *canonical* if the names,
shapes and set of its tensors, and every field of its config, are exactly what the library that
writes the format makes of them and reads back. `clear` needs that. Whatever departs from it is
uncovered, with the loader that would load something else; it is still read where that is
possible, so that it can be flagged.

For PEFT adapters that means: names letter by letter as `save_pretrained` writes them, both factors
of every module that the file names, no tensor that this config makes no layer for
(`target_modules`, `exclude_modules`, `layers_to_transform`), shapes that fit the config's ranks,
patterns that every version applies alike, and no field with a value that changes the delta in a
way not recovered here. `scanner/formats/canon` has the rules, with a table of every field.

A loader that multiplies the whole adapter by one common factor, positive and not above 1, adds
the same direction and no more of it, and changes no verdict (rsLoRA in SGLang). A version of a
library that refuses the file adds nothing, and is no difference either.

| format | canonical | otherwise | loaders |
|---|---|---|---|
{canon}
| loader | how its behaviour is known |
|---|---|
| PEFT 0.21 | run: merged weights minus base weights, also on adapters changed at random \
(`tests/differential`) |
| PEFT 0.13 | run, in an environment of its own |
| PEFT 0.6 to 0.20 | read: how patterns, targets and initialisations are looked up |
| transformers, `load_adapter` | run |
| vLLM up to 0.30 | read: `vllm/lora/peft_helper.py`, `vllm/lora/lora_model.py`, \
`vllm/lora/utils.py` |
| SGLang up to 0.5.23 | read: `sglang/srt/lora/`, `sglang/srt/model_loader/loader.py` |
| llama.cpp | its converter's output is a test (`GGUF LoRA` above); otherwise read: \
`convert_lora_to_gguf.py`, `src/llama-adapter.h` |
| mlx-lm up to 0.32.2 | read: `mlx_lm/tuner/utils.py`, `mlx_lm/tuner/lora.py` |
| others (text-generation-inference, LoRAX, TensorRT-LLM ...) | neither run nor read: not part \
of what `clear` says |

The loaders that were read are small models in `tests/differential/loader_models.py`, each with the
file and version it was taken from.

## Names of bases and modules

- A base model is known by its name without owner, quantisation, revision and file type, also
  from the caches of the Hugging Face Hub, ModelScope and Kaggle. Shapes alone decide nothing,
  since base and instruct models share them. What is not known to be packaging names another
  model: `-Instruct`, `-merged`, a version, a training step. A folder that many models are kept in
  (`checkpoint-500`) counts with its whole path.
- Blocks of a language model have the same sites wherever a larger model keeps it
  (`model.language_model.`, `model.text_model.`, `llm.`, `thinker.` ...) and whether or not it has a
  head. Blocks of anything else (a vision tower, a talker, a model whose paths are not known)
  are read and shown, and are uncovered: they belong to no known layer.
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


def _canon() -> Iterator[CanonNote]:
    for reader in READERS:
        yield from getattr(reader, "CANON", ())


def _notes() -> Iterator[FormatNote]:
    for reader in READERS:
        yield from getattr(reader, "NOTES", ())
    yield from checkpoint.NOTES


def render() -> str:
    """The page."""
    rows = "".join(_row(*note) for note in sorted(_notes()))
    canon = "".join(_row(*note) for note in sorted(_canon()))
    reasons = "".join(_row(f"`{name}`", why) for name, why in sorted(REASONS.items()))
    return HEAD + rows + UNSUPPORTED + reasons + CANONICAL.replace("{canon}", canon) + FILES


if __name__ == "__main__":
    PAGE.write_text(render())
