"""The p-value by shape and family: its definition, its guarantee, and that it is one number."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.errors import AlphaUnsupportedError
from scanner.results import Shape
from scanner.statistics.calibration import GROUP_FLOOR, BenignScores
from scanner.statistics.conformal import conformal_p_value, smallest_level, supports

Adapter = tuple[str, Shape, int]
"""Family, shape, score."""

_SIZES = st.sampled_from([1, 3, 18, 19, 20, 30, 45])


@st.composite
def calibrations(draw: st.DrawFn) -> list[Adapter]:
    """Families of sizes on both sides of every rule, some in both shapes."""
    found: list[Adapter] = []
    for name in "abc"[: draw(st.integers(1, 3))]:
        for shape in draw(
            st.sampled_from([[Shape.SEVERAL_LAYERS], [Shape.ONE_LAYER], list(Shape)])
        ):
            size, highest = draw(_SIZES), draw(st.integers(0, 30))
            seed = draw(st.integers(0, 1000))
            values = np.random.default_rng(seed).integers(0, highest + 1, size)
            found += [(name, shape, int(value)) for value in values]
    return found


def benign_scores(adapters: list[Adapter]) -> BenignScores:
    return BenignScores(
        np.array([[float(score)] for _, _, score in adapters]),
        tuple(shape for _, shape, _ in adapters),
        tuple(family for family, _, _ in adapters),
    )


def flagged_at(adapters: list[Adapter], score: int, shape: Shape, level: Fraction) -> bool:
    """The definition, word by word, in exact numbers."""

    def enough(group: list[Adapter]) -> bool:
        return len(group) >= GROUP_FLOOR and Fraction(1, len(group) + 1) <= level

    own = [item for item in adapters if item[1] is shape]
    compared = own if enough(own) or len(own) == len(adapters) else adapters
    families = {item[0]: [other for other in compared if other[0] == item[0]] for item in compared}
    groups = [group for group in families.values() if enough(group)]
    rest = [item for item in compared if not enough(families[item[0]])]
    if rest:
        groups.append(rest if enough(rest) else compared)
    return Fraction(1, len(adapters) + 1) <= level and all(
        Fraction(1 + sum(item[2] >= score for item in group), len(group) + 1) <= level
        for group in groups
    )


def levels(adapters: list[Adapter]) -> list[Fraction]:
    """Every level at which a group can appear, and every p-value that one can have."""
    n = len(adapters)
    return sorted({Fraction(1, size + 1) for size in range(1, n + 1)})


@given(calibrations(), st.integers(-1, 31), st.sampled_from(Shape))
def test_p_is_the_smallest_level_from_which_on_an_adapter_is_flagged(
    adapters: list[Adapter], score: int, shape: Shape
) -> None:
    p_value = benign_scores(adapters).p_value(float(score), shape)
    p = Fraction(p_value).limit_denominator(len(adapters) + 1)
    assert float(p) == p_value
    assert all(
        flagged_at(adapters, score, shape, level) for level in [p, *levels(adapters)] if level >= p
    )
    below = p - Fraction(1, 10**9)  # no ratio of two numbers up to n + 1 lies between
    assert not flagged_at(adapters, score, shape, below)


@given(calibrations(), st.integers(-1, 31), st.sampled_from(Shape), st.floats(0.001, 1))
def test_exceeding_the_threshold_is_having_p_at_most_alpha(
    adapters: list[Adapter], score: int, shape: Shape, alpha: float
) -> None:
    calibration = benign_scores(adapters)
    if not supports(calibration.n, alpha):
        with pytest.raises(AlphaUnsupportedError):
            calibration.threshold(shape, alpha)
        return
    flagged = calibration.p_value(float(score), shape) <= alpha
    assert flagged == (score > calibration.threshold(shape, alpha))


@given(calibrations(), st.sampled_from(Shape), st.floats(0.001, 1), st.floats(0.001, 1))
def test_flagged_at_a_stricter_level_is_flagged_at_every_looser_one(
    adapters: list[Adapter], shape: Shape, one: float, other: float
) -> None:
    calibration = benign_scores(adapters)
    if supports(calibration.n, min(one, other)):
        strict, loose = (calibration.threshold(shape, a) for a in sorted((one, other)))
        assert strict >= loose


@given(calibrations(), st.sampled_from(Shape), st.integers(-1, 31), st.integers(0, 31))
def test_a_higher_score_never_has_a_larger_p(
    adapters: list[Adapter], shape: Shape, score: int, more: int
) -> None:
    calibration = benign_scores(adapters)
    lower, higher = (calibration.p_value(float(x), shape) for x in (score, score + more))
    assert higher <= lower


@settings(max_examples=20)
@given(calibrations(), st.sampled_from(Shape))
def test_the_guarantee_holds_for_every_family_that_is_large_enough(
    adapters: list[Adapter], shape: Shape
) -> None:
    """Each member of a family is held out in turn, which is what exchangeable means.

    Of its m + 1 members at most a share a has p <= a when compared with the others, at every
    level for which m are enough.
    """
    own = [place for place, item in enumerate(adapters) if item[1] is shape]
    for family in {adapters[place][0] for place in own}:
        members = [place for place in own if adapters[place][0] == family]
        others = len(members) - 1
        if others < GROUP_FLOOR:
            continue
        p_values = np.array(
            [
                benign_scores([*adapters[:place], *adapters[place + 1 :]]).p_value(
                    float(adapters[place][2]), shape
                )
                for place in members
            ]
        )
        for level in {*p_values.tolist(), smallest_level(others), 0.05, 0.1}:
            if level >= smallest_level(others):
                assert np.count_nonzero(p_values <= level) <= level * len(members) + 1e-9


@given(st.lists(st.integers(0, 20), min_size=1, max_size=150), st.integers(-1, 21))
def test_with_one_family_p_is_the_plain_conformal_one(benign: list[int], score: int) -> None:
    one = benign_scores([("a", Shape.SEVERAL_LAYERS, value) for value in benign])
    p_value = conformal_p_value(float(score), np.array(benign, dtype=np.float64))
    assert one.p_value(float(score), Shape.SEVERAL_LAYERS) == p_value


@given(calibrations(), st.sampled_from(Shape))
def test_the_ranges_of_levels_cover_all_that_the_calibration_supports(
    adapters: list[Adapter], shape: Shape
) -> None:
    calibration = benign_scores(adapters)
    groups = calibration.groups(shape)
    assert all(group.least < group.below for group in groups)
    for level in map(float, levels(adapters)):
        active = [group.members for group in groups if group.least <= level < group.below]
        assert np.any(active)
        assert all(supports(int(members.sum()), level) for members in active)
    assert min(group.least for group in groups) == smallest_level(calibration.n)


@given(calibrations(), st.integers(-1, 31), st.sampled_from(Shape), st.floats(0.3, 1))
def test_a_comparison_counts_what_the_adapter_was_compared_with(
    adapters: list[Adapter], score: int, shape: Shape, alpha: float
) -> None:
    calibration = benign_scores(adapters)
    if not supports(calibration.n, alpha):
        return
    found = calibration.compare(np.array([float(score)]), shape, alpha)
    said = found.comparison
    compared = [item for item in adapters if said.shape in (None, item[1])]
    assert said.shape in (None, shape)
    assert (said.n, said.as_high) == (len(compared), sum(item[2] >= score for item in compared))
    assert [(item.name, item.n, item.as_high) for item in said.families] == [
        (
            name,
            sum(item[0] == name for item in compared),
            sum(item[0] == name and item[2] >= score for item in compared),
        )
        for name in sorted({item[0] for item in compared})
    ]
    assert found.p_value >= (said.as_high + 1) / (said.n + 1)
    assert (found.score > said.threshold) == (found.p_value <= alpha)
    other = calibration.compare(np.array([float(score)]), shape, 1.0)
    assert (other.p_value, other.score) == (found.p_value, found.score)
    assert (other.comparison.n, other.comparison.as_high) == (said.n, said.as_high)


def test_each_shape_is_compared_with_its_own_from_the_level_that_supports_it() -> None:
    several = [("a", Shape.SEVERAL_LAYERS, value) for value in range(300)]
    single = [("a", Shape.ONE_LAYER, 1000 + value) for value in range(99)]
    calibration = benign_scores([*several, *single])
    # Above all 300 of its own shape, but at stricter levels than they support not above enough.
    assert calibration.p_value(1050.0, Shape.SEVERAL_LAYERS) == 1 / 301
    assert calibration.p_value(1050.0, Shape.ONE_LAYER) == 50 / 100
    assert calibration.p_value(2000.0, Shape.ONE_LAYER) == 1 / 400
    assert calibration.compares_alike(Shape.ONE_LAYER, 0.01)
    assert not calibration.compares_alike(Shape.ONE_LAYER, 0.009)


def test_a_score_has_one_value_whatever_the_level() -> None:
    generator = np.random.default_rng(3)
    shapes = (Shape.ONE_LAYER,) * 40 + (Shape.SEVERAL_LAYERS,) * 400
    benign = generator.standard_normal((440, 2)) * np.where(np.arange(440) < 40, 5.0, 1.0)[:, None]
    calibration = BenignScores(benign, shapes, ("x",) * 440)
    scores = np.array([3.0, 4.0])
    found = [calibration.compare(scores, Shape.ONE_LAYER, alpha) for alpha in (0.005, 0.05, 0.5)]
    own = benign[:40]
    expected = ((scores - own.mean(axis=0)) / own.std(axis=0, ddof=1)).mean()
    assert [item.score for item in found] == pytest.approx([expected] * 3)
    assert len({item.p_value for item in found}) == 1


def test_the_false_positive_rate_holds_for_the_family_that_scores_highest() -> None:
    generator = np.random.default_rng(13)
    families = ("high",) * 30 + ("low",) * 170
    shapes = (Shape.SEVERAL_LAYERS,) * 200
    flagged = {0.05: 0, 0.2: 0}
    for _ in range(1000):
        benign = generator.standard_normal((200, 1))
        benign[:30] += 3.0
        score = float(generator.standard_normal() + 3.0)
        p_value = BenignScores(benign, shapes, families).p_value(score, Shape.SEVERAL_LAYERS)
        for level in flagged:
            flagged[level] += p_value <= level
    for level, count in flagged.items():
        assert count / 1000 <= level + 3 * math.sqrt(level * (1 - level) / 1000)


def test_the_false_positive_rate_holds_within_each_shape() -> None:
    generator = np.random.default_rng(12)
    shapes = (Shape.SEVERAL_LAYERS,) * 70 + (Shape.ONE_LAYER,) * 70
    flagged = dict.fromkeys(Shape, 0)
    for _ in range(1000):
        benign = generator.standard_normal((140, 1))
        benign[70:] *= 5.0
        calibration = BenignScores(benign, shapes, ("x",) * 140)
        for shape in Shape:
            spread = 5.0 if shape is Shape.ONE_LAYER else 1.0
            score = float(generator.standard_normal()) * spread
            flagged[shape] += calibration.p_value(score, shape) <= 0.05
    assert all(
        count / 1000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000) for count in flagged.values()
    )
