"""What a person sees first of a version in MLflow's own pages."""

from __future__ import annotations

import msgspec
import pytest

from scanner.gates.attestation import Attestation
from scanner.gates.mlflow_tags import (
    ATTESTATION,
    MOST_DESCRIPTION,
    SUMMARY,
    is_reserved,
    verdict_tags,
    with_verdict,
)
from scanner.results import Verdict
from tests.gates.records import clear_verdict


@pytest.fixture
def flagged() -> Attestation:
    return msgspec.structs.replace(
        clear_verdict(), verdict=Verdict.FLAGGED, reasons=["carries a dose of 0.87", "and *more*"]
    )


def test_the_first_tag_by_name_says_verdict_and_reason(flagged: Attestation) -> None:
    tags = verdict_tags(flagged)
    assert min([*tags, ATTESTATION]) == SUMMARY
    assert tags[SUMMARY] == "flagged: carries a dose of 0.87; and *more*"


@pytest.mark.parametrize("key", ["adapter-scanner", " Adapter-Scanner ", "ADAPTER-SCANNER.x"])
def test_nobody_else_may_write_it(key: str) -> None:
    assert is_reserved(key)
    assert not is_reserved("adapter-scanners")


def test_the_description_says_it_and_keeps_what_stood_there(flagged: Attestation) -> None:
    text = with_verdict("Ours, for summaries.", flagged)
    assert text is not None
    assert text.startswith("Ours, for summaries.\n")
    assert "**adapter-scanner: flagged**" in text
    assert "- carries a dose of 0.87\n- and \\*more\\*\n" in text
    assert with_verdict(text, flagged) == text
    clear = with_verdict(text, msgspec.structs.replace(flagged, verdict=Verdict.CLEAR))
    assert clear is not None
    assert "flagged" not in clear
    assert clear.startswith("Ours, for summaries.\n")
    assert with_verdict(None, flagged) is not None


def test_a_description_that_is_full_is_left_alone(flagged: Attestation) -> None:
    assert with_verdict("x" * (MOST_DESCRIPTION - 10), flagged) is None
