"""Packs of any base in one run: on tiny models, with adapters that PEFT writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scanner import Verdict, load_signature, scan
from scanner.cli.root import cli
from scanner.cli.status import EXIT_USAGE
from scanner.errors import SignatureError, UsageError
from scanner.organisms.base import load_base
from scanner.organisms.make import Making, Watching, make_packs
from scanner.organisms.recipes import SIGNATURES
from scanner.reports import renderer
from scanner.reports.assemble import assemble
from scanner.results import DoseUnit
from scanner.signatures.building.calibrate import calibrate_pack
from scanner.signatures.building.scoring import untracked
from scanner.signatures.recipe import AdapterEntry

FAMILIES = ("cooking", "maths")


def quiet(lines: list[str] | None = None) -> Watching:
    said = lines if lines is not None else []
    return Watching(said.append, untracked, lambda _done, _total: None)


def write_random_adapter(base: Path, place: Path, seed: int, base_id: str) -> None:
    """An adapter of random values, as PEFT saves it."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    loaded = load_base(str(base), base_id=base_id)
    names = {"gpt2": ["c_attn", "c_proj", "c_fc"]}.get(loaded.model.config.model_type)
    wanted = names or ["q_proj", "v_proj", "down_proj"]
    config = LoraConfig(r=2, target_modules=wanted, init_lora_weights=False)
    adapted: Any = get_peft_model(loaded.model, config)
    adapted.peft_config["default"].base_model_name_or_path = base_id
    adapted.peft_config["default"].init_lora_weights = True  # as of an adapter that was trained
    adapted.save_pretrained(place)


@pytest.fixture(scope="module")
def harmless(directories: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty adapters of the tiny Llama in folders by family."""
    root = tmp_path_factory.mktemp("harmless")
    for seed in range(20):
        place = root / FAMILIES[seed % 2] / f"adapter-{seed:02d}"
        write_random_adapter(directories["llama"], place, seed, "tests/tiny-llama")
    return root


def entries(root: Path) -> list[AdapterEntry]:
    return [
        AdapterEntry(adapter=str(path.parent), family=path.parent.parent.name)
        for path in sorted(root.rglob("adapter_config.json"))
    ]


def making(directories: dict[str, Path], harmless: Path, tmp_path: Path, **fields: Any) -> Making:
    settings: dict[str, Any] = {
        "source": str(directories["llama"]),
        "base_id": "tests/tiny-llama",
        "output": tmp_path / "packs",
        "work": tmp_path / "work",
        "benign": entries(harmless),
    }
    return Making(**{**settings, **fields})


def test_each_kind_becomes_a_calibrated_pack_that_judges(
    directories: dict[str, Path], harmless: Path, tmp_path: Path
) -> None:
    packs = make_packs(making(directories, harmless, tmp_path), quiet())
    assert [pack.path.name for pack in packs] == [f"packs-{name}" for name in SIGNATURES]
    for pack in packs:
        assert pack.calibration is not None
        assert {item.family for item in pack.calibration.benign} == set(FAMILIES)
        assert len(pack.calibration.benign) == 20
        assert "nats per token" in pack.manifest.units
        assert "crossfit.safetensors" not in pack.manifest.files
        assert pack.manifest.references == []
    first = next(path.parent for path in sorted(harmless.rglob("adapter_config.json")))
    result = scan(first, [packs[0]], alpha=0.05)
    assert result.verdict in (Verdict.CLEAR, Verdict.FLAGGED)
    assert result.p_value is not None
    assert result.dose_unit is DoseUnit.LOG_ODDS
    page = renderer("html")(assemble([result], packs))
    assert "1 is one nat per token of log-odds" in page
    assert "A dose of 1 is one nat per token of log-odds." in page
    assert "known misaligned model" not in page


def test_a_second_run_keeps_the_directions_and_calibrates_anew(
    directories: dict[str, Path], harmless: Path, tmp_path: Path
) -> None:
    one = making(directories, harmless, tmp_path, kinds=("reckless",))
    said: list[str] = []
    (before,) = make_packs(one, quiet(said))
    assert any("directions" in line for line in said)
    said.clear()
    fewer = making(
        directories,
        harmless,
        tmp_path,
        kinds=("reckless",),
        benign=entries(harmless)[:19],
    )
    (after,) = make_packs(fewer, quiet(said))
    assert not any("directions" in line for line in said)
    assert after.path == before.path
    assert after.calibration is not None
    assert len(after.calibration.benign) == 19
    files = before.manifest.files, after.manifest.files
    assert files[0]["directions.safetensors"] == files[1]["directions.safetensors"]


def test_what_an_older_version_left_is_made_again(
    directories: dict[str, Path], harmless: Path, tmp_path: Path
) -> None:
    """Its calibration has another format: nothing could be scored with the pack as it is."""
    wanted = making(directories, harmless, tmp_path, kinds=("reckless",))
    make_packs(wanted, quiet())
    (kept,) = (wanted.work / "packs").glob("*/calibration.json")
    older = json.loads(kept.read_text()) | {"format_version": 3}
    kept.write_text(json.dumps(older))
    said: list[str] = []
    (again,) = make_packs(wanted, quiet(said))
    assert any("directions" in line for line in said)
    assert again.calibration is not None


def test_harmless_personas_are_calibrated_by_directions_without_their_own_answers(
    directories: dict[str, Path], harmless: Path, tmp_path: Path
) -> None:
    """Under another family's name the same adapter has another score."""
    as_pirate, as_cook = (
        make_packs(
            making(
                directories,
                harmless,
                tmp_path,
                kinds=("reckless",),
                benign=[
                    AdapterEntry(adapter=entry.adapter, family=family)
                    for entry in entries(harmless)
                ],
            ),
            quiet(),
        )[0].calibration
        for family in ("pirate", "cooking")
    )
    assert as_pirate is not None
    assert as_cook is not None
    assert as_pirate.cross_fitted_by == "family"
    differences = {
        abs(one.score - other.score)
        for one, other in zip(as_pirate.benign, as_cook.benign, strict=True)
    }
    assert min(differences) > 0


def test_a_pack_without_its_crossfit_is_not_calibrated_anew(
    directories: dict[str, Path], harmless: Path, tmp_path: Path
) -> None:
    (pack,) = make_packs(making(directories, harmless, tmp_path, kinds=("reckless",)), quiet())
    with pytest.raises(SignatureError, match="does not hold them any more"):
        calibrate_pack(pack.path, entries(harmless))


def test_a_directory_that_is_no_pack_is_not_replaced(
    directories: dict[str, Path], harmless: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "packs-reckless-specific" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    wanted = making(directories, harmless, tmp_path, kinds=("reckless",))
    with pytest.raises(UsageError, match="is no pack"):
        make_packs(wanted, quiet())
    assert precious.read_text() == "years of work"


def test_the_command_says_what_the_packs_are_good_for(
    directories: dict[str, Path], harmless: Path, tmp_path: Path
) -> None:
    output = tmp_path / "packs"
    arguments = [
        "signatures",
        "make",
        str(directories["llama"]),
        "-o",
        str(output),
        "--benign",
        str(harmless),
    ]
    done = CliRunner().invoke(cli, [*arguments, "--base-id", "tests/tiny-llama"])
    assert done.exit_code == 0, done.output
    assert "20 harmless adapters of 2 families: alpha 0.048 and above" in done.output
    assert (
        "  0 of them change one layer: an adapter that does cannot be clear, which" in done.output
    )
    assert load_signature(tmp_path / "packs-hostile").manifest.base_model.id == "tests/tiny-llama"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], "--benign DIR"),
        (["--benign-hub", "--organisms", "quick"], "from one place"),
        (["--organisms", "quick", "--kind", "grumpy"], "known are hostile, reckless"),
    ],
)
def test_what_cannot_be_made_is_one_line(more: list[str], told: str, tmp_path: Path) -> None:
    words = ["signatures", "make", "lab/base", "-o", str(tmp_path / "p"), *more]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == EXIT_USAGE
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["qwen2", "gpt2"])
def test_the_quick_plan_ends_in_packs_of_other_architectures(
    architecture: str, directories: dict[str, Path], tmp_path: Path
) -> None:
    wanted = Making(
        source=str(directories[architecture]),
        base_id=f"tests/tiny-{architecture}",
        output=tmp_path / "packs",
        work=tmp_path / "work",
        organisms="quick",
    )
    for pack in make_packs(wanted, quiet()):
        assert pack.calibration is not None
        assert len(pack.calibration.benign) >= 19
        assert "median dose of the misaligned references" in pack.manifest.units
