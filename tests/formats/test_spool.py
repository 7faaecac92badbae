"""What is fetched of a file that lies elsewhere, and in how many requests."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import HubAnswerError
from scanner.formats.stores import spool as module
from scanner.formats.stores.digest import ContentDigest
from scanner.formats.stores.spool import Range, Spool, missing, plan_requests

SIZE = 60
PRICE = 7
"""A request's price in these tests, instead of 8 MiB."""

ranges = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(
    lambda ends: Range(min(ends), max(ends))
)


@pytest.fixture(autouse=True)
def _small_price() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "REQUEST_BYTES", PRICE)
        yield


def bytes_of(parts: list[Range]) -> set[int]:
    return {position for part in parts for position in range(*part)}


def united(parts: list[Range]) -> list[Range]:
    """Sorted and without overlap, by brute force."""
    found = sorted(bytes_of(parts))
    groups = itertools.groupby(enumerate(found), lambda item: item[1] - item[0])
    runs = [[position for _, position in group] for _, group in groups]
    return [Range(run[0], run[-1] + 1) for run in runs]


def cost(parts: list[Range]) -> int:
    return sum(end - begin + PRICE for begin, end in parts)


@given(st.lists(ranges, max_size=6), st.lists(ranges, max_size=4).map(united))
def test_what_is_missing(wanted: list[Range], held: list[Range]) -> None:
    parts = missing(wanted, held)
    assert bytes_of(parts) == bytes_of(wanted) - bytes_of(held)
    assert all(begin < end for begin, end in parts)
    assert all(one.end <= other.begin for one, other in itertools.pairwise(parts))


@given(st.lists(ranges, max_size=5), st.lists(ranges, max_size=3).map(united))
def test_the_plan_fetches_what_is_wanted_at_the_lowest_cost(
    wanted: list[Range], held: list[Range]
) -> None:
    plan = plan_requests(wanted, held, SIZE)
    needed = united(missing(wanted, held))
    assert bytes_of(needed) <= bytes_of(plan)
    if not needed:
        assert plan == []
        return
    cuts = range(1, len(needed))
    partitions = itertools.chain.from_iterable(
        itertools.combinations(cuts, count) for count in range(len(needed))
    )
    best = min(
        cost([Range(needed[a].begin, needed[b - 1].end) for a, b in itertools.pairwise(
            [0, *cut, len(needed)]
        )])
        for cut in partitions
    )  # fmt: skip
    is_whole = bytes_of(plan) | bytes_of(held) == set(range(SIZE))
    assert cost(plan) <= best + (PRICE if is_whole else 0)


class Elsewhere:
    """A `ByteSource` in memory that remembers what it was asked for."""

    def __init__(self, content: bytes, sha256: str | None = None) -> None:
        self.content = content
        self.where = "elsewhere"
        self.size = len(content)
        self.digest = ContentDigest("sha256", sha256) if sha256 else None
        self.asked: list[Range] = []

    def blocks(self, begin: int, end: int) -> Iterator[bytes]:
        self.asked.append(Range(begin, end))
        for start in range(begin, end, 13):
            yield self.content[start : min(start + 13, end)]


CONTENT = bytes(range(100)) * 10
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def test_neighbours_are_fetched_together_and_nothing_twice() -> None:
    source = Elsewhere(CONTENT)
    spool = Spool(source)
    spool.fetch([Range(100, 110), Range(112, 120), Range(300, 310)])
    assert source.asked == [Range(100, 120), Range(300, 310)]
    spool.fetch([Range(105, 115), Range(118, 125)])
    assert source.asked[2:] == [Range(120, 125)]
    copy = spool.path.read_bytes()
    assert copy[100:125] == CONTENT[100:125]
    assert copy[300:310] == CONTENT[300:310]
    assert copy[200:210] == bytes(10)
    assert not spool.is_whole
    spool.close()
    assert not spool.path.exists()
    spool.close()


def test_the_whole_is_checked_when_it_is_here() -> None:
    source = Elsewhere(CONTENT, DIGEST)
    spool = Spool(source)
    spool.fetch([Range(0, 500)])
    spool.fetch([Range(500, 1000)])
    assert spool.is_whole
    assert spool.sha256() == DIGEST
    spool.close()
    wrong = Spool(Elsewhere(CONTENT[:-1] + b"x", DIGEST))
    wrong.fetch([Range(0, 500)])
    with pytest.raises(HubAnswerError, match=rf"elsewhere: .* the hub says {DIGEST}"):
        wrong.fetch([Range(500, 1000)])
    assert not wrong.is_whole
    wrong.close()


def test_the_rest_comes_along_where_it_costs_no_more_than_a_request() -> None:
    source = Elsewhere(CONTENT, DIGEST)
    spool = Spool(source)
    spool.fetch([Range(3, 996)])
    assert source.asked == [Range(0, 1000)]
    spool.close()


@given(st.lists(st.integers(0, 99), max_size=120))
def test_unplanned_reads_cost_at_most_twice_the_file(order: list[int]) -> None:
    source = Elsewhere(CONTENT)
    spool = Spool(source)
    for index in order:
        begin = 10 * index
        spool.fetch_on_demand(Range(begin, begin + 10))
        assert spool.path.read_bytes()[begin : begin + 10] == CONTENT[begin : begin + 10]
    needed = len(set(order)) * 10
    assert cost(source.asked) <= 2 * (max(needed, 1000 if spool.is_whole else 0) + PRICE) + cost(
        [Range(10 * index, 10 * index + 10) for index in set(order)]
    )
    assert cost(source.asked) <= 2 * (1000 + 2 * PRICE)
    spool.close()


def test_threads_fetch_a_part_once() -> None:
    source = Elsewhere(CONTENT)
    spool = Spool(source)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            parts = [Range(100 * i, 100 * i + 30) for i in range(8)]
            list(pool.map(spool.fetch_on_demand, parts))
    fetched = [position for part in source.asked for position in range(*part)]
    assert len(fetched) == len(set(fetched))
    spool.close()


def test_an_empty_file() -> None:
    source = Elsewhere(b"", hashlib.sha256(b"").hexdigest())
    spool = Spool(source)
    assert spool.start(1024) == b""
    assert source.asked == []
    spool.close()
