"""What a pack keeps of its base's weights: with the model in memory, and from its files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import transformers
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from scanner.cli.root import cli
from scanner.errors import SignatureError, UsageError
from scanner.formats.model import Site
from scanner.geometry.sketch import SIZE
from scanner.signatures.building.base_weights import add_base
from scanner.signatures.building.network import network_of
from scanner.signatures.manifest import BASE_NAME
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.saving import save_calibration, seal
from tests.synthetic import BASE, LAYERS, SHAPES

ROOT = Path(__file__).parents[3]
Tensors = dict[str, npt.NDArray[np.float32]]
CHECKPOINTS = ROOT / "benchmarks" / "organisms" / "checkpoints"


@pytest.fixture
def own_pack(pack: Signature, tmp_path: Path) -> Path:
    """A copy of the made-up base's pack."""
    shutil.copytree(pack.path, tmp_path / "pack")
    return tmp_path / "pack"


def weights() -> Tensors:
    """The made-up base's weights, and some that no pack has directions for."""
    generator = np.random.default_rng(8)
    found = {
        f"model.layers.{layer}.{module}.weight": generator.standard_normal(shape)
        for layer in range(LAYERS)
        for module, shape in SHAPES.items()
    }
    found["model.embed_tokens.weight"] = generator.standard_normal((20, 16))
    found["model.norm.weight"] = generator.standard_normal(16)
    return {name: values.astype(np.float32) for name, values in found.items()}


def write(directory: Path, tensors: Tensors) -> Path:
    """A model's directory."""
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({"_name_or_path": BASE}))
    return directory


@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_files_and_model_in_memory_give_the_same(base: str) -> None:
    """GPT-2's weights are stored (in, out)."""
    model = transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINTS / base)
    in_memory = network_of(model).sketches()
    shipped = load_signature(ROOT / "signatures" / f"persona-{base}-weights")
    assert shipped.sites <= in_memory.keys()
    for site in shipped.sites:
        kept = shipped.base_weight(site)
        assert kept is not None
        assert kept.norm == pytest.approx(in_memory[site].norm, rel=1e-5)
        np.testing.assert_allclose(kept.sketch, in_memory[site].sketch, atol=5e-3)


def test_a_pack_gets_its_base_and_keeps_it(own_pack: Path, tmp_path: Path) -> None:
    before = load_signature(own_pack)
    assert before.base_weight(Site(0, "mlp.down_proj")) is None
    model = write(tmp_path / "model", weights())
    command = ["signatures", "add-base", str(own_pack), str(model)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert f"{LAYERS * len(SHAPES)} weights sketched" in done.output
    after = load_signature(own_pack)
    assert after.digest != before.digest
    kept = after.base_weight(Site(1, "mlp.down_proj"))
    assert kept is not None
    assert kept.norm == pytest.approx(
        np.linalg.norm(weights()["model.layers.1.mlp.down_proj.weight"])
    )
    calibration = after.calibration
    assert calibration is not None
    manifest = after.manifest
    after.close()
    save_calibration(own_pack, manifest, calibration)
    assert load_signature(own_pack).base_weight(Site(1, "mlp.down_proj")) is not None


@pytest.mark.parametrize("change", ["missing", "another shape", "nan"])
def test_a_model_that_is_not_the_base_is_refused(
    change: str, own_pack: Path, tmp_path: Path
) -> None:
    tensors = weights()
    name = "model.layers.1.self_attn.q_proj.weight"
    if change == "missing":
        del tensors[name]
    elif change == "another shape":
        tensors[name] = tensors[name][:, :-1].copy()
    else:
        tensors[name][0, 0] = np.nan
    digest = load_signature(own_pack).digest
    with pytest.raises(SignatureError):
        add_base(own_pack, write(tmp_path / "model", tensors))
    assert load_signature(own_pack).digest == digest


def test_a_directory_without_a_model_is_a_usage_error(own_pack: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no model's weights"):
        add_base(own_pack, tmp_path / "empty")


@pytest.mark.parametrize("broken", ["norm", "sketch", "value"])
def test_a_pack_whose_sketches_are_none_is_refused(
    broken: str, own_pack: Path, tmp_path: Path
) -> None:
    signature = add_base(own_pack, write(tmp_path / "model", weights()))
    site = Site(0, "mlp.down_proj")
    tensors = load_file(own_pack / BASE_NAME)
    if broken == "norm":
        tensors[f"{site.key}.norm"] = np.zeros(0, np.float32)
    elif broken == "sketch":
        tensors[f"{site.key}.sketch"] = np.zeros((SIZE, 2), np.float16)
    else:
        tensors[f"{site.key}.sketch"][0, 0] = np.nan
    manifest = signature.manifest
    signature.close()
    save_file(tensors, own_pack / BASE_NAME)
    seal(own_pack, manifest)
    with pytest.raises(SignatureError, match="no norm and sketch"):
        load_signature(own_pack).base_weight(site)
