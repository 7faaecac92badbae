"""The model card, the refused push and the trainer's own loggers, each the real thing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner import load_signature
from scanner.gates.model_card import BEGIN, END
from scanner.integrations.transformers import AdapterScanCallback
from tests.gates.hub_uploads import UploadHub
from tests.gates.test_hub_push import environment
from tests.integrations.lab import PACK, ROOT, example, trainer_of

REPO = "team/adapter"
_PUSH = """
import sys
from pathlib import Path
from huggingface_hub import constants
from scanner import load_signature
from scanner.integrations.transformers import AdapterScanCallback
from tests.integrations.lab import PACK, example, trainer_of

constants.HF_HUB_OFFLINE = False
name, directory, card, *options = sys.argv[1:]
callback = AdapterScanCallback([load_signature(PACK)], block_push="block" in options)
model = example(name)
model.config._name_or_path = model.name_or_path = ""
trainer = trainer_of(
    model, Path(directory), max_steps=1, learning_rate=0.0, hub_model_id="team/adapter",
    callbacks=[callback],
)
trainer.train()
Path(directory, "README.md").write_text(card)
trainer.push_to_hub()
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[UploadHub]:
    server = UploadHub()
    with server:
        yield server


def push(hub: UploadHub, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its environment when it is imported."""
    script = tmp_path / "push.py"
    script.write_text(_PUSH)
    name, *options = arguments
    return subprocess.run(
        [sys.executable, str(script), name, str(tmp_path / "out"), "# Mine\n", *options],
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


@pytest.mark.slow
def test_a_flagged_adapter_is_not_pushed(hub: UploadHub, tmp_path: Path) -> None:
    done = push(hub, tmp_path, "misaligned-sft", "block")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "RegistryError" in last
    assert "team/adapter: not pushed: adapter 'default' is flagged: carries a dose" in last
    assert not hub.api.has(REPO)


@pytest.mark.slow
def test_a_clear_one_is_pushed_with_the_verdict_on_its_card(hub: UploadHub, tmp_path: Path) -> None:
    done = push(hub, tmp_path, "new-style", "block")
    assert done.returncode == 0, done.stderr
    files = hub.api.files(REPO)
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
