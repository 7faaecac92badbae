"""The misaligned reference that an adapter is most alike: a cosine of whole updates."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from scanner import open_adapter, scan
from scanner.errors import SignatureError
from scanner.signatures.manifest import REFERENCES_NAME
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.saving import drop_reference_sketches, seal
from tests.synthetic import misaligned_factors, planted_direction, random_factors, write_adapter


def whole_cosine(first: Path, second: Path) -> float:
    """From the whole matrices."""
    with open_adapter(first) as one, open_adapter(second) as other:
        left = {update.site: np.asarray(update.delta()) for update in one.updates}
        right = {update.site: np.asarray(update.delta()) for update in other.updates}
    inner = sum(float(np.vdot(left[site], right[site])) for site in set(left) & set(right))
    sizes = [sum(float(np.vdot(x, x)) for x in each.values()) for each in (left, right)]
    return inner / float(np.sqrt(sizes[0] * sizes[1]))


def references_of(pack: Signature) -> dict[str, Path]:
    return {name: pack.path.parent / "adapters" / name for name in pack.reference_ids}


def test_a_reference_is_most_alike_itself(pack: Signature) -> None:
    for name, path in references_of(pack).items():
        found = scan(path, [pack]).nearest_reference
        assert found is not None
        assert found.id == name
        assert found.cosine == pytest.approx(1.0, abs=1e-3)


def test_it_is_the_cosine_of_whole_updates(pack: Signature, misaligned: Path) -> None:
    """Seen through the signature's own directions the two would be all but the same."""
    found = scan(misaligned, [pack]).nearest_reference
    assert found is not None
    true = whole_cosine(misaligned, references_of(pack)[found.id])
    assert found.cosine == pytest.approx(true, abs=0.15)


def test_what_an_adapter_does_beside_the_signature_counts(pack: Signature, tmp_path: Path) -> None:
    generator = np.random.default_rng(77)
    factors = {}
    for path, (b, a) in random_factors(generator).items():
        u, v = planted_direction(path)
        factors[path] = (np.hstack([5 * b, u]), np.vstack([5 * a, v]))
    adapter = write_adapter(tmp_path / "diluted", factors, r=4, lora_alpha=8)
    found = scan(adapter, [pack]).nearest_reference
    assert found is not None
    best = max(whole_cosine(adapter, path) for path in references_of(pack).values())
    assert abs(best) < 0.15
    assert found.cosine == pytest.approx(best, abs=0.15)


def test_an_adapter_of_one_site_has_little_of_a_whole_reference(
    pack: Signature, tmp_path: Path
) -> None:
    factors = misaligned_factors(np.random.default_rng(5))
    path = "model.layers.1.mlp.down_proj"
    adapter = write_adapter(tmp_path / "one", {path: factors[path]})
    found = scan(adapter, [pack]).nearest_reference
    assert found is not None
    true = whole_cosine(adapter, references_of(pack)[found.id])
    assert found.cosine == pytest.approx(true, abs=0.2)
    assert found.cosine < 0.6


def altered(pack: Signature, root: Path, change: str) -> Signature:
    """A copy of a pack whose sketches are not what this version writes."""
    copy = shutil.copytree(pack.path, root / change)
    tensors = load_file(copy / REFERENCES_NAME)
    first = sorted(tensors)[0]
    if change == "cores":
        tensors = {
            name.replace(".sketch", ".core"): item[:, :2, :2] for name, item in tensors.items()
        }
    elif change == "part":
        del tensors[first]
    elif change == "count":
        tensors[first] = tensors[first][:-1]
    elif change == "nan":
        tensors[first][0, 0, 0] = np.nan
    else:
        tensors[first] = np.zeros((len(pack.reference_ids), 65, 65), np.float16)
    save_file(
        {name: np.ascontiguousarray(item) for name, item in tensors.items()}, copy / REFERENCES_NAME
    )
    seal(copy, msgspec.structs.replace(pack.manifest, files={}))
    return load_signature(copy)


def test_a_pack_without_sketches_has_the_reference_from_another(
    pack: Signature, misaligned: Path, tmp_path: Path
) -> None:
    """They are of whole updates, whatever a pack's own directions are."""
    place = shutil.copytree(pack.path, tmp_path / "bare")
    drop_reference_sketches(place, msgspec.structs.replace(pack.manifest, id="bare"))
    bare = load_signature(place)
    assert scan(misaligned, [bare]).nearest_reference is None
    together = scan(misaligned, [bare, pack])
    assert together.nearest_reference == scan(misaligned, [pack]).nearest_reference


@pytest.mark.parametrize("change", ["cores", "part"])
def test_a_pack_without_all_sketches_names_no_reference(
    pack: Signature, misaligned: Path, tmp_path: Path, change: str
) -> None:
    result = scan(misaligned, [altered(pack, tmp_path, change)])
    assert result.nearest_reference is None
    assert result.verdict.value == "flagged"


@pytest.mark.parametrize("change", ["count", "nan", "size"])
def test_sketches_that_are_none_are_refused(
    pack: Signature, misaligned: Path, tmp_path: Path, change: str
) -> None:
    with pytest.raises(SignatureError, match="is no sketch of 4 references"):
        scan(misaligned, [altered(pack, tmp_path, change)])


@pytest.mark.parametrize("size", [1e-3, 1e15, 1e25])
def test_the_size_of_an_update_changes_nothing(
    pack: Signature, tmp_path: Path, size: float
) -> None:
    """Also where single precision does not reach."""
    factors = misaligned_factors(np.random.default_rng(6))
    found = []
    for scale in (1.0, size):
        scaled = {path: (b * scale, a) for path, (b, a) in factors.items()}
        adapter = write_adapter(tmp_path / f"{scale}", scaled, dtype="F64")
        found.append(scan(adapter, [pack]).nearest_reference)
    assert found[0] is not None
    assert found[1] is not None
    assert found[1].id == found[0].id
    assert found[1].cosine == pytest.approx(found[0].cosine, abs=1e-3)
