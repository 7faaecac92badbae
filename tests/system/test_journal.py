"""Lines that outlive a kill."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from scanner.system.journal import Journal


class Line(msgspec.Struct):
    number: int
    text: str = ""


def test_what_was_written_is_there_for_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    journal = Journal(path, "a", Line)
    assert journal.kept == []
    journal.add(Line(1))
    journal.add(Line(2, "two\nlines"))
    assert Journal(path, "a", Line).kept == [Line(1), Line(2, "two\nlines")]


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_line_cut_short_is_gone_and_the_next_stands_on_its_own(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "lines"
    journal = Journal(path, "a", Line)
    journal.add(Line(1))
    before = path.stat().st_size
    journal.add(Line(2, "second"))
    path.write_bytes(path.read_bytes()[: before + cut])
    again = Journal(path, "a", Line)
    whole = (
        [Line(1), Line(2, "second")] if cut >= len(b'{"number":2,"text":"second"}\n') else [Line(1)]
    )
    assert again.kept == whole
    again.add(Line(3))
    assert Journal(path, "a", Line).kept == [*whole, Line(3)]


def test_a_journal_of_something_else_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    Journal(path, "a", Line).add(Line(1))
    assert Journal(path, "b", Line).kept == []
    assert Journal(path, "a", Line).kept == []


def test_nothing_is_kept_without_a_file() -> None:
    journal = Journal(None, "a", Line)
    journal.add(Line(1))
    assert journal.kept == []
