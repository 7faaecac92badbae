"""What the ledger keeps of a result is the result, its sites' numbers to four digits."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.hub.ledger import made_up_result
from scanner.results import ScanResult, SiteResult, Verdict
from scanner.sweep.compact import DIGITS, compact, expand
from tests.reports.samples import CLEAR, ERROR, FLAGGED, INCONCLUSIVE, NASTY

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SITES = st.builds(
    SiteResult,
    layer=st.none() | st.integers(0, 500),
    module=st.text(max_size=20),
    rank=st.integers(0, 10_000),
    norm=NUMBERS,
    dose=NUMBERS,
    cosine=st.none() | NUMBERS,
    overlap=st.none() | NUMBERS,
)


PICTURED: dict[str, list[float]] = {"benign_scores": [], "benign_doses": [], "references": []}
"""What only a picture of a single result needs, and the ledger leaves to the packs."""


@given(st.lists(SITES, max_size=12))
def test_every_site_comes_back_to_four_digits(sites: list[SiteResult]) -> None:
    result = msgspec.structs.replace(FLAGGED, sites=sites)
    found = expand(compact(result))
    assert result.comparison is not None
    comparison = msgspec.structs.replace(result.comparison, **PICTURED)
    kept_whole = msgspec.structs.replace(result, sites=[], comparison=comparison)
    assert msgspec.structs.replace(found, sites=[]) == kept_whole
    for site, kept in zip(sites, found.sites, strict=True):
        assert (kept.layer, kept.module, kept.rank) == (site.layer, site.module, site.rank)
        for name in ("norm", "dose", "cosine", "overlap"):
            value = getattr(site, name)
            rounded = None if value is None else float(f"{value:.{DIGITS}g}")
            assert getattr(kept, name) == rounded


def test_what_has_no_sites_comes_back_whole() -> None:
    for result in (ERROR, INCONCLUSIVE, NASTY):
        assert expand(compact(result)) == result
    assert expand(compact(CLEAR), with_sites=False).sites == []


def test_a_result_read_twice_is_the_same_to_the_byte() -> None:
    once = compact(FLAGGED)
    assert compact(expand(once)) == once


def test_what_is_not_known_stays_unknown_and_is_no_zero() -> None:
    site = SiteResult(layer=0, module="m", rank=1, norm=1.0, dose=-0.0, cosine=None, overlap=0.0)
    result = ScanResult(target="t", verdict=Verdict.INCONCLUSIVE, sites=[site])
    (kept,) = expand(compact(result)).sites
    assert (kept.cosine, kept.overlap) == (None, 0.0)


def test_an_adapter_of_an_8b_model_takes_less_than_a_tenth_of_its_json() -> None:
    import numpy as np

    result = made_up_result("hf://a/b@c", np.random.default_rng(0))
    assert len(result.sites) == 224
    assert len(compact(result)) < len(msgspec.json.encode(result)) / 10
    assert len(compact(result)) < 3_500
