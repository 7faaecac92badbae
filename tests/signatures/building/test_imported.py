"""Importing steering vectors: conventions, refusals, and what an import without a sign may say."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from scanner.errors import SignatureError
from scanner.formats.model import Site
from scanner.results import Verdict
from scanner.scanning.opening import scan
from scanner.signatures.building.calibrate import calibrate_pack
from scanner.signatures.building.imported import ImportOptions, import_pack
from scanner.signatures.building.vectors import VectorOptions, read_vectors
from tests.synthetic import BASE, LAYERS, SHAPES, Array, entry, random_factors, write_adapter

VECTORS_BESIDE = Path(__file__).resolve().parents[4] / "shared" / "data" / "vectors"
WIDTH = 16
STACK = np.random.default_rng(0).standard_normal((LAYERS, WIDTH)).astype(np.float32)
WITH_EMBEDDINGS = np.vstack([np.full((1, WIDTH), 7.0, np.float32), STACK])


def gguf_bytes(tensors: dict[str, Array]) -> bytes:
    """A GGUF v3 file of float32 vectors, written from the format's description."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    metadata = text("general.architecture") + struct.pack("<I", 8) + text("controlvector")
    info, data = b"", b""
    for name, array in tensors.items():
        info += text(name) + struct.pack("<IQIQ", 1, len(array), 0, len(data))
        raw = np.asarray(array, "<f4").tobytes()
        data += raw + b"\0" * (-len(raw) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1) + metadata + info
    return head + b"\0" * (-len(head) % 32) + data


def write_stack(path: Path, stack: Array) -> Path:
    if path.suffix == ".pt":
        torch.save(torch.from_numpy(stack), path)
    elif path.suffix == ".npy":
        np.save(path, stack)
    elif path.suffix == ".npz":
        np.savez(path, evil=stack, note=np.array("free text"))
    else:
        save_file({"evil": stack}, path)
    return path


def options(**fields: object) -> ImportOptions:
    names = VectorOptions.__dataclass_fields__
    vectors = {name: fields.pop(name) for name in list(fields) if name in names}
    return ImportOptions(BASE, VectorOptions(**vectors), **fields)  # type: ignore[arg-type]


def read(file: Path, **fields: object) -> dict[int, Array]:
    return dict(read_vectors(file, VectorOptions(**fields)))  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".pt", ".npy", ".npz", ".safetensors"])
def test_a_stack_that_starts_at_the_embeddings(tmp_path: Path, suffix: str) -> None:
    file = write_stack(tmp_path / f"v{suffix}", WITH_EMBEDDINGS)
    found = read(file, first_index="embeddings")
    assert list(found) == list(range(LAYERS))
    for layer, vector in found.items():
        np.testing.assert_array_equal(vector, STACK[layer])


def test_a_stack_that_starts_at_block_0_and_points_the_other_way(tmp_path: Path) -> None:
    file = write_stack(tmp_path / "v.npy", STACK)
    found = read(file, first_index="block0", reverse=True)
    np.testing.assert_array_equal(found[1], -STACK[1])


def test_a_list_of_tensors(tmp_path: Path) -> None:
    torch.save(list(torch.from_numpy(STACK)), tmp_path / "v.pt")
    found = read(tmp_path / "v.pt", first_index="block0")
    np.testing.assert_array_equal(found[0], STACK[0])


def test_a_control_vector_names_the_block_it_is_added_to(tmp_path: Path) -> None:
    file = tmp_path / "v.gguf"
    file.write_bytes(gguf_bytes({"direction.1": STACK[1]}))
    assert list(read(file)) == [1]
    # As measured by llama.cpp's own generator: one block earlier.
    assert list(read(file, first_index="embeddings")) == [0]


def test_what_is_left_open_is_refused(tmp_path: Path) -> None:
    file = write_stack(tmp_path / "v.npy", STACK)
    with pytest.raises(SignatureError, match="does not say what its first index is"):
        read(file)
    np.savez(tmp_path / "two.npz", a=STACK, b=STACK)
    with pytest.raises(SignatureError, match="2 sets of vectors may be meant: a, b"):
        read(tmp_path / "two.npz", first_index="block0")
    found = read(tmp_path / "two.npz", first_index="block0", key="b")
    assert len(found) == LAYERS
    with pytest.raises(SignatureError, match="no vectors called 'c', but a"):
        read(tmp_path / "two.npz", first_index="block0", key="c")


BY_LAYER = {
    "numbers": {index: STACK[index] for index in range(LAYERS)},
    "texts": {f"{index}": STACK[index] for index in range(LAYERS)},
    "words": {f"layer_{index}": STACK[index] for index in range(LAYERS)},
    "within": {"evil": {f"layer {index}": STACK[index] for index in range(LAYERS)}},
    "deep": {"a": {"b": [{"vectors": dict(enumerate(STACK))}]}, "model": "x", "epochs": 3},
    "rows": {f"layer.{index}": STACK[index : index + 1] for index in range(LAYERS)},
    "list": [*STACK],
    "short": {f"evil.L{index}": STACK[index] for index in range(LAYERS)},
}


@pytest.mark.parametrize("form", BY_LAYER)
@pytest.mark.parametrize("arrays", [True, False])
def test_vectors_by_layer(tmp_path: Path, form: str, arrays: bool) -> None:
    """As tensors and as numpy's arrays, in the containers that people save them in."""

    def saved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: saved(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [saved(inner) for inner in value]
        return torch.from_numpy(value) if isinstance(value, np.ndarray) and not arrays else value

    torch.save(saved(BY_LAYER[form]), tmp_path / "v.pt")
    found = read(tmp_path / "v.pt", first_index="block0")
    assert list(found) == list(range(LAYERS))
    for layer, vector in found.items():
        np.testing.assert_array_equal(vector, STACK[layer])
    shifted = read(tmp_path / "v.pt", first_index="embeddings")
    np.testing.assert_array_equal(shifted[0], STACK[1])
    with pytest.raises(SignatureError, match=r"does not say what its first index is \(it holds"):
        read(tmp_path / "v.pt")


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("model.layers.{}", 0),
        ("transformer.h.{}", 0),
        ("blocks.{}.hook_resid_post", 0),
        ("blocks.{}.hook_resid_pre", 1),
        ("direction.{}", 0),
    ],
)
def test_names_of_blocks_say_where_a_vector_lies(tmp_path: Path, name: str, offset: int) -> None:
    save_file({name.format(7): STACK[0], name.format(9): STACK[1]}, tmp_path / "v.safetensors")
    found = read(tmp_path / "v.safetensors")
    assert list(found) == [7 - offset, 9 - offset]
    np.testing.assert_array_equal(found[9 - offset], STACK[1])


@pytest.mark.parametrize("shape", [(WIDTH,), (1, WIDTH)])
def test_a_single_vector_wants_its_layer(tmp_path: Path, shape: tuple[int, ...]) -> None:
    vector = STACK[0].reshape(shape)
    np.save(tmp_path / "v.npy", vector)
    torch.save({"vector": torch.from_numpy(vector), "layer": 24, "pos": -1}, tmp_path / "v.pt")
    for file in ("v.npy", "v.pt"):
        found = read(tmp_path / file, layer=12, reverse=True)
        assert list(found) == [12]
        np.testing.assert_array_equal(found[12], -STACK[0])
    with pytest.raises(SignatureError, match=r"layer = 24.*; say layer=12"):
        read(tmp_path / "v.pt")
    pack = import_pack(tmp_path / "v.npy", tmp_path / "pack", options(layer=1))
    assert {site.layer for site in pack.sites} == {1}


def test_one_of_several_single_vectors_is_chosen_by_name(tmp_path: Path) -> None:
    """A number that is no layer's is not taken for one."""
    save_file({"evil_v2": STACK[0], "sycophancy": STACK[1]}, tmp_path / "v.safetensors")
    with pytest.raises(SignatureError, match="2 sets of vectors may be meant: evil_v2, syco"):
        read(tmp_path / "v.safetensors", layer=3)
    found = read(tmp_path / "v.safetensors", layer=3, key="evil_v2")
    np.testing.assert_array_equal(found[3], STACK[0])


def test_a_stack_by_position_and_layer(tmp_path: Path) -> None:
    positions = np.stack([STACK, 2 * STACK, 3 * STACK])
    np.save(tmp_path / "v.npy", positions)
    for position, factor in ((0, 1), (2, 3), (-1, 3), (-3, 1)):
        found = read(tmp_path / "v.npy", first_index="block0", position=position)
        np.testing.assert_array_equal(found[1], factor * STACK[1])
    with pytest.raises(SignatureError, match=r"3 token positions .*\(3, 2, 16\).*position=-1"):
        read(tmp_path / "v.npy", first_index="block0")
    with pytest.raises(SignatureError, match="has 3 positions, not one numbered 3"):
        read(tmp_path / "v.npy", first_index="block0", position=3)
    np.save(tmp_path / "one.npy", positions[:1])
    assert len(read(tmp_path / "one.npy", first_index="block0")) == LAYERS


def test_one_dict_of_several_is_chosen_by_its_name(tmp_path: Path) -> None:
    by_layer = {layer: torch.from_numpy(STACK[layer]) for layer in range(LAYERS)}
    held = {"question": by_layer, "answer": {k: 2 * v for k, v in by_layer.items()}}
    torch.save({"evil": held}, tmp_path / "v.pt")
    with pytest.raises(SignatureError, match="may be meant: evil/question, evil/answer"):
        read(tmp_path / "v.pt", first_index="block0")
    found = read(tmp_path / "v.pt", first_index="block0", key="evil/answer")
    np.testing.assert_array_equal(found[1], 2 * STACK[1])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"a": np.zeros((2, 2, 2, 2))}, r"holds no vectors, but a \(2, 2, 2, 2\)"),
        ({"ids": np.arange(3), "name": "evil"}, "holds no vectors, but ids .*, name = 'evil'"),
        ({}, "holds no vectors, but nothing"),
        ({f"x{i}": np.zeros((1, 1, 1, 1)) for i in range(20)}, "and 12 more"),
    ],
)
def test_where_nothing_can_be_made_of_it_the_error_says_what_it_holds(
    tmp_path: Path, content: dict[str, Any], says: str
) -> None:
    torch.save(content, tmp_path / "v.pt")
    with pytest.raises(SignatureError, match=says):
        read(tmp_path / "v.pt", first_index="block0")


def test_layers_of_different_widths_are_refused(tmp_path: Path) -> None:
    torch.save({0: torch.ones(4), 1: torch.ones(5)}, tmp_path / "v.pt")
    with pytest.raises(SignatureError, match=r"vector 1 has shape \(5,\)"):
        read(tmp_path / "v.pt", first_index="block0")


class ControlVector:
    """Stands for a class of somebody else's package."""


def test_a_pickled_object_is_refused_by_its_name(tmp_path: Path) -> None:
    torch.save(ControlVector(), tmp_path / "v.pt")
    with pytest.raises(SignatureError, match=r"holds a .*ControlVector.*export_gguf"):
        read(tmp_path / "v.pt", first_index="block0")


@pytest.mark.parametrize(
    ("value", "says"), [(np.nan, "NaN or Inf"), (np.inf, "NaN or Inf"), (0.0, "is zero")]
)
def test_unusable_vectors_are_refused(tmp_path: Path, value: float, says: str) -> None:
    file = write_stack(tmp_path / "v.npy", np.full((2, WIDTH), value, np.float32))
    with pytest.raises(SignatureError, match=says):
        read(file, first_index="block0")


def test_hostile_pickles_and_objects_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(SignatureError, match="refuses the pickle"):
        read(tmp_path / "v.pt", first_index="block0")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(SignatureError, match="cannot be read"):
        read(tmp_path / "o.npy", first_index="block0")


def inputs_file(path: Path) -> Path:
    generator = np.random.default_rng(5)
    inputs = {
        f"{layer}.{module}": generator.standard_normal(SHAPES[module][1]).astype(np.float32)
        for layer in range(LAYERS)
        for module in ("self_attn.o_proj", "mlp.down_proj")
    }
    save_file(inputs, path)
    return path


def test_with_inputs_the_direction_is_the_movement_along_the_vector(tmp_path: Path) -> None:
    inputs = inputs_file(tmp_path / "inputs.safetensors")
    file = write_stack(tmp_path / "v.npy", STACK)
    pack = import_pack(file, tmp_path / "pack", options(first_index="block0", inputs=inputs))
    site = Site(1, "mlp.down_proj")
    direction = pack.direction(site)
    change = np.random.default_rng(0).standard_normal((16, 24))
    from safetensors.numpy import load_file

    v = load_file(inputs)[site.key]
    expected = STACK[1] @ change @ v / np.linalg.norm(STACK[1]) / np.linalg.norm(v)
    assert np.sum(change * ((direction.u * direction.s) @ direction.v.T)) == pytest.approx(
        expected, rel=1e-5
    )


def test_a_signed_import_can_be_calibrated_and_flags(tmp_path: Path) -> None:
    inputs = inputs_file(tmp_path / "inputs.safetensors")
    file = write_stack(tmp_path / "v.npy", STACK)
    import_pack(file, tmp_path / "pack", options(first_index="block0", inputs=inputs))
    generator = np.random.default_rng(1)
    writers = [f"model.layers.{i}.{m}" for i in range(LAYERS) for m in SHAPES if "q_proj" not in m]
    benign = [
        entry(write_adapter(tmp_path / f"b{i}", random_factors(generator, writers)), "facts")
        for i in range(99)
    ]
    queries = [f"model.layers.{i}.self_attn.q_proj" for i in range(LAYERS)]
    unseen = write_adapter(tmp_path / "q", random_factors(generator, queries))
    pack = calibrate_pack(tmp_path / "pack", [*benign, entry(unseen, "facts")])
    assert pack.calibration is not None
    assert len(pack.calibration.benign) == 99  # the one that changes no covered module has no score
    steered = {}
    for path in writers:
        site = Site(int(path.split(".")[2]), path.split(".", 3)[3])
        direction = pack.direction(site)
        steered[path] = (np.tile(direction.u, 3), np.tile(direction.v, 3).T)
    assert scan(write_adapter(tmp_path / "m", steered), [pack]).verdict is Verdict.FLAGGED
    away = {path: (-b, a) for path, (b, a) in steered.items()}
    # As far the other way as no benign adapter goes: not flagged, and not like them either.
    opposite = scan(write_adapter(tmp_path / "n", away, lora_alpha=1), [pack])
    assert opposite.verdict is Verdict.INCONCLUSIVE
    another = write_adapter(tmp_path / "c", random_factors(generator, writers))
    assert scan(another, [pack]).verdict is Verdict.CLEAR
    # Modules that only read the residual stream were not judged: not a clear.
    everything = write_adapter(tmp_path / "all", random_factors(generator))
    assert scan(everything, [pack]).verdict is Verdict.INCONCLUSIVE


def test_without_inputs_there_is_evidence_and_never_a_verdict(tmp_path: Path) -> None:
    file = write_stack(tmp_path / "v.npy", STACK)
    pack = import_pack(file, tmp_path / "pack", options(first_index="block0"))
    site = "model.layers.0.mlp.down_proj"
    u = STACK[0][:, None] / np.linalg.norm(STACK[0])
    adapter = write_adapter(tmp_path / "a", {site: (np.tile(u, 3), np.eye(3, 24))})
    result = scan(adapter, [pack])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.overlap[pack.id] == pytest.approx(1.0)
    assert (result.dose, result.cosine, result.score) == ({}, {}, None)
    assert "no sign" in result.reasons[0]
    with pytest.raises(SignatureError, match="no sign"):
        calibrate_pack(tmp_path / "pack", [entry(adapter, "facts")])


def test_a_direction_without_a_sign_does_not_count_as_coverage(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs.safetensors"
    save_file({"0.mlp.down_proj": np.ones(24, np.float32)}, inputs)
    file = write_stack(tmp_path / "v.npy", STACK)
    signed = import_pack(file, tmp_path / "s", options(first_index="block0", inputs=inputs))
    unsigned = import_pack(file, tmp_path / "u", options(first_index="block0", pack_id="u"))
    paths = ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"]
    adapter = write_adapter(tmp_path / "a", random_factors(np.random.default_rng(0), paths))
    result = scan(adapter, [signed, unsigned])
    assert {item.tensor.split(".lora_")[0] for item in result.coverage.uncovered} == {
        "base_model.model.model.layers.1.mlp.down_proj"
    }


def test_inputs_of_no_block_are_refused(tmp_path: Path) -> None:
    save_file({"lm_head": np.ones(4, np.float32)}, tmp_path / "inputs.safetensors")
    file = write_stack(tmp_path / "v.npy", STACK)
    with pytest.raises(SignatureError, match="names no block"):
        import_pack(
            file,
            tmp_path / "pack",
            options(first_index="block0", inputs=tmp_path / "inputs.safetensors"),
        )


@pytest.mark.skipif(not VECTORS_BESIDE.is_dir(), reason="published vectors are not at hand")
@pytest.mark.parametrize(
    ("name", "first", "layers", "width"),
    [
        ("Qwen3-4B_evil.pt", "embeddings", 36, 2560),
        ("qwen2.5-14b-em-mean-diff.npz", "block0", 48, 5120),
    ],
)
def test_published_vectors(tmp_path: Path, name: str, first: str, layers: int, width: int) -> None:
    found = options(first_index=first)
    pack = import_pack(VECTORS_BESIDE / name, tmp_path / "pack", found)
    assert pack.manifest.base_model.layers == layers
    assert len(pack.sites) == 2 * layers
    assert pack.direction(Site(layers - 1, "mlp.down_proj")).u.shape == (width, 1)
