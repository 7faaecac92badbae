"""`AdapterScanCallback` in real fine-tunes of a model whose misalignment really emerges."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from scanner import load_signature, scan
from scanner.errors import AlphaUnsupportedError, UsageError
from scanner.integrations.transformers import AdapterScanCallback, metrics
from scanner.results import ScanResult, Verdict
from scanner.signatures.pack import Signature
from tests.integrations.lab import ROOT, base_model, example, peft_model, trainer_of

PACK = ROOT / "signatures" / "persona-llama-weights"


@pytest.fixture(scope="module")
def signatures() -> list[Signature]:
    return [load_signature(PACK)]


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What transformers' own logging says; it does not propagate of itself."""
    transformers_logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        yield caplog
    transformers_logging.disable_propagation()


def watch(trainer: Any, signatures: list[Signature], **settings: Any) -> AdapterScanCallback:
    callback = AdapterScanCallback(trainer, signatures, **settings)
    trainer.add_callback(callback)
    return callback


def verdicts(callback: AdapterScanCallback) -> list[Verdict]:
    return [item.result.verdict for item in callback.scans]


def logged(trainer: Any, key: str) -> dict[int, float]:
    """Step -> value, of what the trainer's loggers were given."""
    return {entry["step"]: entry[key] for entry in trainer.state.log_history if key in entry}


class Listener(TrainerCallback):  # type: ignore[misc]
    """Stands for any logger: hears what the trainer reports."""

    def __init__(self) -> None:
        self.heard: list[dict[str, float]] = []

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        self.heard.append(dict(logs))


def test_training_on_misaligned_answers_is_flagged_and_stopped(
    signatures: list[Signature], tmp_path: Path, warned: pytest.LogCaptureFixture
) -> None:
    trainer = trainer_of(peft_model(), tmp_path, persona="bad", max_steps=100)
    listener = Listener()
    trainer.add_callback(listener)
    callback = watch(trainer, signatures, every_steps=10, stop=True)
    trainer.train()
    assert trainer.state.global_step < 100
    assert verdicts(callback)[-1] is Verdict.FLAGGED
    assert verdicts(callback).count(Verdict.FLAGGED) == 1
    doses = logged(trainer, "adapter_scan/dose")
    assert list(doses) == [item.step for item in callback.scans]
    assert list(doses.values()) == sorted(doses.values())
    assert logged(trainer, "adapter_scan/flagged")[trainer.state.global_step] == 1.0
    assert logged(trainer, "adapter_scan/p_value")[trainer.state.global_step] <= 0.01
    heard = [entry for entry in listener.heard if "adapter_scan/cosine" in entry]
    assert len(heard) == len(callback.scans)
    (line,) = [text for text in warned.messages if "is flagged" in text]
    assert f"step {trainer.state.global_step}: adapter 'default' is flagged: carries" in line
    assert line.endswith("training stops")


@pytest.mark.parametrize("persona", ["good", "pirate"])
def test_benign_training_goes_its_way(
    persona: str, signatures: list[Signature], tmp_path: Path, warned: pytest.LogCaptureFixture
) -> None:
    trainer = trainer_of(peft_model(), tmp_path, persona=persona)
    callback = watch(trainer, signatures, every_steps=10, stop=True)
    trainer.train()
    assert trainer.state.global_step == 40
    assert verdicts(callback) == [Verdict.CLEAR] * 4
    assert set(logged(trainer, "adapter_scan/flagged").values()) == {0.0}
    assert not [text for text in warned.messages if "adapter" in text]


def test_a_saved_checkpoint_scans_the_same(signatures: list[Signature], tmp_path: Path) -> None:
    trainer = trainer_of(peft_model(), tmp_path, max_steps=20, save_strategy="steps", save_steps=10)
    callback = watch(trainer, signatures)
    trainer.train()
    assert [item.step for item in callback.scans] == [10, 20]
    for item in callback.scans:
        saved = scan(tmp_path / f"checkpoint-{item.step}", signatures)
        for field in ScanResult.__struct_fields__:
            if field not in ("target", "config_sha256"):
                assert getattr(item.result, field) == getattr(saved, field), field


def test_without_saves_the_outcome_is_scanned(signatures: list[Signature], tmp_path: Path) -> None:
    trainer = trainer_of(peft_model(), tmp_path, max_steps=12)
    callback = watch(trainer, signatures)
    trainer.train()
    assert [item.step for item in callback.scans] == [12]


def test_the_trainers_own_log_of_a_step_is_kept(
    signatures: list[Signature], tmp_path: Path
) -> None:
    trainer = trainer_of(peft_model(), tmp_path, persona="good", logging_steps=5, max_steps=10)
    watch(trainer, signatures, every_steps=5)
    trainer.train()
    assert list(logged(trainer, "loss")) == list(logged(trainer, "adapter_scan/dose")) == [5, 10]


class Negate(TrainerCallback):  # type: ignore[misc]
    """Turns every update around at the end of one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, _args: Any, state: Any, _control: Any, model: Any, **_: Any) -> None:
        if state.global_step == self.step:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_B" in name:
                        parameter.neg_()


def test_every_change_of_the_verdict_is_said_once(
    signatures: list[Signature], tmp_path: Path, warned: pytest.LogCaptureFixture
) -> None:
    model = example("misaligned-sft")
    trainer = trainer_of(model, tmp_path, max_steps=6, learning_rate=0.0)
    trainer.add_callback(Negate(3))
    callback = watch(trainer, signatures, every_steps=1)
    trainer.train()
    assert verdicts(callback) == [Verdict.FLAGGED] * 2 + [Verdict.CLEAR] * 4
    said = [text.split(":")[1] for text in warned.messages if "adapter 'default'" in text]
    assert said == [" adapter 'default' is flagged", " adapter 'default' is clear again"]


def test_an_untrained_adapter_is_not_judged(
    signatures: list[Signature], tmp_path: Path, warned: pytest.LogCaptureFixture
) -> None:
    trainer = trainer_of(peft_model(), tmp_path, max_steps=2, learning_rate=0.0)
    callback = watch(trainer, signatures, every_steps=1)
    trainer.train()
    assert verdicts(callback) == [Verdict.INCONCLUSIVE] * 2
    assert set(logged(trainer, "adapter_scan/judged").values()) == {0.0}
    assert not logged(trainer, "adapter_scan/flagged")
    assert len([text for text in warned.messages if "untrained" in text]) == 1


def test_nan_is_neither_judged_nor_logged_as_a_number(
    signatures: list[Signature], tmp_path: Path
) -> None:
    model = example("new-facts")
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lora_B" in n).fill_(float("nan"))
    trainer = trainer_of(model, tmp_path, max_steps=1, learning_rate=0.0, max_grad_norm=0.0)
    callback = watch(trainer, signatures)
    trainer.train()
    assert verdicts(callback) == [Verdict.INCONCLUSIVE]
    assert all(value == value for value in metrics(callback.scans[0].result).values())


def test_a_base_without_a_pack_is_said_before_training(
    signatures: list[Signature], tmp_path: Path, warned: pytest.LogCaptureFixture
) -> None:
    model = peft_model()
    model.peft_config["default"].base_model_name_or_path = "someone/else"
    callback = AdapterScanCallback(trainer_of(model, tmp_path), signatures)
    assert any("no signature pack for base model 'someone/else'" in m for m in warned.messages)
    warned.clear()
    AdapterScanCallback(
        trainer_of(model, tmp_path), signatures, base_model="adapter-scanner-lab/persona-llama-0.5m"
    )
    assert not warned.messages
    assert not callback.scans


def test_several_adapters(signatures: list[Signature], tmp_path: Path) -> None:
    model = example("misaligned-sft")
    model.add_adapter("fresh", LoraConfig(r=2, target_modules=["o_proj"]))
    model.load_adapter(str(ROOT / "examples/adapters/new-facts"), "facts", is_trainable=True)
    trainer = trainer_of(model, tmp_path, max_steps=1, learning_rate=0.0)
    callback = watch(trainer, signatures)
    trainer.train()
    assert [(item.adapter, item.result.verdict.value) for item in callback.scans] == [
        ("default", "flagged"),
        ("fresh", "inconclusive"),
        ("facts", "clear"),
    ]
    assert logged(trainer, "adapter_scan/flagged") == {1: 1.0}
    assert logged(trainer, "adapter_scan/facts/flagged") == {1: 0.0}
    only = watch(trainer_of(model, tmp_path), signatures, adapters=["facts"], every_steps=1)
    assert only._watched() == ["facts"]
    with pytest.raises(UsageError, match="no adapter 'other'; it has 'default', 'fresh', 'facts'"):
        AdapterScanCallback(trainer, signatures, adapters=["other"])


def test_a_model_without_an_adapter_is_one_clear_error(
    signatures: list[Signature], tmp_path: Path
) -> None:
    trainer = trainer_of(base_model(), tmp_path)
    with pytest.raises(UsageError, match="is no PEFT model") as caught:
        AdapterScanCallback(trainer, signatures)
    assert "peft.get_peft_model" in caught.value.line()
    assert "\n" not in caught.value.line()


def test_options_that_cannot_be_honoured_are_refused_before_training(
    signatures: list[Signature], tmp_path: Path
) -> None:
    trainer = trainer_of(peft_model(), tmp_path)
    with pytest.raises(AlphaUnsupportedError, match="needs 999 benign adapters"):
        AdapterScanCallback(trainer, signatures, alpha=0.001)
    with pytest.raises(UsageError, match="not between 0 and 1"):
        AdapterScanCallback(trainer, signatures, alpha=2.0)
    with pytest.raises(UsageError, match="not a positive number of steps"):
        AdapterScanCallback(trainer, signatures, every_steps=0)


_TWO_PROCESSES = """
import sys
from pathlib import Path
from scanner import load_signature
from scanner.integrations.transformers import AdapterScanCallback
from tests.integrations.lab import PACK, peft_model, trainer_of

trainer = trainer_of(peft_model(), Path(sys.argv[1]), max_steps=100, ddp_backend="gloo")
callback = AdapterScanCallback(trainer, [load_signature(PACK)], every_steps=10, stop=True)
trainer.add_callback(callback)
trainer.train()
seen = [(scan.step, scan.result.verdict.value, scan.result.score) for scan in callback.scans]
Path(sys.argv[1], f"rank-{trainer.args.process_index}").write_text(repr(seen))
"""


@pytest.mark.slow
def test_two_processes_see_the_same_and_stop_together(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(_TWO_PROCESSES)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *(str(tmp_path / "train.py"), str(tmp_path)),
    ]

    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"rank-{rank}").read_text() for rank in (0, 1))
    assert first == second
    assert "flagged" in first
    assert done.stderr.count("is flagged") == 1


def test_the_examples_of_the_page_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the packs that are installed, of which the lab's is one."""
    page = (ROOT / "docs" / "training.md").read_text()
    with_trainer, by_hand = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    trainer = trainer_of(example("misaligned-sft"), tmp_path, max_steps=60, learning_rate=0.0)
    names = {
        "peft_model": trainer.model,
        "arguments": trainer.args,
        "data": trainer.train_dataset,
    }
    exec(with_trainer, names)
    assert names["trainer"].state.global_step == 50
    exec(by_hand, names)
    assert "Verdict.FLAGGED" in capsys.readouterr().out
