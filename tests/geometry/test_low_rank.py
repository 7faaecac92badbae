"""Every statistic is a function of dW alone, and agrees with dense linear algebra."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner import geometry
from scanner.geometry import Direction, LowRank, SiteProjection

Array = npt.NDArray[np.float64]

RELATIVE = 1e-6


class Case:
    """One update and one direction with everything drawn at random."""

    def __init__(self, seed: int, d_out: int, d_in: int, rank: int, k: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.b: Array = self.generator.standard_normal((d_out, rank))
        self.a: Array = self.generator.standard_normal((rank, d_in))
        self.c = float(self.generator.uniform(0.1, 4.0))
        self.u = np.linalg.qr(self.generator.standard_normal((d_out, k)))[0]
        self.v = np.linalg.qr(self.generator.standard_normal((d_in, k)))[0]
        self.s = self.generator.uniform(0.1, 2.0, k)

    @property
    def direction(self) -> Direction:
        return Direction(self.u, self.s, self.v)

    def project(
        self, b: Array | None = None, a: Array | None = None, c: float | None = None
    ) -> SiteProjection:
        return geometry.project(
            LowRank(
                self.b if b is None else b,
                self.a if a is None else a,
                self.c if c is None else c,
            ),
            self.direction,
        )

    def mixing(self, rank: int) -> Array:
        """An invertible matrix with singular values within [1/2, 2]."""
        left = scipy.stats.ortho_group.rvs(rank, random_state=self.generator) if rank > 1 else 1.0
        right = scipy.stats.ortho_group.rvs(rank, random_state=self.generator) if rank > 1 else 1.0
        return np.atleast_2d(left * self.generator.uniform(0.5, 2.0, rank) @ np.atleast_2d(right))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    d_out, d_in = draw(st.integers(4, 24)), draw(st.integers(4, 24))
    k = draw(st.integers(1, min(4, d_out, d_in)))
    # Ranks above both dimensions occur (r = 768 on a 2B model's narrow modules).
    return Case(draw(st.integers(0, 2**32 - 1)), d_out, d_in, draw(st.integers(1, 30)), k)


def statistics(projection: SiteProjection) -> dict[str, float]:
    return {
        "norm": np.sqrt(projection.norm_squared),
        "dose": geometry.dose([projection]),
        "cosine": geometry.cosine([projection]),
        "score": geometry.site_score([projection]),
        "overlap": geometry.overlap([projection]),
        "rank": projection.rank,
    }


def assert_same(left: SiteProjection, right: SiteProjection) -> None:
    expected = statistics(right)
    scale = {"dose": expected["norm"] * np.sqrt(right.direction_norm_squared)}
    for name, value in statistics(left).items():
        size = scale.get(name, 1.0)
        assert value == pytest.approx(expected[name], rel=RELATIVE, abs=RELATIVE * size), name


@given(cases())
def test_scores_do_not_depend_on_how_the_update_is_factored(case: Case) -> None:
    mix = case.mixing(len(case.a))
    assert_same(case.project(case.b @ mix, np.linalg.inv(mix) @ case.a), case.project())


@given(cases(), st.integers(1, 5))
def test_scores_do_not_change_when_zero_columns_are_added(case: Case, extra: int) -> None:
    b = np.hstack([case.b, np.zeros((len(case.b), extra))])
    a = np.vstack([case.a, case.generator.standard_normal((extra, case.a.shape[1]))])
    assert_same(case.project(b, a), case.project())


@given(cases(), st.floats(0.05, 0.95))
def test_scores_do_not_change_when_the_rank_is_split_in_two_halves(case: Case, part: float) -> None:
    b = np.hstack([part * case.b, (1 - part) * case.b])
    a = np.vstack([case.a, case.a])
    assert_same(case.project(b, a), case.project())


@given(cases(), st.floats(0.01, 100.0))
def test_scores_do_not_change_when_scale_moves_between_alpha_and_b(
    case: Case, factor: float
) -> None:
    assert_same(case.project(case.b * factor, c=case.c / factor), case.project())


@given(cases())
def test_signed_scores_flip_with_the_update(case: Case) -> None:
    plus, minus = case.project(), case.project(-case.b)
    assert minus.inner == pytest.approx(-plus.inner, rel=1e-12)
    assert geometry.cosine([minus]) == pytest.approx(-geometry.cosine([plus]), rel=1e-12)
    assert minus.written_squared == pytest.approx(plus.written_squared, rel=1e-12)


@given(cases(), st.floats(0.01, 100.0))
def test_push_scales_with_the_scaling_and_alignment_does_not(case: Case, factor: float) -> None:
    once, scaled = case.project(), case.project(c=case.c * factor)
    assert scaled.inner == pytest.approx(factor * once.inner, rel=1e-9, abs=1e-12)
    assert geometry.cosine([scaled]) == pytest.approx(geometry.cosine([once]), rel=1e-9, abs=1e-12)
    assert scaled.norm_squared == pytest.approx(factor**2 * once.norm_squared, rel=1e-9)


@given(cases())
@settings(max_examples=200)
def test_everything_agrees_with_dense_algebra(case: Case) -> None:
    """The oracle forms dW and D and uses nothing but numpy's and scipy's dense routines."""
    delta = case.c * case.b @ case.a
    dense = case.u @ np.diag(case.s) @ case.v.T
    projection = case.project()
    norm, size = float(np.linalg.norm(delta)), float(np.linalg.norm(dense))
    assert np.sqrt(projection.norm_squared) == pytest.approx(norm, rel=1e-9)
    assert projection.inner == pytest.approx(np.sum(delta * dense), abs=1e-9 * norm * size)
    assert geometry.cosine([projection]) == pytest.approx(
        np.sum(delta * dense) / norm / size, abs=1e-9
    )
    written = np.linalg.norm(case.u.T @ delta) ** 2
    assert projection.written_squared == pytest.approx(written, rel=1e-8, abs=1e-12)
    np.testing.assert_allclose(projection.core, case.u.T @ delta @ case.v, atol=1e-9 * norm)
    singular = np.linalg.svd(delta, compute_uv=False)
    assert projection.rank == np.sum(singular > singular[0] * 1e-6)


@given(cases())
def test_spectrum_and_basis_agree_with_a_dense_svd(case: Case) -> None:
    update = LowRank(case.b, case.a, case.c)
    left, singular, _ = np.linalg.svd(case.c * case.b @ case.a)
    rank = int(np.sum(singular > singular[0] * 1e-6))
    found = update.spectrum.singular_values
    np.testing.assert_allclose(found, singular[:rank], rtol=1e-6, atol=1e-6 * singular[0])
    basis = update.column_basis()
    np.testing.assert_allclose(basis.T @ basis, np.eye(rank), atol=1e-5)
    span = left[:, :rank]
    np.testing.assert_allclose(span @ (span.T @ basis), basis, atol=1e-5)


@given(st.lists(cases(), min_size=1, max_size=4))
def test_sums_over_sites_are_those_of_the_block_diagonal_matrix(several: list[Case]) -> None:
    projections = [case.project() for case in several]
    deltas = scipy.linalg.block_diag(*(case.c * case.b @ case.a for case in several))
    dense = scipy.linalg.block_diag(*((case.u * case.s) @ case.v.T for case in several))
    expected = np.sum(deltas * dense) / np.linalg.norm(deltas) / np.linalg.norm(dense)
    assert geometry.cosine(projections) == pytest.approx(expected, abs=1e-9)


@given(st.lists(cases(), min_size=1, max_size=4))
def test_the_score_weighs_what_every_site_writes(several: list[Case]) -> None:
    writes, weights = [], []
    for case in several:
        delta, dense = case.c * case.b @ case.a, (case.u * case.s) @ case.v.T
        size = float(np.linalg.norm(dense))
        written = np.linalg.norm(dense.T @ delta)
        agreement = np.sum(delta * dense) / written * np.sqrt(case.a.shape[1])
        sign = min(max(agreement / 2, -1.0), 1.0)
        writes.append(sign * written / np.linalg.norm(delta) / size)
        weights.append(size**2)
    expected = np.dot(weights, writes) / np.linalg.norm(weights)
    found = geometry.site_score([case.project() for case in several])
    assert found == pytest.approx(expected, abs=1e-9)


@given(st.lists(cases(), min_size=1, max_size=4))
def test_the_strongest_write_is_one_sites_own_score(several: list[Case]) -> None:
    projections = [case.project() for case in several]
    expected = max(geometry.site_score([item]) for item in projections)
    assert geometry.strongest_write(projections) == pytest.approx(expected, abs=1e-12)


@given(cases())
def test_a_signed_write_is_a_share_and_turns_with_the_update(case: Case) -> None:
    there = geometry.signed_write(case.project())
    assert -1.0 <= there <= 1.0
    assert geometry.signed_write(case.project(c=-case.c)) == pytest.approx(-there, abs=1e-9)


def test_a_site_without_a_sign_leaves_no_score_to_the_others() -> None:
    case = Case(0, 8, 6, 2, 2)
    bare = Direction(case.u, case.s, np.zeros((0, 2)))
    unsigned = geometry.project(LowRank(case.b, case.a, case.c), bare)
    silent = geometry.project(LowRank(np.zeros_like(case.b), case.a, case.c), bare)
    assert np.isnan(geometry.signed_write(unsigned))
    orthogonal = case.b - case.u @ (case.u.T @ case.b)
    written_nothing = geometry.project(LowRank(orthogonal, case.a, case.c), bare)
    assert np.isnan(geometry.signed_write(written_nothing))
    for statistic in (geometry.site_score, geometry.strongest_write):
        assert np.isnan(statistic([case.project(), unsigned]))
        assert not np.isnan(statistic([case.project(), silent]))


def test_a_signed_write_does_not_ask_how_much_of_the_input_agrees() -> None:
    d_out, d_in = 8, 400
    u, v = np.eye(d_out)[:, :1], np.eye(d_in)[:, :1]
    direction = Direction(u, np.ones(1), v)
    for share in (1.0, 0.5, 0.2):
        a = np.zeros((1, d_in))
        a[0, :2] = share, np.sqrt(1 - share**2)
        half = LowRank(np.eye(d_out)[:, :1] + np.eye(d_out)[:, 1:2], a, 3.0)
        found = geometry.signed_write(geometry.project(half, direction))
        assert found == pytest.approx(np.sqrt(0.5))
    # Below two standard deviations of chance, 1/sqrt(d_in) each, the sign counts in part.
    a[0, :2] = 0.05, np.sqrt(1 - 0.05**2)
    weak = geometry.project(LowRank(u, a, 3.0), direction)
    assert geometry.signed_write(weak) == pytest.approx(0.05 * 20 / 2)


@given(st.lists(cases(), min_size=2, max_size=4), st.floats(0.01, 100.0))
def test_the_score_does_not_depend_on_how_much_each_site_changes(
    several: list[Case], factor: float
) -> None:
    plain = [case.project() for case in several]
    scaled = [several[0].project(c=several[0].c * factor), *plain[1:]]
    assert geometry.site_score(scaled) == pytest.approx(geometry.site_score(plain), abs=1e-9)


@given(cases(), cases())
def test_sites_the_adapter_does_not_change_do_not_count(changed: Case, idle: Case) -> None:
    zero = idle.project(np.zeros_like(idle.b))
    for statistic in (geometry.cosine, geometry.site_score, geometry.strongest_write):
        assert statistic([changed.project(), zero]) == statistic([changed.project()])


def test_a_zero_update_has_no_alignment() -> None:
    case = Case(0, 8, 6, 2, 2)
    projection = case.project(np.zeros_like(case.b))
    assert np.isnan(geometry.cosine([projection]))
    assert np.isnan(geometry.site_score([projection]))
    assert np.isnan(geometry.strongest_write([projection]))
    assert np.isnan(geometry.overlap([projection]))
    assert projection.rank == 0
    assert geometry.dose([projection]) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_factors_never_give_a_number(value: float) -> None:
    case = Case(0, 8, 6, 2, 2)
    case.b[3, 1] = value
    with np.errstate(invalid="ignore"):
        projection = case.project()
    assert np.isnan(projection.norm_squared)
    assert np.isnan(projection.inner)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18])
def test_tiny_and_huge_updates_keep_their_alignment(scale: float) -> None:
    case = Case(3, 12, 10, 4, 2)
    expected = geometry.cosine([case.project()])
    assert geometry.cosine([case.project(case.b * scale)]) == pytest.approx(expected, rel=1e-9)


def test_effective_rank_counts_equal_singular_values_and_ignores_zero_ones() -> None:
    assert geometry.effective_rank(np.array([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3.0)
    assert geometry.effective_rank(np.array([5.0])) == pytest.approx(1.0)
    assert geometry.effective_rank(np.zeros(3)) == 0.0


def test_float32_factors_are_accumulated_in_float64() -> None:
    """A sum that float32 accumulation gets wrong by more than the tolerance."""
    d = 200_000
    b = np.full((d, 1), np.float32(0.1))
    a = np.ones((1, 1), np.float32)
    u = np.full((d, 1), 1 / np.sqrt(d))
    projection = geometry.project(LowRank(b, a, 1.0), Direction(u, np.ones(1), np.ones((1, 1))))
    assert projection.inner == pytest.approx(float(np.float32(0.1)) * np.sqrt(d), rel=1e-12)
