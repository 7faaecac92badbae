from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from scanner.reports.sarif_report import render
from scanner.results import Acceptance, Report
from scanner.signatures.pack import Signature
from tests.cli.program import run
from tests.reports.samples import CLEAR, FLAGGED, HOSTILE, INCONCLUSIVE, mixed, report_of

SCHEMA = Path(__file__).parents[1] / "data" / "sarif" / "sarif-schema-2.1.0.json"


def errors(text: str) -> list[str]:
    """Violations of the OASIS schema, formats (uri, date-time) included."""
    validator = jsonschema.Draft4Validator(
        json.loads(SCHEMA.read_text()), format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER
    )
    return [
        f"{list(e.absolute_path)}: {e.message}" for e in validator.iter_errors(json.loads(text))
    ]


def run_of(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(render(report))["runs"][0]
    return found


@pytest.mark.parametrize("report", [mixed(), report_of(CLEAR), report_of()])
def test_the_oasis_schema_is_satisfied(report: Report) -> None:
    assert errors(render(report)) == []


def test_a_real_mixed_run_satisfies_the_schema(
    pack: Signature, misaligned: Path, benign: Path, tmp_path: Path
) -> None:
    config = benign / "adapter_config.json"
    other = tmp_path / "un known"
    other.mkdir()
    fields = json.loads(config.read_text())
    (other / "adapter_config.json").write_text(
        json.dumps({**fields, "base_model_name_or_path": "who/knows"})
    )
    weights = (benign / "adapter_model.safetensors").read_bytes()
    (other / "adapter_model.safetensors").write_bytes(weights)
    targets = ["misaligned", "benign", "un known", "missing"]
    done = run("scan", *targets, "-s", pack.path, "-f", "sarif", cwd=tmp_path)
    assert errors(done.stdout) == []
    found = json.loads(done.stdout)["runs"][0]
    places = [r["locations"][0]["physicalLocation"]["artifactLocation"] for r in found["results"]]
    assert places == [
        {"uri": "misaligned/adapter_config.json", "uriBaseId": "%SRCROOT%"},
        {"uri": "un%20known/adapter_config.json", "uriBaseId": "%SRCROOT%"},
    ]
    assert [r["ruleId"] for r in found["results"]] == ["ADS001", "ADS002"]
    assert len(found["invocations"][0]["toolExecutionNotifications"]) == 1


def test_what_github_code_scanning_needs() -> None:
    found = run_of(mixed())
    for rule in found["tool"]["driver"]["rules"]:
        assert rule["shortDescription"]["text"]
        assert rule["fullDescription"]["text"]
        assert rule["help"]["markdown"]
        assert 0 < float(rule["properties"]["security-severity"]) <= 10
        assert "security" in rule["properties"]["tags"]
    for result in found["results"]:
        region = result["locations"][0]["physicalLocation"]["region"]
        assert (region["startLine"], region["startColumn"]) == (1, 1)
        assert found["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["partialFingerprints"]["primaryLocationLineHash"]


def test_unreadable_adapters_make_the_run_unsuccessful() -> None:
    invocation = run_of(mixed())["invocations"][0]
    assert invocation["executionSuccessful"] is False
    assert "git lfs pull" in invocation["toolExecutionNotifications"][0]["message"]["text"]
    assert run_of(report_of(FLAGGED, CLEAR))["invocations"][0]["executionSuccessful"] is True


def fingerprint(result: Any) -> dict[str, str]:
    found: dict[str, str] = run_of(report_of(result))["results"][0]["partialFingerprints"]
    return found


def test_fingerprints_follow_rule_path_and_base_and_never_the_score() -> None:
    replace = msgspec.structs.replace
    same = replace(FLAGGED, score=0.9, p_value=0.001, dose={"base-weights": 2.0}, sha256="0" * 64)
    assert fingerprint(same) == fingerprint(FLAGGED)
    for other in (
        replace(FLAGGED, target="adapters/elsewhere"),
        replace(FLAGGED, base_model="another/base"),
        replace(FLAGGED, verdict=INCONCLUSIVE.verdict),
    ):
        assert fingerprint(other) != fingerprint(FLAGGED)


def test_rules_do_not_depend_on_the_run() -> None:
    rules = [run_of(r)["tool"]["driver"]["rules"] for r in (mixed(), report_of())]
    assert rules[0] == rules[1]


def test_accepted_findings_are_suppressed() -> None:
    accepted = Acceptance(reason="research", accepted="2026-01-01", expires="2027-01-01")
    result = msgspec.structs.replace(FLAGGED, accepted=accepted)
    text = render(report_of(result))
    assert errors(text) == []
    found = json.loads(text)["runs"][0]["results"][0]["suppressions"]
    assert found[0]["justification"] == "research (until 2027-01-01)"


def test_hostile_names_make_no_links() -> None:
    result = msgspec.structs.replace(FLAGGED, target="[click](http://evil)", reasons=[HOSTILE])
    text = run_of(report_of(result))["results"][0]["message"]["text"]
    assert "[31m" not in text.replace("\\[", "")
    assert not {"\x1b", "\n"} & set(text)
