"""Shares and their interval."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.statistics.share import Share


def test_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (Wilson without continuity).
    for count, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                                (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):  # fmt: skip
        assert Share(count, n).interval == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_share_lies_inside_and_the_interval_is_symmetric(trials: tuple[int, int]) -> None:
    share = Share(*trials)
    low, high = share.interval
    assert share.value is not None
    assert 0 <= low <= share.value <= high <= 1
    mirrored = Share(share.n - share.count, share.n).interval
    assert mirrored == pytest.approx((1 - high, 1 - low))


def test_without_trials_nothing_is_known() -> None:
    assert Share.of([]).value is None
    assert Share.of([]).interval == (0, 1)
    assert Share.of([True, False, True]) == Share(2, 3)
