from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from scanner.reports import markdown_report
from scanner.reports.assemble import assemble
from scanner.reports.terminal import Screen, printable, standard_output, wants_color
from scanner.reports.text_report import render
from scanner.results import ScanResult, Verdict
from tests.cli.program import run
from tests.reports.samples import CLEAR, FLAGGED, HOSTILE, TWO, mixed, report_of

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def test_what_needs_a_person_comes_last() -> None:
    text = render(mixed(), Screen())
    order = [text.index(word) for word in ("new-facts", "dora", "pointer", "bad-advice")]
    assert order == sorted(order)
    assert text.rstrip().endswith("5 scanned: 1 flagged, 1 error, 2 inconclusive, 1 clear")


def test_a_flagged_adapter_at_a_glance() -> None:
    text = render(report_of(FLAGGED), Screen())
    assert text.startswith("flagged       adapters/bad-advice\n")
    for part in ("+0.87", "0.0066 <= alpha 0.01", "medical-advice, cosine +0.90", "█"):
        assert part in text
    words = " ".join(text.split())
    assert "cosine +0.61 overlap 30% nearest medical-advice" in words
    assert "overlap: the share of the update that its column space writes" in words
    assert re.search(r"score +0\.610, flagged above 0\.\d+: the signature's own score", text)
    assert "benign None of the 150 benign adapters that change several layers" in words
    assert re.search(r"where +layer 3 mlp.down_proj +\+0.080", text)
    assert "calibrated on 150 benign adapters, 5 families" in " ".join(text.split())


def test_a_clear_adapter_takes_one_line_and_claims_little() -> None:
    text = render(report_of(CLEAR), Screen())
    assert text.startswith("clear         adapters/new-facts  dose +0.03, overlap 0.4%, p 0.42\n")
    assert 'it does not mean "aligned"' in text


@pytest.mark.parametrize("width", [40, 48, 60, 80, 100])
def test_lines_fit_the_screen(width: int) -> None:
    """Only what cannot be broken without harm (a path, a name) may be longer."""
    report = report_of(FLAGGED, CLEAR)
    for line in render(report, Screen(width=width)).splitlines():
        assert len(line) <= max(width, 46), line


def test_colour_changes_nothing_but_colour() -> None:
    plain = render(mixed(), Screen())
    colored = render(mixed(), Screen(color=True))
    assert "\x1b" not in plain
    assert ANSI.sub("", colored) == plain
    assert "\x1b[1;31mflagged\x1b[0m" in colored


def test_hostile_names_cannot_reach_the_terminal() -> None:
    text = render(mixed(), Screen())
    assert not {"\x1b", "\x00", "\u202e"} & set(text)
    assert "\\x1b[31m" in text
    assert "\n" not in printable(HOSTILE)


def test_ascii_only_where_nothing_else_can_be_shown() -> None:
    assert render(report_of(FLAGGED), Screen(unicode=False)).isascii()


@pytest.mark.parametrize("dose", [-0.5, 0.0, 0.4, 1.0, 3.0])
def test_every_dose_has_a_bar_with_the_reference_marked(dose: float) -> None:
    result = msgspec.structs.replace(FLAGGED, dose={"base-weights": dose})
    text = render(report_of(result), Screen())
    found = re.search(r"dose +([+-][\d.]+)  (.*)│(.*)  │ = a known misaligned model", text)
    assert found is not None
    number, below, above = found.groups()
    assert float(number) == dose
    assert ("█" in below) == (dose > 0)
    assert ("█" in above) == (dose > 1)
    assert dose < 1 or set(below) == {"█"}


def test_two_signatures_are_told_apart() -> None:
    result = msgspec.structs.replace(
        FLAGGED,
        dose={"base-weights": 0.8, "base-gradients": 1.1},
        cosine={"base-weights": 0.5, "base-gradients": 0.6},
        overlap={"base-weights": 0.0001, "base-gradients": 0.25},
    )
    text = render(report_of(result), Screen())
    assert re.search(r"\+0\.80.*weights", text)
    assert re.search(r"\+1\.10.*gradients", text)
    assert re.search(r"cosine +\+0\.50  base-weights\n +\+0\.60  base-gradients\n", text)
    assert re.search(r"overlap +below 0\.1%  base-weights\n +25%  +base-gradients\n", text)


@pytest.mark.parametrize("length", [12, 45, 60, 75])
def test_a_long_name_of_a_signature_is_not_broken(length: int) -> None:
    name = "n" * (length - 9) + "-specific"
    result = msgspec.structs.replace(
        TWO,
        dose={"base-weights": 0.8, name: 1.1},
        cosine={"base-weights": 0.5, name: 0.6},
        overlap={"base-weights": 0.0001, name: 0.25},
    )
    lines = render(report_of(result), Screen()).splitlines()
    assert sum(name in line for line in lines) == 3
    assert all(len(line) <= 80 for line in lines if length < 60 or name not in line)


def test_a_signature_without_a_sign_shows_its_overlap_beside_a_clear() -> None:
    result = msgspec.structs.replace(CLEAR, overlap={**CLEAR.overlap, "imported": 0.21})
    assert "overlap 21% with imported (no sign)" in render(report_of(result), Screen())


def test_what_goes_through_a_pipe_is_not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    reason = "a very long reason " * 20
    report = report_of(msgspec.structs.replace(FLAGGED, reasons=[reason.strip()]))
    assert reason.strip() in render(report, standard_output())
    monkeypatch.setenv("COLUMNS", "80")
    assert standard_output().width == 80


def test_what_holds_for_all_is_said_once() -> None:
    why = "alpha 0.01 needs 99 benign adapters, the calibration has 30"
    results = [
        ScanResult(target=name, verdict=Verdict.INCONCLUSIVE, reasons=[why, *own])
        for name, own in (("a", []), ("b", ["its own"]))
    ]
    report = assemble(results, [])
    for text in (render(report), markdown_report.render(report)):
        assert text.replace("&#46;", ".").count("alpha 0.01 needs") == 1
        assert "its own" in text
    assert render(assemble(results[:1], [])).count("alpha 0.01 needs") == 1
    mixed = [*results, ScanResult(target="c", verdict=Verdict.FLAGGED, reasons=["a dose"])]
    assert render(assemble(mixed, [])).count("alpha 0.01 needs") == 2


def unknown_base(name: str, base: str = "lab/unlisted") -> ScanResult:
    reason = f"no signature pack for base model {base!r}"
    return ScanResult(target=name, verdict=Verdict.INCONCLUSIVE, base_model=base, reasons=[reason])


def test_the_same_reason_is_said_once_for_all_it_is_true_of() -> None:
    many = [unknown_base(f"adapters/{number}") for number in range(9)]
    text = render(report_of(*many, unknown_base("a", "lab/other")), Screen(width=200))
    assert text.count("'lab/unlisted'") == 1
    assert "inconclusive  9 adapters: adapters/0, adapters/1" in text
    assert "adapters/4 and 4 more" in text
    assert "inconclusive  a\n" in text


@pytest.mark.parametrize("name", ["a", "no", "base"])
def test_a_short_name_is_not_taken_out_of_the_words_around_it(name: str) -> None:
    both = render(report_of(unknown_base(name), unknown_base("other")), Screen(width=200))
    assert both.count("no signature pack for base model 'lab/unlisted'") == 1


def test_what_was_judged_is_never_put_together() -> None:
    text = render(report_of(FLAGGED, FLAGGED), Screen())
    assert text.count("flagged       adapters/bad-advice") == 2


def test_quiet_shows_what_is_not_clear_alone() -> None:
    assert render(report_of(CLEAR), Screen(), "quiet") == ""
    text = render(report_of(CLEAR, FLAGGED), Screen(), "quiet")
    assert text.startswith("flagged       adapters/bad-advice\n")
    assert "new-facts" not in text
    assert "scanned" not in text


def test_verbose_shows_what_is_known_of_everything() -> None:
    text = render(report_of(CLEAR, *[unknown_base(f"x{i}") for i in range(2)]), Screen(), "verbose")
    assert "benign" in text
    assert f"sha256 {CLEAR.sha256}" in " ".join(text.split())
    assert "covered   8 of 8 sites" in text
    assert text.count("no signature pack") == 2
    partly = render(mixed(), Screen(), "verbose")
    assert "not judged" in partly


@pytest.mark.parametrize(
    ("variables", "terminal", "color"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False, True),
        ({"FORCE_COLOR": ""}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_who_decides_about_colours(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], terminal: bool, color: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wants_color(terminal) is color


def test_a_file_gets_no_colours(benign: Path, tmp_path: Path) -> None:
    done = run("scan", benign, "-o", tmp_path / "report.txt", env={"FORCE_COLOR": "1"})
    assert done.stdout == ""
    assert "\x1b" not in (tmp_path / "report.txt").read_text()
    assert "\x1b" in run("scan", benign, env={"FORCE_COLOR": "1"}).stdout
    assert run("scan", benign, "-q", "-v").returncode == 2
