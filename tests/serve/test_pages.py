"""The page of verdicts: filters, links, and what it says when there is nothing to show."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from scanner.serve.events import Platform, Subject
from scanner.serve.jobs import Delivery, JobStore, State, Wanted
from scanner.serve.pages import LIST_HEADERS, Places, render_list
from scanner.serve.web import wanted_in

PLACES = Places("https://hub.example", "https://mlflow.example", ("/webhooks/mlflow",))
HOSTILE = "<script>alert(1)</script>\"'&"
JOBS: list[tuple[Platform, str, State, str | None]] = [
    ("mlflow", "Summaries", State.WRITTEN, "clear"),
    ("hub", "team/summaries-lora", State.WRITTEN, "flagged"),
    ("hub", "team/other", State.GIVEN_UP, "flagged"),
    ("hub", HOSTILE, State.QUEUED, None),
]


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    path = tmp_path / "jobs.sqlite"
    found = JobStore(path)
    found.prepare(path)
    for number, (platform, name, state, verdict) in enumerate(JOBS):
        subject = Subject(platform, name, f"{number}")
        found.accept([Delivery(f"{number}", "0" * 64, (subject,), 1.7e9 + number)])
        with sqlite3.connect(path) as connection:
            connection.execute(
                "UPDATE jobs SET state = ?, verdict = ? WHERE id = ?",
                (state.value, verdict, number + 1),
            )
    return found


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), [3, 2, 1, 0]),
        (Wanted(verdict="flagged"), [2, 1]),
        (Wanted(verdict="none"), [3]),
        (Wanted(state="given_up"), [2]),
        (Wanted(platform="mlflow"), [0]),
        (Wanted(model="SUMMARIES"), [1, 0]),
        (Wanted(model="%"), []),
        (Wanted(verdict="flagged", model="other"), [2]),
        (Wanted(before=3), [1, 0]),
        (Wanted(verdict="' OR 1=1 --"), []),
    ],
)
def test_filters(store: JobStore, wanted: Wanted, expected: list[int]) -> None:
    assert [int(job.subject.revision) for job in store.recent(10, wanted)] == expected


def page_of(store: JobStore, wanted: Wanted, most: int = 10) -> str:
    counts = {"verdict": store.counts_of("verdict"), "state": store.counts_of("state")}
    jobs = store.recent(most, wanted)
    return render_list(jobs, wanted, counts, PLACES, more=len(jobs) == most)


def test_every_choice_says_how_many_and_keeps_the_other_filters(store: JobStore) -> None:
    page = page_of(store, Wanted(model="team", verdict="flagged"))
    assert (
        '<a href="./?verdict=flagged&amp;model=team" aria-current="true">flagged <b>2</b>' in page
    )
    assert 'href="./?verdict=clear&amp;model=team">clear <b>1</b>' in page
    assert 'href="./?verdict=flagged&amp;state=given_up&amp;model=team">' in page
    assert 'value="team"' in page
    assert page.count('<th scope="row">') == 2


def test_a_choice_starts_again_at_the_newest(store: JobStore) -> None:
    page = page_of(store, Wanted(before=3), most=1)
    assert "before=2" in page, "the link to older ones"
    assert not re.search(r"verdict=\w+[^\"]*before=", page)


def test_models_link_to_their_own_pages(store: JobStore) -> None:
    page = page_of(store, Wanted())
    assert 'href="https://mlflow.example/#/models/Summaries/versions/0"' in page
    assert 'href="https://hub.example/team/summaries-lora/tree/1"' in page
    assert 'href="verdicts/2">flagged: report</a>' in page


def test_names_form_no_markup(store: JobStore) -> None:
    page = page_of(store, Wanted(model=HOSTILE))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "script-src" not in LIST_HEADERS["Content-Security-Policy"]


def test_where_nothing_was_delivered_it_says_what_to_do() -> None:
    page = render_list([], places=PLACES)
    assert "Nothing has been delivered yet" in page
    assert "/webhooks/mlflow" in page
    assert "a rule for the model" in page
    assert "takes none" in render_list([])


def test_where_nothing_is_like_the_filter_it_says_so(store: JobStore) -> None:
    page = page_of(store, Wanted(model="nobody"))
    assert 'No delivery is like this. <a href="./">Show all</a>' in page


@pytest.mark.parametrize("before", ["", "-1", "x", "9" * 30, "\u0664", "1e3"])
def test_an_address_that_is_no_filter_shows_everything(before: str) -> None:
    assert wanted_in({"before": before, "nonsense": "x"}) == Wanted()


def test_an_address_is_a_filter() -> None:
    query = {"verdict": " flagged ", "model": "x" * 300, "before": "7"}
    assert wanted_in(query) == Wanted(verdict="flagged", model="x" * 200, before=7)
