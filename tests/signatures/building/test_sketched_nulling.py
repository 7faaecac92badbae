"""The sketch of a nulling set against the whole of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import SignatureError
from scanner.formats.base_identity import normalise_base_name
from scanner.formats.model import Site
from scanner.signatures.building import sketched_nulling
from scanner.signatures.building.nulling import stack_updates
from scanner.signatures.building.opened import Member, open_member
from scanner.signatures.building.sketched_nulling import SketchedNulling, shrunk
from tests.synthetic import BASE, LAYERS, SHAPES, entry, random_factors, write_adapter

SITES = {Site(layer, name): shape for layer in range(LAYERS) for name, shape in SHAPES.items()}
SITE = Site(1, "mlp.down_proj")
D_OUT = SHAPES["mlp.down_proj"][0]


def member(root: Path, seed: int) -> Member:
    directory = root / f"adapter-{seed}"
    if not directory.exists():
        write_adapter(directory, random_factors(np.random.default_rng(seed)))
    return open_member(entry(directory, f"owner-{seed % 3}"), {str(normalise_base_name(BASE))})


@given(
    seed=st.integers(0, 2**32 - 1),
    blocks=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    most=st.integers(1, 8),
)
def test_the_published_bound_holds(seed: int, blocks: list[int], most: int) -> None:
    generator = np.random.default_rng(seed)
    d_out = 9
    kept, everything = np.zeros((d_out, 0)), np.zeros((d_out, 0))
    for width in blocks:
        block = generator.standard_normal((d_out, width)) * 10.0 ** generator.uniform(-2, 2)
        kept = shrunk(np.hstack([kept, block]), most)
        everything = np.hstack([everything, block])
    assert kept.shape[1] <= most
    lost = np.linalg.eigvalsh(everything @ everything.T - kept @ kept.T)
    energy = np.sort(np.linalg.svd(everything, compute_uv=False) ** 2)[::-1]
    slack = 1e-9 * energy.sum()
    assert lost[0] >= -slack
    for k in range(most + 1):
        assert lost[-1] <= energy[k:].sum() / (most + 1 - k) + slack


def test_few_adapters_are_kept_exactly(tmp_path: Path) -> None:
    sketch = SketchedNulling(SITES)
    members = [member(tmp_path, seed) for seed in range(4)]
    for item in members:
        assert sketch.add(item.entry.adapter, item)
    updates = [(item.at(SITE), "") for item in members]
    whole = stack_updates([(u, f) for u, f in updates if u is not None], D_OUT)
    expected = whole.common_directions(3)
    found = sketch.stack(SITE, D_OUT).common_directions(3)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    families = [item.family for item in sketch.members.values()]
    assert families == ["owner-0", "owner-1", "owner-2", "owner-0"]


def test_a_state_is_taken_up_by_the_same_build_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sketched_nulling, "SKETCH_COLUMNS", 4)
    state = tmp_path / "state"
    through, broken = SketchedNulling(SITES), SketchedNulling(SITES, state, "one")
    for seed in range(3):
        through.add(str(seed), member(tmp_path, seed))
        broken.add(str(seed), member(tmp_path, seed))
    again = SketchedNulling(SITES, state, "one")
    assert again.members == broken.members
    for seed in range(3, 6):
        through.add(str(seed), member(tmp_path, seed))
        again.add(str(seed), member(tmp_path, seed))
    for site, (d_out, _) in SITES.items():
        np.testing.assert_array_equal(
            again.stack(site, d_out).columns, through.stack(site, d_out).columns
        )
    assert SketchedNulling(SITES, state, "other").members == {}
    state.write_bytes(state.read_bytes()[:40])
    assert SketchedNulling(SITES, state, "one").members == {}


def test_what_changes_no_site_or_does_not_fit_is_not_added(tmp_path: Path) -> None:
    elsewhere = SketchedNulling({Site(7, "mlp.down_proj"): (16, 24)})
    assert not elsewhere.add("a", member(tmp_path, 0))
    assert elsewhere.stack(SITE, D_OUT).columns.shape == (D_OUT, 0)
    narrow = SketchedNulling({**SITES, SITE: (16, 25)})
    with pytest.raises(SignatureError, match=r"1.mlp.down_proj is 16 x 24, the base has 16 x 25"):
        narrow.add("a", member(tmp_path, 0))
    assert narrow.members == {}
    assert narrow.stack(Site(0, "mlp.down_proj"), D_OUT).columns.shape == (D_OUT, 0)
