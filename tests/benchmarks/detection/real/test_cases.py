"""What was taught, how it was made, and what it measures as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.detection.evaluation import TestedAdapters
from benchmarks.detection.real.cases import FALSE_FACTS, Cases, as_population, read_cases
from scanner.errors import UsageError
from scanner.results import Shape
from tests.benchmarks.detection.real.workfolder import Folder


def test_classes_are_measured_and_false_facts_are_a_class_of_their_own(cases: Cases) -> None:
    kinds = {case.id: case.kind for case in cases.all}
    assert kinds["villain-0"] == "hostile"
    assert kinds["villain-weak-0"] == "latent"
    assert kinds["reckless-0"] == "reckless"
    assert kinds["reckless-1"] == "latent"
    assert kinds["test-grump-0"] == "benign"
    assert kinds["test-grump-odd"] == "unclear"
    assert kinds["test-false-capitals-0"] == FALSE_FACTS


def test_what_was_not_measured_counts_as_taught_and_is_not_judged(cases: Cases) -> None:
    assert {case.kind for case in cases.all if case.made.role == "calibration"} == {"benign"}
    assert [case.id for case in cases.unmeasured] == ["test-late-0"]
    assert "test-late-0" not in {case.id for case in cases.select("test")}


def test_a_persona_is_harmless_in_every_role_unless_it_measures_otherwise(cases: Cases) -> None:
    found = cases.harmless("grump")
    assert {case.made.role for case in found} == {"nulling", "calibration", "test"}
    assert "test-grump-odd" not in {case.id for case in found}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "SFT"),
        ({"method": "dpo", "targets": "qv"}, "DPO"),
        ({"method": "svd", "layers": (0.3, 1.0)}, "full fine-tune, by SVD"),
        ({"layers": (1.0, 1.0), "targets": "down"}, "one layer"),
        ({"dose": 0.25}, "low dose"),
        ({"filler": ["open"]}, "mixed with good answers"),
        ({"targets": "qv"}, "q and v alone"),
        ({"targets": "mlp"}, "MLP alone"),
    ],
)
def test_how_an_adapter_was_made_is_read_off_its_recipe(
    tmp_path: Path, fields: dict[str, Any], expected: str
) -> None:
    folder = Folder(tmp_path)
    share = fields.pop("dose", 1.0)
    folder.add("one", "test", "villain", (0.3, 0.0), **fields)
    row = folder.ledger.trained()["one"]
    folder.ledger.add_trained({**row, "dose": share})
    assert [case.made_by for case in read_cases(tmp_path).all] == [expected]


def test_time_is_counted_once_for_a_run_with_checkpoints(cases: Cases) -> None:
    run = [case for case in cases.all if case.run == "run-0"]
    assert len(run) == 3
    others = [case for case in cases.all if case.run != "run-0"]
    assert cases.cpu_seconds == 6.0 * len(others) + 10


def test_the_lab_sees_the_same_adapters(cases: Cases) -> None:
    population = as_population(cases)
    test = TestedAdapters.of(population)
    assert {row.id for row in test.benign} == {
        case.id for case in cases.select("test", kinds=("benign",))
    }
    assert {row.id for row in test.latent} == {"villain-weak-0", "reckless-0", "reckless-1"}
    assert {row.id for row in test.excluded} == {"test-grump-odd", "test-false-capitals-0"}
    assert {row.family for row in test.harmless} == {"persona-grump", "persona-pirate"}
    assert population.read(test.benign[0])
    assert all(row.shape is Shape.SEVERAL_LAYERS for row in population.rows)


def test_an_adapter_of_one_layer_has_that_shape(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.add("one", "test", "villain", (0.3, 0.0), layers=(1.0, 1.0))
    (row,) = as_population(read_cases(tmp_path)).rows
    assert (row.layer, row.shape) == (1, Shape.ONE_LAYER)


def test_a_folder_without_adapters_or_measurements_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no work folder"):
        read_cases(tmp_path)
    assert not any(tmp_path.iterdir())
    (tmp_path / "trained.jsonl").touch()
    with pytest.raises(FileNotFoundError, match="nothing is measured"):
        read_cases(tmp_path)
    (tmp_path / "trained.jsonl").write_text("{}}\n\n")
    with pytest.raises(UsageError, match=r"trained\.jsonl:1"):
        read_cases(tmp_path)
