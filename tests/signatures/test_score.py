"""One score per adapter: signed writes added up over layers, the strongest within one, and dose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner import geometry
from scanner.formats.model import Site
from scanner.geometry import Direction, LowRank, SiteProjection
from scanner.signatures.numbers import ScoreScale
from scanner.signatures.score import (
    SCALED_FROM,
    adapter_score,
    changed_layers,
    scale_of,
    signed_write_score,
    with_dose,
)


def projection(seed: int, scale: float = 1.0) -> SiteProjection:
    generator = np.random.default_rng(seed)
    u = np.linalg.qr(generator.standard_normal((12, 2)))[0]
    v = np.linalg.qr(generator.standard_normal((10, 2)))[0]
    update = LowRank(generator.standard_normal((12, 3)), generator.standard_normal((3, 10)), scale)
    return geometry.project(update, Direction(u, np.array([2.0, 1.0]), v))


def test_sites_of_several_layers_are_added_up() -> None:
    sites = {Site(layer, "mlp.down_proj"): projection(layer) for layer in range(3)}
    assert changed_layers(sites) == 3
    assert signed_write_score(sites) == geometry.site_score(sites.values())


def test_within_one_layer_the_strongest_site_counts() -> None:
    sites = {Site(4, f"self_attn.{name}_proj"): projection(i) for i, name in enumerate("qkvo")}
    assert changed_layers(sites) == 1
    assert signed_write_score(sites) == max(geometry.signed_write(item) for item in sites.values())


def test_layers_that_are_not_changed_do_not_count() -> None:
    sites = {Site(1, "mlp.down_proj"): projection(1), Site(2, "mlp.down_proj"): projection(2, 0.0)}
    assert changed_layers(sites) == 1
    assert signed_write_score(sites) == geometry.signed_write(sites[Site(1, "mlp.down_proj")])


def test_an_adapter_that_changes_nothing_has_no_score() -> None:
    assert np.isnan(signed_write_score({Site(0, "mlp.down_proj"): projection(0, 0.0)}))
    assert signed_write_score({Site(0, "a"): projection(3)}) == pytest.approx(
        geometry.site_score([projection(3)])
    )


SCALE = ScoreScale(signed_write=(0.1, 0.2), dose=(-0.5, 0.25), both=0.8, norm=3.0)
numbers = st.floats(-5, 5, allow_subnormal=False)


@given(signed_write=numbers, dose=numbers)
def test_the_dose_can_only_raise_a_score(signed_write: float, dose: float) -> None:
    score = with_dose(signed_write, dose, 2.0, SCALE)
    above = ((signed_write - 0.1) / 0.2 + (dose + 0.5) / 0.25) / 2
    assert score >= signed_write
    assert score == pytest.approx(max(signed_write, 0.1 + 0.2 * (above / 0.8 - 1.0)))
    assert with_dose(signed_write, dose + 1.0, 2.0, SCALE) >= score


def test_without_a_scale_or_a_dose_the_signed_write_counts_alone() -> None:
    assert with_dose(0.3, 100.0, 2.0, None) == 0.3
    assert with_dose(0.3, float("nan"), 2.0, SCALE) == 0.3
    assert np.isnan(with_dose(float("nan"), 1.0, 2.0, SCALE))


@given(seed=st.integers(0, 2**32 - 1), size=st.floats(1e-6, 1e6))
def test_scores_do_not_depend_on_the_unit_of_the_dose(seed: int, size: float) -> None:
    """Dose and write together spread as much as the write alone, one deviation further down."""
    generator = np.random.default_rng(seed)
    writes, doses = generator.standard_normal((2, 40)) * [[0.3], [2.0]] + [[1.0], [-4.0]]
    scale = scale_of(list(writes), list(doses), [1.0] * 40)
    other = scale_of(list(writes), list(size * doses), [1.0] * 40)
    assert scale is not None
    assert other is not None
    together = [with_dose(-9.0, dose, 1.0, scale) for dose in doses]
    np.testing.assert_allclose(
        [with_dose(-9.0, size * dose, 1.0, other) for dose in doses], together
    )
    mean = (
        (writes - writes.mean()) / writes.std(ddof=1) + (doses - doses.mean()) / doses.std(ddof=1)
    ) / 2
    expected = writes.mean() + writes.std(ddof=1) * (mean / mean.std(ddof=1) - 1.0)
    found = [with_dose(write, dose, 1.0, scale) for write, dose in zip(writes, doses, strict=True)]
    np.testing.assert_allclose(found, np.maximum(writes, expected))


@pytest.mark.parametrize(
    ("writes", "doses"),
    [
        ([0.1 * i for i in range(SCALED_FROM - 1)], [1.0 * i for i in range(SCALED_FROM - 1)]),
        ([0.1 * i for i in range(30)], [1.0] * 30),
        ([0.5] * 30, [1.0 * i for i in range(30)]),
        ([1.0 * i for i in range(30)], [-1.0 * i for i in range(30)]),
    ],
    ids=["too few", "one dose", "one write", "opposites"],
)
def test_benign_adapters_that_say_nothing_of_the_dose(
    writes: list[float], doses: list[float]
) -> None:
    assert scale_of(writes, doses, [1.0] * len(writes)) is None


@given(size=st.floats(1, 1e6), dose=st.floats(-2, 2))
def test_making_an_update_larger_than_all_benign_ones_changes_nothing(
    size: float, dose: float
) -> None:
    """A share has no size, and a dose counts up to the size of the largest of them."""
    largest = with_dose(0.3, dose, SCALE.norm, SCALE)
    assert with_dose(0.3, size * dose, size * SCALE.norm, SCALE) == pytest.approx(largest)
    smaller = with_dose(0.3, dose / 2, SCALE.norm / 2, SCALE)
    assert (smaller <= largest) if dose > 0 else (smaller >= largest)


def test_each_shape_has_its_own_scale() -> None:
    several = {Site(layer, "mlp.down_proj"): projection(layer) for layer in range(3)}
    one = {Site(4, "mlp.down_proj"): projection(3)}
    generous = ScoreScale(signed_write=(0.0, 1.0), dose=(-1e6, 1.0), both=1.0, norm=1e9)
    assert adapter_score(one, {"several layers": generous}) == signed_write_score(one)
    assert adapter_score(several, {"several layers": generous}) > 1e5
