"""A watched training in Weights & Biases, read back from the files of a real offline run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scanner import load_signature
from scanner.integrations.transformers import AdapterScanCallback
from tests.integrations.lab import PACK, example, trainer_of
from tests.integrations.test_training_callback import Become

wandb = pytest.importorskip("wandb")
wandb_file = pytest.importorskip("tests.integrations.wandb_file")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A run whose adapter is flagged, becomes a harmless one, and is no longer flagged."""
    directory = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "WANDB_MODE": "offline",
            "WANDB_DIR": str(directory),
            "WANDB_DATA_DIR": str(directory / "data"),
            "WANDB_CACHE_DIR": str(directory / "cache"),
            "WANDB_SILENT": "true",
            "WANDB_CONSOLE": "off",
            "WANDB_DISABLE_GIT": "true",
            "WANDB_DISABLE_CODE": "true",
        }.items():
            patch.setenv(name, value)
        callback = AdapterScanCallback([load_signature(PACK)], every_steps=1, run_alpha=None)
        trainer = trainer_of(
            example("misaligned-sft"),
            directory / "out",
            max_steps=4,
            learning_rate=0.0,
            logging_steps=1,
            report_to=["wandb"],
            callbacks=[Become(3, "new-facts"), callback],
        )
        trainer.train()
        wandb.finish()
        wandb.teardown()  # what the service behind it still holds is written by now
    return directory, wandb_file.records(directory)


def history(records: list[Any]) -> list[dict[str, Any]]:
    return [wandb_file.items(r.history.item) for r in records if r.HasField("history")]


def test_the_numbers_have_a_section_of_their_own(run: tuple[Path, list[Any]]) -> None:
    rows = [row for row in history(run[1]) if "adapter_scan/dose" in row]
    assert [row["train/global_step"] for row in rows] == [1, 2, 3, 4]
    assert [row["adapter_scan/flagged"] for row in rows] == [1.0, 1.0, 0.0, 0.0]
    assert rows[0]["adapter_scan/dose"] > 10 * abs(rows[3]["adapter_scan/dose"])
    assert not [key for row in history(run[1]) for key in row if "train/adapter_scan" in key]
    assert [row for row in history(run[1]) if "train/loss" in row], "the trainer's own go on"


def test_they_are_defined_over_steps_with_a_summary(run: tuple[Path, list[Any]]) -> None:
    metrics = {r.metric.name: r.metric for r in run[1] if r.HasField("metric")}
    dose, p_value = metrics["adapter_scan/dose"], metrics["adapter_scan/p_value"]
    assert dose.step_metric == p_value.step_metric == "train/global_step"
    assert dose.summary.max
    assert not dose.summary.min
    assert p_value.summary.min


def test_the_configuration_names_the_packs(run: tuple[Path, list[Any]]) -> None:
    found: dict[str, Any] = {}
    for record in run[1]:
        if record.HasField("config"):
            found |= wandb_file.items(record.config.update)
    signature = load_signature(PACK)
    settings = found["adapter_scan"]
    assert settings["packs"] == {signature.id: signature.digest}
    assert settings["alpha"] == 0.01
    assert settings["run_alpha"] is None


def test_an_alert_for_every_flip(run: tuple[Path, list[Any]]) -> None:
    first, second = (r.alert for r in run[1] if r.HasField("alert"))
    assert (first.level, second.level) == ("WARN", "INFO")
    assert first.title == "Adapter default flagged"
    assert "step 1: adapter 'default' is flagged" in first.text
    assert "\x1b" not in first.text
    assert "no longer scans as flagged" in second.text


def test_a_table_of_scans(run: tuple[Path, list[Any]]) -> None:
    directory, records = run
    (row,) = [row for row in history(records) if "adapter_scan/scans/nrows" in row]
    assert row["adapter_scan/scans/nrows"] == 4
    (path,) = directory.glob("**/offline-run-*/files/**/scans*.table.json")
    table = json.loads(path.read_text())
    assert table["columns"][:4] == ["step", "adapter", "verdict", "run flagged"]
    assert [line[2] for line in table["data"]] == ["flagged", "flagged", "clear", "clear"]


def test_the_page_is_an_artifact(run: tuple[Path, list[Any]]) -> None:
    (artifact,) = [
        r.artifact for r in run[1] if r.HasField("artifact") and r.artifact.type == "adapter-scan"
    ]
    assert artifact.name.startswith("adapter-scan-")
    contents = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    assert set(contents) == {"adapter_scan.html", "adapter_scan.json"}
    assert "<!doctype html>" in contents["adapter_scan.html"].read_text("utf-8")
    assert len(json.loads(contents["adapter_scan.json"].read_text())["scans"]) == 4
    metadata = json.loads(artifact.metadata)
    assert metadata["adapters"]["default"]["verdict"] == "clear"
    assert metadata["model_artifact"] is None


def test_nothing_happens_without_a_run(tmp_path: Path) -> None:
    callback = AdapterScanCallback([load_signature(PACK)])
    trainer_of(
        example("new-facts"), tmp_path, max_steps=1, learning_rate=0.0, callbacks=[callback]
    ).train()
    assert callback.scans
    assert wandb.run is None
