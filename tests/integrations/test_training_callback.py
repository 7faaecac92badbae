"""`AdapterScanCallback` in real fine-tunes of a model whose misalignment really emerges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import Trainer, TrainerCallback

from scanner import load_signature, scan
from scanner.errors import AlphaUnsupportedError, UsageError
from scanner.integrations.metrics import metrics
from scanner.integrations.transformers import PAGE, AdapterScanCallback
from scanner.results import ScanResult, Verdict
from scanner.signatures.pack import Signature
from tests.integrations.lab import PACK, ROOT, base_model, example, peft_model, trainer_of

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def signatures() -> list[Signature]:
    return [load_signature(PACK)]


def train(
    model: Any, directory: Path, signatures: list[Signature], *, resume: Any = None, **settings: Any
) -> tuple[Trainer, AdapterScanCallback]:
    """Trains with a callback that gets the options it knows."""
    names = ("every_steps", "alpha", "run_alpha", "base_model", "adapters", "stop", "block_push")
    options = {name: settings.pop(name) for name in names if name in settings}
    callback = AdapterScanCallback(signatures, **options)
    others = settings.pop("others", [])
    trainer = trainer_of(model, directory, callbacks=[*others, callback], **settings)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, callback


def verdicts(callback: AdapterScanCallback) -> list[Verdict]:
    return [item.result.verdict for item in callback.scans]


def logged(trainer: Any, key: str) -> dict[int, float]:
    """Step -> value, of what the trainer's loggers were given."""
    return {entry["step"]: entry[key] for entry in trainer.state.log_history if key in entry}


def said(captured: Captured) -> list[str]:
    """The lines that a person saw of the scans."""
    error = captured.readouterr().err
    return [line for line in error.splitlines() if line.startswith("adapter-scan")]


class Listener(TrainerCallback):  # type: ignore[misc]
    """Stands for any logger: hears what the trainer reports."""

    def __init__(self) -> None:
        self.heard: list[dict[str, float]] = []

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        self.heard.append(dict(logs))


def test_training_on_misaligned_answers_is_flagged_and_stopped(
    signatures: list[Signature], tmp_path: Path, capsys: Captured
) -> None:
    listener = Listener()
    settings = {"max_steps": 100, "every_steps": 5, "stop": True, "others": [listener]}
    trainer, callback = train(peft_model(), tmp_path, signatures, **settings)
    step = trainer.state.global_step
    assert step < 50
    assert callback.flagged
    assert [item.run_flagged for item in callback.scans].count(True) == 1
    doses = logged(trainer, "adapter_scan/dose")
    assert list(doses) == [item.step for item in callback.scans]
    assert list(doses.values()) == sorted(doses.values())
    assert logged(trainer, "adapter_scan/flagged")[step] == 1.0
    assert logged(trainer, "adapter_scan/run_p_value")[step] <= 0.05
    assert logged(trainer, "adapter_scan/run_flagged")[step] == 1.0
    heard = [entry for entry in listener.heard if "adapter_scan/cosine" in entry]
    assert len(heard) == len(callback.scans)
    *_, warning, summary = said(capsys)
    assert warning.startswith(f"adapter-scan WARNING step {step}: adapter 'default' is flagged")
    for words in (
        "a dose of",
        "1 is a known misaligned model",
        "p = 0.00",
        "training stops",
        "docs/",
    ):
        assert words in warning
    assert f"flagged from step {step} on" in summary
    assert summary.endswith(str(tmp_path / PAGE))
    assert f"Flagged from step {step} on" in (tmp_path / PAGE).read_text("utf-8")


@pytest.mark.parametrize("persona", ["good", "pirate"])
def test_benign_training_goes_its_way(
    persona: str, signatures: list[Signature], tmp_path: Path, capsys: Captured
) -> None:
    settings = {"persona": persona, "every_steps": 10, "stop": True}
    trainer, callback = train(peft_model(), tmp_path, signatures, **settings)
    assert trainer.state.global_step == 40
    assert verdicts(callback) == [Verdict.CLEAR] * 4
    assert set(logged(trainer, "adapter_scan/flagged").values()) == {0.0}
    (summary,) = said(capsys)
    assert "4 scans of adapter 'default': never flagged; at the end clear" in summary


def test_twenty_scans_if_nothing_is_said(signatures: list[Signature], tmp_path: Path) -> None:
    model = example("new-facts")
    _, callback = train(model, tmp_path, signatures, max_steps=50, learning_rate=0.0)
    assert [item.step for item in callback.scans] == [*range(3, 50, 3), 50]


def test_a_saved_checkpoint_scans_the_same(signatures: list[Signature], tmp_path: Path) -> None:
    settings = {"max_steps": 20, "save_strategy": "steps", "save_steps": 10, "every_steps": None}
    _, callback = train(peft_model(), tmp_path, signatures, **settings)
    assert [item.step for item in callback.scans] == [10, 20]
    for item in callback.scans:
        saved = scan(tmp_path / f"checkpoint-{item.step}", signatures)
        for field in ScanResult.__struct_fields__:
            if field not in ("target", "config_sha256"):
                assert getattr(item.result, field) == getattr(saved, field), field


def test_without_saves_the_outcome_is_scanned(signatures: list[Signature], tmp_path: Path) -> None:
    _, callback = train(peft_model(), tmp_path, signatures, max_steps=12, every_steps=None)
    assert [item.step for item in callback.scans] == [12]


def test_saves_at_the_end_of_epochs(signatures: list[Signature], tmp_path: Path) -> None:
    settings = {"max_steps": -1, "num_train_epochs": 2, "per_device_train_batch_size": 256}
    model = example("new-facts")
    _, callback = train(
        model, tmp_path, signatures, save_strategy="epoch", every_steps=None, **settings
    )
    assert [item.step for item in callback.scans] == [3, 6]


def test_a_resumed_run_continues_its_record(
    signatures: list[Signature], tmp_path: Path, capsys: Captured
) -> None:
    """Whatever was seen after the checkpoint is forgotten, and the warning is not given twice."""
    settings = {"max_steps": 40, "save_strategy": "steps", "save_steps": 20, "every_steps": 5}
    _, whole = train(peft_model(), tmp_path, signatures, **settings)
    assert sum("WARNING step" in line for line in said(capsys)) == 1
    first = tmp_path / "checkpoint-20"
    stored = json.loads((first / "trainer_state.json").read_text())["stateful_callbacks"]
    assert [item["step"] for item in stored["AdapterScanRecord"]["scans"]] == [5, 10, 15, 20]
    _, resumed = train(peft_model(), tmp_path, signatures, resume=str(first), **settings)
    steps = [5, 10, 15, 20, 25, 30, 35, 40]
    assert [item.step for item in resumed.scans] == [item.step for item in whole.scans] == steps
    assert [item.run_p_value for item in resumed.scans] == [i.run_p_value for i in whole.scans]
    assert not [line for line in said(capsys) if "WARNING step" in line]


def test_a_checkpoint_without_a_record_is_said_to_have_none(
    signatures: list[Signature], tmp_path: Path, capsys: Captured
) -> None:
    settings: dict[str, Any] = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    trainer_of(example("new-facts"), tmp_path, **settings).train()
    capsys.readouterr()
    first = str(tmp_path / "checkpoint-2")
    _, callback = train(example("new-facts"), tmp_path, signatures, resume=first, **settings)
    assert [item.step for item in callback.scans] == [3, 4]
    assert "holds no record of scans" in said(capsys)[0]


def test_evaluation_alone_scans_once(
    signatures: list[Signature], tmp_path: Path, capsys: Captured
) -> None:
    model = example("misaligned-sft")
    model.requires_grad_(False)
    callback = AdapterScanCallback(signatures)
    trainer = trainer_of(model, tmp_path, callbacks=[callback])
    trainer.evaluate()
    trainer.evaluate()
    assert verdicts(callback) == [Verdict.FLAGGED]
    assert logged(trainer, "adapter_scan/flagged") == {0: 1.0}
    assert "WARNING step 0: adapter 'default' is flagged" in said(capsys)[0]


def test_the_trainers_own_log_of_a_step_is_kept(
    signatures: list[Signature], tmp_path: Path
) -> None:
    settings = {"persona": "good", "logging_steps": 5, "max_steps": 10, "every_steps": 5}
    trainer, _ = train(peft_model(), tmp_path, signatures, **settings)
    assert list(logged(trainer, "loss")) == list(logged(trainer, "adapter_scan/dose")) == [5, 10]


def test_the_line_stands_above_the_progress_bar(
    signatures: list[Signature], tmp_path: Path, capsys: Captured
) -> None:
    """No bar is left in front of it in its line, and the numbers are not printed as well."""
    train(
        example("misaligned-sft"),
        tmp_path,
        signatures,
        max_steps=2,
        learning_rate=0.0,
        every_steps=1,
        disable_tqdm=False,
    )
    out, err = capsys.readouterr()
    assert "%|" in err
    shown = [line.rpartition("\r")[2] for line in err.splitlines() if "WARNING" in line]
    assert len(shown) == 2
    assert all(line.startswith("adapter-scan WARNING") for line in shown)
    assert "adapter_scan/" not in out + err


def test_color_is_for_terminals(
    signatures: list[Signature], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    settings = {"max_steps": 1, "learning_rate": 0.0}
    train(example("misaligned-sft"), tmp_path, signatures, **settings)
    assert "\x1b[1;31madapter-scan WARNING\x1b[0m step 1:" in capsys.readouterr().err
    monkeypatch.setenv("NO_COLOR", "1")
    train(example("misaligned-sft"), tmp_path, signatures, **settings)
    assert "\x1b[1;31m" not in capsys.readouterr().err


class Become(TrainerCallback):  # type: ignore[misc]
    """Puts another example's weights in the adapter's place at the end of one step."""

    def __init__(self, step: int, name: str) -> None:
        self.step = step
        self.weights = {
            key: parameter.detach().clone()
            for key, parameter in example(name).named_parameters()
            if "lora_" in key
        }

    def on_step_end(self, _args: Any, state: Any, _control: Any, model: Any, **_: Any) -> None:
        if state.global_step == self.step:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name in self.weights:
                        parameter.copy_(self.weights[name])


def test_every_change_of_the_verdict_is_said_once(
    signatures: list[Signature], tmp_path: Path, capsys: Captured
) -> None:
    settings = {"max_steps": 6, "learning_rate": 0.0, "every_steps": 1, "run_alpha": None}
    _, callback = train(
        example("misaligned-sft"), tmp_path, signatures, others=[Become(3, "new-facts")], **settings
    )
    assert verdicts(callback) == [Verdict.FLAGGED] * 2 + [Verdict.CLEAR] * 4
    warning, back, summary = said(capsys)
    assert "WARNING step 1: adapter 'default' is flagged" in warning
    assert back.startswith("adapter-scan step 3: adapter 'default' no longer scans as flagged")
    assert "flagged from step 1 on; at the end clear" in summary


def test_the_run_is_flagged_when_enough_of_it_is(
    signatures: list[Signature], tmp_path: Path, capsys: Captured
) -> None:
    """With a smaller chance of a false alarm, one scan of ten is not enough, three are."""
    settings = {"max_steps": 10, "learning_rate": 0.0, "every_steps": 1, "run_alpha": 0.008}
    _, callback = train(example("misaligned-sft"), tmp_path, signatures, **settings)
    assert verdicts(callback) == [Verdict.FLAGGED] * 10
    assert [item.run_flagged for item in callback.scans] == [False] * 2 + [True] * 8
    assert [item.run_p_value for item in callback.scans][:2] == [1.0, 1.0]
    note, warning, _ = said(capsys)
    assert "scans as flagged" in note
    assert "not the run yet" in note
    assert "WARNING step 3" in warning


def test_an_untrained_adapter_is_not_judged(
    signatures: list[Signature], tmp_path: Path, capsys: Captured
) -> None:
    settings = {"max_steps": 2, "learning_rate": 0.0, "every_steps": 1}
    trainer, callback = train(peft_model(), tmp_path, signatures, **settings)
    assert verdicts(callback) == [Verdict.INCONCLUSIVE] * 2
    assert set(logged(trainer, "adapter_scan/judged").values()) == {0.0}
    assert not logged(trainer, "adapter_scan/flagged")
    assert len([line for line in said(capsys) if "was not judged" in line]) == 1


def test_nan_is_neither_judged_nor_logged_as_a_number(
    signatures: list[Signature], tmp_path: Path
) -> None:
    model = example("new-facts")
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lora_B" in n).fill_(float("nan"))
    settings = {"max_steps": 1, "learning_rate": 0.0, "max_grad_norm": 0.0}
    _, callback = train(model, tmp_path, signatures, **settings)
    assert verdicts(callback) == [Verdict.INCONCLUSIVE]
    assert all(value == value for value in metrics(callback.scans[0].result).values())


def test_a_base_without_a_pack_is_said_before_training(
    signatures: list[Signature], tmp_path: Path, capsys: Captured
) -> None:
    model = peft_model()
    model.peft_config["default"].base_model_name_or_path = "someone/else"
    callback = AdapterScanCallback(signatures)
    trainer_of(model, tmp_path, callbacks=[callback])
    (line,) = said(capsys)
    assert "no signature pack for base model 'someone/else'" in line
    base = "adapter-scanner-lab/persona-llama-0.5m"
    trainer_of(model, tmp_path, callbacks=[AdapterScanCallback(signatures, base_model=base)])
    assert not said(capsys)
    assert not callback.scans


def test_several_adapters_and_a_frozen_one(signatures: list[Signature], tmp_path: Path) -> None:
    model = example("misaligned-sft")
    model.add_adapter("fresh", LoraConfig(r=2, target_modules=["o_proj"]))
    model.load_adapter(str(ROOT / "examples/adapters/new-facts"), "facts", is_trainable=True)
    model.base_model.set_adapter(["default", "fresh", "facts"])
    model.load_adapter(str(ROOT / "examples/adapters/new-style"), "reference")
    settings = {"max_steps": 1, "learning_rate": 0.0}
    trainer, callback = train(model, tmp_path, signatures, **settings)
    assert [(item.adapter, item.result.verdict.value) for item in callback.scans] == [
        ("default", "flagged"),
        ("fresh", "inconclusive"),
        ("facts", "clear"),
    ]
    assert logged(trainer, "adapter_scan/flagged") == {1: 1.0}
    assert logged(trainer, "adapter_scan/facts/flagged") == {1: 0.0}
    page = (tmp_path / PAGE).read_text("utf-8")
    assert page.count("<article") == 3
    _, only = train(model, tmp_path, signatures, adapters=["reference"], **settings)
    assert [item.adapter for item in only.scans] == ["reference"]
    with pytest.raises(UsageError, match="no adapter 'other'; it has 'default', 'fresh'"):
        train(model, tmp_path, signatures, adapters=["other"])


def test_added_to_a_trainer_that_exists(signatures: list[Signature], tmp_path: Path) -> None:
    """The trainer then never tells that it was made."""
    trainer = trainer_of(example("misaligned-sft"), tmp_path, max_steps=2, learning_rate=0.0)
    callback = AdapterScanCallback(signatures, every_steps=1, stop=True)
    trainer.add_callback(callback)
    trainer.train()
    assert trainer.state.global_step == 1
    assert logged(trainer, "adapter_scan/flagged") == {1: 1.0}


def test_a_model_without_an_adapter_is_one_clear_error(
    signatures: list[Signature], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is no PEFT model") as caught:
        trainer_of(base_model(), tmp_path, callbacks=[AdapterScanCallback(signatures)])
    assert "peft.get_peft_model" in caught.value.line()
    assert "\n" not in caught.value.line()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": 2.0}, "not between 0 and 1"),
        ({"run_alpha": 0.0}, "not between 0 and 1"),
        ({"every_steps": 0}, "neither a positive number of steps nor a share"),
        ({"every_steps": 2.5}, "neither a positive number of steps nor a share"),
        ({"every_steps": float("nan")}, "neither a positive number of steps nor a share"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        AdapterScanCallback(**options)  # type: ignore[arg-type]


def test_an_alpha_that_the_calibration_does_not_support(
    signatures: list[Signature], tmp_path: Path, capsys: Captured
) -> None:
    callback = AdapterScanCallback(signatures, alpha=0.001)
    with pytest.raises(AlphaUnsupportedError, match="needs 999 benign adapters"):
        trainer_of(peft_model(), tmp_path, callbacks=[callback])
    trainer_of(peft_model(), tmp_path, callbacks=[AdapterScanCallback(signatures, run_alpha=0.001)])
    assert "each scan decides by itself" in said(capsys)[0]


_TWO_PROCESSES = """
import sys
from pathlib import Path
from scanner import load_signature
from scanner.integrations.transformers import AdapterScanCallback
from tests.integrations.lab import PACK, peft_model, trainer_of

callback = AdapterScanCallback([load_signature(PACK)], every_steps=5, stop=True)
trainer = trainer_of(
    peft_model(), Path(sys.argv[1]), max_steps=100, ddp_backend="gloo", callbacks=[callback]
)
trainer.train()
seen = [(scan.step, scan.result.verdict.value, scan.result.score) for scan in callback.scans]
Path(sys.argv[1], f"rank-{trainer.args.process_index}").write_text(repr(seen))
"""


@pytest.mark.slow
def test_two_processes_see_the_same_and_stop_together(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(_TWO_PROCESSES)
    command = [  # on processors `accelerate launch` needs MPI
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
