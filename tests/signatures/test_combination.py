"""Signed write, dose and strongest site as one score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.signatures.combination import (
    AMOUNTS,
    SCALED_FROM,
    SITE_SCALED_FROM,
    STRONGEST_MARGIN,
    combined_score,
    scale_of,
    strongest,
)
from scanner.signatures.numbers import Amount, Measurement, ScoreScale, SiteNumbers, SiteScale

SCALE = ScoreScale(signed_write=(0.1, 0.2), dose=(-0.5, 0.25), both=0.8, norm=3.0)
numbers = st.floats(-5, 5, allow_subnormal=False)


def adapter(
    signed_write: float,
    dose: float,
    norm: float = 2.0,
    sites: dict[str, SiteNumbers] | None = None,
) -> Measurement:
    return Measurement(signed_write, dose, norm, sites or {})


def site(
    dose: float | None, felt_write: float | None = None, share: float | None = None
) -> SiteNumbers:
    return SiteNumbers(
        norm=1.0, dose=dose, write=None, signed_write=None, felt_write=felt_write, share=share
    )


@given(signed_write=numbers, dose=numbers)
def test_the_dose_can_only_raise_a_score(signed_write: float, dose: float) -> None:
    score = combined_score(adapter(signed_write, dose), SCALE)
    above = ((signed_write - 0.1) / 0.2 + (dose + 0.5) / 0.25) / 2
    assert score >= signed_write
    assert score == pytest.approx(max(signed_write, 0.1 + 0.2 * (above / 0.8 - 1.0)))
    assert combined_score(adapter(signed_write, dose + 1.0), SCALE) >= score


def test_without_a_scale_or_a_dose_the_signed_write_counts_alone() -> None:
    assert combined_score(adapter(0.3, 100.0), None) == 0.3
    assert combined_score(adapter(0.3, float("nan")), SCALE) == 0.3
    assert np.isnan(combined_score(adapter(float("nan"), 1.0), SCALE))


def test_what_has_no_signed_write_has_no_score_however_strong_a_site_is() -> None:
    strong = with_sites(SCALE, {"a": SiteScale(0.1, None)}, {"dose": (0.0, 1.0)})
    found = combined_score(adapter(float("nan"), 1.0, sites={"a": site(1e9)}), strong)
    assert np.isnan(found)


def with_sites(
    scale: ScoreScale, sites: dict[str, SiteScale], spread: dict[Amount, tuple[float, float]]
) -> ScoreScale:
    return ScoreScale(
        signed_write=scale.signed_write, dose=scale.dose, both=scale.both, norm=scale.norm,
        sites=sites, strongest=spread,
    )  # fmt: skip


@given(seed=st.integers(0, 2**32 - 1), size=st.floats(1e-6, 1e6))
def test_scores_do_not_depend_on_the_unit_of_the_dose(seed: int, size: float) -> None:
    """Dose and write together spread as much as the write alone, one deviation further down."""
    generator = np.random.default_rng(seed)
    writes, doses = generator.standard_normal((2, 40)) * [[0.3], [2.0]] + [[1.0], [-4.0]]
    pairs = list(zip(writes.tolist(), doses.tolist(), strict=True))
    scale = scale_of([adapter(write, dose, 1.0) for write, dose in pairs])
    other = scale_of([adapter(write, size * dose, 1.0) for write, dose in pairs])
    together = [combined_score(adapter(-9.0, dose, 1.0), scale) for dose in doses.tolist()]
    np.testing.assert_allclose(
        [combined_score(adapter(-9.0, size * dose, 1.0), other) for dose in doses.tolist()],
        together,
    )
    mean = (
        (writes - writes.mean()) / writes.std(ddof=1) + (doses - doses.mean()) / doses.std(ddof=1)
    ) / 2
    expected = writes.mean() + writes.std(ddof=1) * (mean / mean.std(ddof=1) - 1.0)
    found = [combined_score(adapter(write, dose, 1.0), scale) for write, dose in pairs]
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
    assert scale_of([adapter(*pair) for pair in zip(writes, doses, strict=True)]) is None


def benign(seed: int, n: int = 60, m: int = 5) -> list[Measurement]:
    """Adapters of m sites, the later ones of larger doses; one in three leaves a site alone."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        doses = generator.standard_normal(m) * 10.0 ** np.arange(m)
        felt = generator.standard_normal((m, 2))
        sites = {
            f"{k}.x": site(float(doses[k]), float(felt[k, 0]), float(abs(felt[k, 1])))
            for k in range(m)
            if generator.random() > 1 / 3
        }
        write = float(generator.standard_normal())
        found.append(adapter(write, float(doses.sum()), float(generator.random()), sites))
    return found


@given(seed=st.integers(0, 2**32 - 1))
def test_the_strongest_site_is_in_units_of_what_benign_adapters_do_there(seed: int) -> None:
    """Against numpy, over a table with NaN where an adapter leaves a site alone."""
    known = benign(seed)
    scale = scale_of(known)
    assert scale is not None
    keys = sorted({key for item in known for key in item.sites})
    for amount in AMOUNTS:

        def done(found: SiteNumbers | None, amount: Amount = amount) -> float:
            if found is None or found.dose is None:
                return np.nan
            if amount == "dose":
                return found.dose
            assert found.felt_write is not None
            assert found.share is not None
            return found.felt_write * found.share

        table = np.array([[done(item.sites.get(key)) for key in keys] for item in known])
        units = np.sqrt(np.nanmean(table**2, axis=0))
        some = [row for row in table if not np.isnan(row).all()]
        largest = [np.nanmax(row / units) for row in some]
        np.testing.assert_allclose(
            scale.strongest[amount], (np.mean(largest), np.std(largest, ddof=1)), rtol=2e-3
        )
        for item, value in zip([item for item in known if item.sites], largest, strict=True):
            assert strongest(item.sites, scale.sites, amount) == pytest.approx(value, rel=1e-3)


@given(seed=st.integers(0, 2**32 - 1), elsewhere=st.lists(numbers, min_size=1, max_size=4))
def test_nothing_that_is_done_elsewhere_hides_the_strongest_site(
    seed: int, elsewhere: list[float]
) -> None:
    """Whatever other sites do, and whatever it makes of signed write and dose."""
    scale = scale_of(benign(seed))
    assert scale is not None
    alone = {"0.x": site(200.0, 40.0, 5.0)}
    found = combined_score(adapter(-3.0, -1e5, 1.0, alone), scale)
    middle, spread = scale.signed_write
    assert found > middle + 10 * spread
    others = {f"{k + 1}.x": site(value, value, 1.0) for k, value in enumerate(elsewhere)}
    assert combined_score(adapter(-9.0, -1e9, 1.0, alone | others), scale) >= found


def test_it_counts_by_a_margin() -> None:
    scale = with_sites(SCALE, {"a": SiteScale(0.5, 2.0)}, {"dose": (1.0, 0.25)})
    measured = adapter(-5.0, -50.0, sites={"a": site(2.0, 9.0, 9.0)})
    above = (2.0 / 0.5 - 1.0) / 0.25
    expected = pytest.approx(0.1 + 0.2 * (above - STRONGEST_MARGIN))
    assert combined_score(measured, scale) == expected, "what is felt has no spread: not counted"


def test_sites_of_which_too_little_is_known_are_not_compared() -> None:
    known = benign(3)
    few = [
        replace(item, sites={**item.sites, "9.x": site(1e-9, 1e-9, 1.0)})
        for item in known[: SITE_SCALED_FROM - 1]
    ]
    few += known[SITE_SCALED_FROM - 1 :]
    scale = scale_of(few)
    assert scale is not None
    assert "9.x" not in scale.sites
    assert strongest({"9.x": site(5.0, 5.0, 1.0)}, scale.sites, "dose") is None
    assert strongest({}, scale.sites, "dose") is None
    nothing = {"0.x": site(None)}
    assert all(strongest(nothing, scale.sites, amount) is None for amount in AMOUNTS)


def test_packs_that_do_not_know_the_inputs_compare_doses_alone() -> None:
    known = [
        replace(item, sites={key: site(found.dose) for key, found in item.sites.items()})
        for item in benign(4)
    ]
    scale = scale_of(known)
    assert scale is not None
    assert set(scale.strongest) == {"dose"}
    assert all(item.felt_written is None for item in scale.sites.values())


def test_calibrations_that_say_nothing_of_sites_compare_none() -> None:
    scale = scale_of([replace(item, sites={}) for item in benign(5)])
    assert scale is not None
    assert (scale.sites, scale.strongest) == ({}, {})


@given(size=st.floats(1, 1e6), dose=st.floats(-2, 2))
def test_making_an_update_larger_than_all_benign_ones_changes_nothing(
    size: float, dose: float
) -> None:
    """A share has no size, and doses count up to the size of the largest of them."""
    scale = with_sites(
        SCALE, {"a": SiteScale(0.1, 0.1)}, {"dose": (0.0, 1.0), "felt written": (0.0, 1.0)}
    )

    def of(factor: float) -> float:
        sites = {"a": site(factor * dose, 0.5, factor)}
        return combined_score(adapter(0.3, factor * dose, factor * scale.norm, sites), scale)

    assert of(size) == pytest.approx(of(1.0))
    assert (of(0.5) <= of(1.0)) if dose > 0 else (of(0.5) <= max(of(1.0), of(0.5)))
