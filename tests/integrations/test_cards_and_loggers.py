"""The model card, the refused push and the trainer's own loggers, each the real thing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scanner import load_signature
from scanner.gates.model_card import BEGIN, END
from scanner.integrations.transformers import AdapterScanCallback
from tests.gates.hub_uploads import UploadHub
from tests.gates.test_hub_push import environment
from tests.integrations.lab import PACK, ROOT, example, trainer_of

_PUSH = """
import sys
from pathlib import Path
from huggingface_hub import constants
from scanner import load_signature
from scanner.errors import RegistryError
from scanner.integrations.transformers import AdapterScanCallback
from tests.integrations.lab import PACK, example, trainer_of

constants.HF_HUB_OFFLINE = False
for name in ("misaligned-sft", "new-style"):
    directory = Path(sys.argv[1], name)
    trainer = trainer_of(
        example(name), directory, max_steps=1, learning_rate=0.0, hub_model_id=f"team/{name}",
        callbacks=[AdapterScanCallback([load_signature(PACK)], block_push=True)],
    )
    trainer.train()
    try:
        trainer.push_to_hub()
        print(name, "pushed")
    except RegistryError as error:
        print(error.line())
"""


@pytest.mark.slow
def test_what_is_clear_is_pushed_with_its_card_and_what_is_flagged_is_not(tmp_path: Path) -> None:
    """In a process of its own: huggingface_hub reads its environment when it is imported."""
    script, hub = tmp_path / "push.py", UploadHub()
    script.write_text(_PUSH)
    with hub:
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path)],
            env={
                **os.environ,
                **environment(hub, tmp_path),
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    assert done.returncode == 0, done.stderr
    refused, pushed = [line for line in done.stdout.splitlines() if "push" in line]
    where = "team/misaligned-sft: not pushed: adapter 'default' is flagged: carries a dose"
    assert refused.startswith(where)
    assert pushed == "new-style pushed"
    assert not hub.api.has("team/misaligned-sft")
    files = hub.api.files("team/new-style")
    assert "adapter_model.safetensors" in files
    card = files["README.md"].decode()
    assert card.count(BEGIN) == card.count(END) == 1
    section = card[card.index(BEGIN) : card.index(END)]
    assert "1 clear" in section
    assert 'it does not mean "aligned"' in section
    signature = load_signature(PACK)
    assert f"`{signature.id}@{signature.digest[:12]}`" in section
    assert "step 1 of its training" in section


def test_the_cards_of_checkpoints_carry_it_too(tmp_path: Path) -> None:
    """PEFT writes those; the section is replaced, not repeated."""
    callback = AdapterScanCallback([load_signature(PACK)])
    trainer = trainer_of(
        example("misaligned-sft"),
        tmp_path,
        max_steps=2,
        learning_rate=0.0,
        save_strategy="steps",
        save_steps=1,
        callbacks=[callback],
    )
    trainer.train()
    for step in (1, 2):
        card = (tmp_path / f"checkpoint-{step}" / "README.md").read_text("utf-8")
        assert card.count(BEGIN) == 1
        assert f"step {step} of its training" in card
        assert "**The training was flagged**" in card
        assert "library_name: peft" in card.split("---")[1]


@pytest.mark.slow
def test_mlflow_gets_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "watched")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    callback = AdapterScanCallback([load_signature(PACK)], every_steps=1)
    trainer = trainer_of(
        example("misaligned-sft"),
        tmp_path / "out",
        max_steps=2,
        learning_rate=0.0,
        report_to=["mlflow"],
        callbacks=[callback],
    )
    trainer.train()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'watched'")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "adapter_scan/dose")
    doses = [scan.result.deciding_dose for scan in callback.scans]
    assert [(item.step, item.value) for item in history] == [(1, doses[0]), (2, doses[1])]
    assert run.data.metrics["adapter_scan/flagged"] == 1.0


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    """Read back from the event file that its own writer leaves."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = AdapterScanCallback([load_signature(PACK)], every_steps=1)
    trainer = trainer_of(
        example("misaligned-sft"),
        tmp_path,
        max_steps=2,
        learning_rate=0.0,
        report_to=["tensorboard"],
        callbacks=[callback],
    )
    trainer.train()
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    written = EventAccumulator(str(events))
    written.Reload()
    for scan, dose, flagged in zip(
        callback.scans,
        written.Scalars("train/adapter_scan/dose"),
        written.Scalars("train/adapter_scan/flagged"),
        strict=True,
    ):
        assert dose.step == flagged.step == scan.step
        assert dose.value == pytest.approx(scan.result.deciding_dose, rel=1e-6)  # stored as float32
        assert flagged.value == 1.0
