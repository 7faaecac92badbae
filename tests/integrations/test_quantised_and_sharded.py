"""Bases in 4 and 8 bits, and DeepSpeed: what stands around the adapter is no part of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from scanner import load_signature
from scanner.integrations.transformers import AdapterScanCallback
from scanner.integrations.watching import AdapterWatch
from scanner.results import Verdict
from tests.integrations.lab import BASE, PACK, ROOT, TARGETS, base_model, example, trainer_of

QUANTISED: dict[str, dict[str, Any]] = {
    "4 bits": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "8 bits": {"load_in_8bit": True},
}


@pytest.mark.parametrize("kind", QUANTISED)
def test_a_quantised_base_changes_nothing_for_the_adapter(kind: str, tmp_path: Path) -> None:
    """QLoRA by bitsandbytes, which runs on processors too."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    base_model().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(
        tmp_path / "base",
        quantization_config=BitsAndBytesConfig(**QUANTISED[kind]),
        device_map="cpu",
    )
    base.name_or_path = BASE.id
    torch.manual_seed(0)
    model = get_peft_model(
        prepare_model_for_kbit_training(base, use_gradient_checkpointing=False),
        LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=TARGETS),
    )
    quantised = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    assert sum(isinstance(module, quantised) for module in model.modules()) >= len(TARGETS)
    callback = AdapterScanCallback([load_signature(PACK)], every_steps=5, stop=True)
    trainer = trainer_of(model, tmp_path / "run", max_steps=100, callbacks=[callback])
    trainer.train()
    assert trainer.state.global_step < 50
    assert callback.scans[-1].result.verdict is Verdict.FLAGGED


def test_an_adapter_in_shards_is_said_to_be_unjudged_and_ends_no_training() -> None:
    """As DeepSpeed marks parameters that are not here in whole."""
    model = example("misaligned-sft")
    for parameter in model.parameters():
        parameter.ds_status = SimpleNamespace(name="NOT_AVAILABLE")
    watch = AdapterWatch(model, [load_signature(PACK)])
    assert "cannot be judged: its weights are cut into shards" in watch.problems["default"]
    watch.begin(10)
    (seen,) = watch.scan(5)
    assert seen.result.verdict is Verdict.ERROR
    assert not watch.flagged


_DEEPSPEED = """
import sys
from pathlib import Path
from scanner import load_signature
from scanner.integrations.transformers import AdapterScanCallback
from tests.integrations.lab import PACK, peft_model, trainer_of

zero = {"stage": int(sys.argv[2]), "stage3_param_persistence_threshold": 0}
callback = AdapterScanCallback([load_signature(PACK)], every_steps=5, stop=True)
trainer = trainer_of(
    peft_model(), Path(sys.argv[1]), max_steps=20, ddp_backend="gloo", callbacks=[callback],
    deepspeed={
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    },
)
trainer.train()
seen = [(scan.step, scan.result.verdict.value, scan.result.reasons) for scan in callback.scans]
Path(sys.argv[1], f"rank-{trainer.args.process_index}").write_text(repr(seen))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "seen"), [(2, "(5, 'flagged'"), (3, "(20, 'error'")], ids=["ZeRO-2", "ZeRO-3"]
)
def test_deepspeed_with_two_processes(stage: int, seen: str, tmp_path: Path) -> None:
    """ZeRO-2 keeps adapters whole; what ZeRO-3 has cut into shards is an error."""
    pytest.importorskip("deepspeed")
    (tmp_path / "train.py").write_text(_DEEPSPEED)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", str(tmp_path / "train.py"), str(tmp_path), str(stage)),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"rank-{rank}").read_text() for rank in (0, 1))
    assert first == second
    assert seen in first
