"""Listings of the test hub: what is in them, and that they go on where they were left."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from scanner.errors import HubAnswerError, HubUnavailableError
from scanner.hub.client import HubClient
from scanner.hub.listing import Listing
from scanner.hub.query import SweepQuery
from tests.hub.faults import Fault
from tests.hub.fixtures import ServeHub
from tests.hub.repository import Repository

BASE = "lab/Base-1B"
DAY = datetime(2025, 3, 1, tzinfo=timezone.utc)


def adapter(name: str, base: str | None = BASE, day: int = 0, **more: object) -> Repository:
    files = {"adapter_model.safetensors": name.encode(), "adapter_config.json": b"{}"}
    when = DAY + timedelta(days=day)
    return Repository(name, files, base, created=when, last_modified=when, **more)  # type: ignore[arg-type]


def listed(listing: Listing) -> list[str]:
    """All of a listing, each page asked for by a listing that knows nothing but the cursor."""
    names: list[str] = []
    cursor: str | None = None
    for _ in range(50):
        fresh = Listing(HubClient(listing.client.endpoint), listing.query, listing.aliases)
        page = fresh.page(cursor, len(names))
        names += [item.name for item in page.repositories]
        cursor = page.cursor
        if page.last:
            return names
    raise AssertionError("a listing without end")


def listing(endpoint: str, aliases: dict[str, list[str]] | None = None, **query: object) -> Listing:
    return Listing(HubClient(endpoint), SweepQuery(endpoint=endpoint, **query), aliases or {})  # type: ignore[arg-type]


def test_all_pages_newest_first(serve_hub: ServeHub) -> None:
    hub = serve_hub(*[adapter(f"a/n{i:02d}", day=i) for i in range(23)], page_size=5)
    assert listed(listing(hub.endpoint, base_models=[BASE])) == [
        f"a/n{i:02d}" for i in reversed(range(23))
    ]


def test_adapters_of_quantised_mirrors_and_of_names_packs_know_belong_to_the_base(
    serve_hub: ServeHub,
) -> None:
    def quantised(name: str) -> Repository:
        return Repository(name, {"config.json": b"{}"}, BASE, relation="quantized")

    hub = serve_hub(
        adapter("a/of-base"),
        adapter("a/of-mirror", "quantisers/base-1b-bnb-4bit"),
        adapter("a/of-gguf", "others/Base-1B-GGUF"),
        adapter("a/of-alias", "mirror/base-one"),
        adapter("a/of-a-finetune", "tuners/Base-1B-chatty-awq"),
        adapter("a/of-another", "lab/Other-1B"),
        quantised("quantisers/base-1b-bnb-4bit"),
        quantised("others/Base-1B-GGUF"),
        quantised("tuners/Base-1B-chatty-awq"),
        page_size=2,
    )
    found = listed(listing(hub.endpoint, {BASE: ["mirror/base-one"]}, base_models=[BASE]))
    assert sorted(found) == ["a/of-alias", "a/of-base", "a/of-gguf", "a/of-mirror"]


def test_by_author_and_name_only_what_looks_like_an_adapter(serve_hub: ServeHub) -> None:
    hub = serve_hub(
        adapter("ann/one"),
        adapter("ann/two", base=None),
        Repository("ann/whole-model", {"model.safetensors": b"x"}),
        adapter("bob/one"),
        Repository("ann/mlx", {"adapters.safetensors": b"x"}),
        Repository("ann/trainer", {"checkpoint-1/adapter_config.json": b"{}"}),
        page_size=2,
    )
    names = listed(listing(hub.endpoint, author="ann"))
    assert sorted(names) == ["ann/mlx", "ann/one", "ann/trainer", "ann/two"]
    assert sorted(listed(listing(hub.endpoint, search="ONE"))) == ["ann/one", "bob/one"]


def test_since_stops_asking_at_the_first_that_is_older(serve_hub: ServeHub) -> None:
    hub = serve_hub(*[adapter(f"a/n{i:02d}", day=i) for i in range(20)], page_size=4)
    names = listed(listing(hub.endpoint, base_models=[BASE], since="2025-03-15"))
    assert names == [f"a/n{i:02d}" for i in reversed(range(14, 20))]
    pages = [line for line in hub.log if "base_model%3Aadapter" in line]
    assert len(pages) == 2


@pytest.mark.parametrize("limit", [1, 4, 5, 11, 40])
def test_limit(serve_hub: ServeHub, limit: int) -> None:
    hub = serve_hub(*[adapter(f"a/n{i:02d}", day=i) for i in range(20)], page_size=5)
    names = listed(listing(hub.endpoint, base_models=[BASE], limit=limit))
    assert names == [f"a/n{i:02d}" for i in reversed(range(20))][:limit]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("not-json"), HubAnswerError),
        (Fault("short", after=3), HubUnavailableError),
        (Fault("cut", after=30), HubUnavailableError),
        (Fault("status", status=500), HubUnavailableError),
        (Fault("status", status=429, retry_after=7), HubUnavailableError),
    ],
)
def test_what_is_no_page_is_an_error(
    serve_hub: ServeHub, fault: Fault, error: type[Exception]
) -> None:
    hub = serve_hub(adapter("a/one"), faults=[fault])
    with pytest.raises(error) as caught:
        listing(hub.endpoint, author="a").page(None, 0)
    if fault.retry_after:
        assert isinstance(caught.value, HubUnavailableError)
        assert caught.value.retry_after == fault.retry_after


def test_behind_a_mirror_every_page_comes_from_it(
    serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links name the hub itself; private repositories show that the token still went along."""
    names = [f"a/n{i}" for i in range(6)]
    private = [adapter(name, day=i, private=True) for i, name in enumerate(names)]
    hub = serve_hub(*private, page_size=2, tokens={"good": names})
    monkeypatch.setenv("HF_TOKEN", "good")
    mirror = hub.endpoint.replace("127.0.0.1", "localhost")
    assert sorted(listed(listing(mirror, author="a"))) == names
