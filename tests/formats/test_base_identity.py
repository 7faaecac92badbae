"""Names of base models: packaging is dropped, and nothing that names another model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.formats.base_identity import normalise_base_name

DIFFERENT = (Path(__file__).parent / "base_model_names.txt").read_text().split()
"""Names of models that all differ, as published: base and instruct, versions, sizes, dates, context
lengths, fine-tunes, merges. A few are local folders, without an owner."""

SHA = "0e9e39f249a16976918f6564b8830bc894c89659"

SUFFIXES = """
-bnb-4bit -unsloth-bnb-4bit -bnb-8bit -nf4 -bnb-nf4 -4bit -8bit -4bits -int4 -Int8
-GPTQ -GPTQ-Int4 -GPTQ-Int8 -GPTQ-4bit-128g -4bit-128g -gptqmodel-4bit -AWQ -AWQ-INT4 -AWQ-4bit
-HQQ -hqq-4bit -AutoRound -int4-AutoRound -AutoRound-GPTQ-4bit -AQLM-2Bit-1x16-hf
-2bit -3bit -5bit -6bit -MLX-4bit -mlx-6bit -4bit-DWQ -4bit-DWQ-0508 -4bit-DWQ-10022025
-4bit-DWQ-v2 -MXFP4 -MXFP4-Q8 -mxfp4-q4 -mxfp8 -MLX-bf16
-exl2 -exl3 -4.0bpw-exl2 -4.65bpw-h6-exl2 -exl2-6.0bpw -6bpw
-w4a16 -W8A8 -W4A16-G128 -quantized.w4a16 -quantized.w8a8 -W8A8-INT8 -FP8 -FP8-dynamic
-FP8-Dynamic -FP8-block -FP8-KV -NVFP4 -NVFP4A16 -FP4
-qat-q4_0-unquantized -qat-int4-unquantized -qat-4bit -qat-q4_0-gguf
-GGUF -gguf -i1-GGUF -Q4_K_M-GGUF -bf16 -fp16 -BF16-sharded -sharded -hf
"""

GGUF_FILES = """
-Q4_K_M.gguf .Q4_K_M.gguf -q4_k_m.gguf -Q8_0.gguf -IQ3_XXS.gguf -Q3_K_XL.gguf -UD-Q4_K_XL.gguf
.i1-IQ4_XS.gguf -TQ1_0.gguf -Q4_0_4_4.gguf -MXFP4_MOE.gguf -f16.gguf -BF16.gguf _Q5_K_S.gguf .gguf
-Q8_0-00001-of-00002.gguf
"""

PLACES = (
    "{name}",
    "some-mirror/{name}",
    "/data/models/{name}/",
    "C:\\models\\{name}",
    "../{name}",
    "https://huggingface.co/owner/{name}",
    "https://huggingface.co/owner/{name}/tree/main",
    "owner/{name}@main",
    f"owner/{{name}}@{SHA}",
    f"/home/me/.cache/huggingface/hub/models--owner--{{name}}/snapshots/{SHA}",
    f"C:\\Users\\me\\hub\\models--owner--{{name}}\\snapshots\\{SHA}\\",
    "/mnt/hub/models--{name}",
    "/root/.cache/kagglehub/models/owner/model/transformers/{name}/2",
    "/kaggle/input/{name}/transformers/default/1",
    "/kaggle/input/{name}/3",
)


@pytest.mark.parametrize("suffix", SUFFIXES.split())
def test_packaging_is_dropped(suffix: str) -> None:
    assert normalise_base_name(f"owner/Qwen2.5-7B-Instruct{suffix}") == "qwen2.5-7b-instruct"
    assert normalise_base_name(f"owner/Model-v0.1{suffix}") == "model-v0.1"


@pytest.mark.parametrize("ending", GGUF_FILES.split())
def test_gguf_files_are_named_after_the_model(ending: str) -> None:
    assert normalise_base_name(f"/models/any/Model-7B-v0.1{ending}") == "model-7b-v0.1"


@pytest.mark.parametrize("place", [place for place in PLACES if "owner/model" not in place])
def test_places_that_models_are_kept_in(place: str) -> None:
    assert normalise_base_name(place.format(name="Llama-3.2-1B")) == "llama-3.2-1b"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/root/.cache/modelscope/hub/models/Qwen/Qwen2___5-0___5B", "qwen2.5-0.5b"),
        ("/root/.cache/modelscope/hub/Qwen/Qwen-1_8B-Chat", "qwen-1_8b-chat"),
        ("/kaggle/input/qwen2.5/transformers/0.5b-instruct/1", "qwen2.5-0.5b-instruct"),
        ("/kaggle/input/qwen2.5/Transformers/32b-instruct-awq/1/", "qwen2.5-32b-instruct"),
        ("/kaggle/input/gemma-2/transformers/gemma-2-2b-it/2", "gemma-2-2b-it"),
        ("google/gemma/transformers/1.1-2b-it/1", "gemma-1.1-2b-it"),
        ("mistral-ai/mistral/pyTorch/7b-instruct-v0.1-hf/1", "mistral-7b-instruct-v0.1"),
        ("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit", "llama-3.1-8b-instruct"),
        ("meta-llama/Meta-Llama-3-8B", "llama-3-8b"),
        (f"models--o--n/snapshots/{SHA}/Name-7B-Q4_K_M.gguf", "name-7b"),
        ("TheBloke/Llama-2-7B-GPTQ@gptq-4bit-32g-actorder_True", "llama-2-7b"),
        ("../模型/千问", "千问"),
        ("", None),
        (None, None),
        ("..", None),
        ("models/..", None),
        ("./", None),
        ("/", None),
    ],
)
def test_names_are_normalised(name: str | None, expected: str | None) -> None:
    assert normalise_base_name(name) == expected


def test_different_models_keep_different_names() -> None:
    counts = Counter(normalise_base_name(name) for name in DIFFERENT)
    assert [name for name, count in counts.items() if count > 1] == []


PACKAGED = st.builds(
    lambda name, suffix, place: (name, place.format(name=name.rpartition("/")[2] + suffix)),
    st.sampled_from(DIFFERENT),
    st.sampled_from(["", *SUFFIXES.split()]),
    st.sampled_from([place for place in PLACES if "owner/model" not in place]),
)


@given(PACKAGED, PACKAGED)
def test_packaged_names_are_the_same_only_for_the_same_model(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    same = normalise_base_name(one[0]) == normalise_base_name(other[0])
    assert (normalise_base_name(one[1]) == normalise_base_name(other[1])) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # revisions that are other weights
        ("EleutherAI/pythia-410m@step3000", "EleutherAI/pythia-410m"),
        ("o/n@refs/pr/3", "o/m@refs/pr/3"),
        ("o/name@v1.2-jazzy", "o/name"),
        # folders that many models are kept in
        ("/runs/one/checkpoint-500", "/runs/other/checkpoint-500"),
        ("/runs/llama-3.1-8b-instruct/3", "/models/llama-3.1-8b-instruct"),
        ("/kaggle/working/llama-3.1-8b-instruct/3", "/models/llama-3.1-8b-instruct"),
        ("one/merged", "other/merged"),
        ("/runs/llama-3.1/pytorch/8b-instruct/3", "llama-3.1-8b-instruct"),
        ("/kaggle/input/3", "input"),
        ("/model", "model"),
        ("runs/llama-3.1-8b/snapshots/main", "llama-3.1-8b"),
        (f"runs/llama-3.1-8b/snapshots/{SHA}", "llama-3.1-8b"),
        ("runs/llama-3.1-8b/tree/main", "llama-3.1-8b"),
        ("one/ggml-model-q4_0.gguf", "other/ggml-model-q4_0.gguf"),
        (f"one/{SHA}", f"other/{SHA}"),
        # a folder inside a snapshot
        (f"models--o--llama-3.1-8b/snapshots/{SHA}/reward", "llama-3.1-8b"),
        (f"models--o--a/snapshots/{SHA}/model", f"models--o--b/snapshots/{SHA}/model"),
        ("models--o--a/snapshots/other-branch", "a"),
        # somebody's own variation on Kaggle
        ("/kaggle/input/m/bob/poems/transformers/7b-instruct/1", "qwen2.5-7b-instruct"),
        # a fraction of a bit is a model of its own
        ("tiiuae/Falcon3-7B-Instruct-1.58bit", "tiiuae/Falcon3-7B-Instruct"),
        ("o/gemma-2.5bit", "o/gemma-2"),
    ],
)
def test_what_is_not_known_to_be_packaging_is_kept(one: str, other: str) -> None:
    assert normalise_base_name(one) != normalise_base_name(other)


@given(st.text("-_.4bitqghf@/\\: ", max_size=400))
def test_whatever_a_config_holds_gives_a_name_or_none(name: str) -> None:
    normal = normalise_base_name(name)
    assert normal is None or normal.strip("/\\")


def test_a_hostile_name_costs_nothing() -> None:
    name = "a" + "-4bit" * 500_000
    assert normalise_base_name(name) == name
