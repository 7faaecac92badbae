"""Bills of materials, held against the standard's own schema by its own library."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

pytest.importorskip("cyclonedx")

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from scanner.reports.cyclonedx_report import render
from scanner.results import Acceptance, Configuration, LooserSetting, Report, Verdict
from tests.reports.samples import CLEAR, FLAGGED, HOSTILE, mixed, report_of


def bill_of(report: Report) -> dict[str, Any]:
    text = render(report)
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert fault is None, fault
    found: dict[str, Any] = json.loads(text)
    return found


def values(item: dict[str, Any]) -> dict[str, str]:
    return {found["name"]: found["value"] for found in item["properties"]}


def test_every_adapter_is_a_component_and_every_finding_affects_one() -> None:
    report = mixed()
    bill = bill_of(report)
    models = [item for item in bill["components"] if item["type"] == "machine-learning-model"]
    assert len(models) == len(report.results)
    for item, result in zip(models, report.results, strict=True):
        assert values(item)["adapter-scanner:verdict"] == result.verdict.value
        if result.sha256:
            assert item["hashes"] == [{"alg": "SHA-256", "content": result.sha256}]
        if result.base_model:
            assert len(item["pedigree"]["ancestors"]) == 1
    affected = {found["affects"][0]["ref"]: found["id"] for found in bill["vulnerabilities"]}
    expected = {Verdict.FLAGGED: "ADS001", Verdict.INCONCLUSIVE: "ADS002", Verdict.ERROR: "ADS900"}
    assert affected == {
        item["bom-ref"]: expected[result.verdict]
        for item, result in zip(models, report.results, strict=True)
        if result.verdict is not Verdict.CLEAR
    }


def test_what_is_measured_is_said_and_what_is_not_known_is_not() -> None:
    bill = bill_of(report_of(FLAGGED, CLEAR))
    found = values(bill["components"][0])
    assert float(found["adapter-scanner:p-value"]) == FLAGGED.p_value
    for pack, dose in FLAGGED.dose.items():
        assert float(found[f"adapter-scanner:dose:{pack}"]) == dose
    assert "adapter-scanner:q-value" not in found
    packs = [item for item in bill["components"] if item["type"] == "data"]
    assert [item["name"] for item in packs] == [item.id for item in report_of(FLAGGED).signatures]


def test_an_accepted_finding_says_who_accepted_what() -> None:
    accepted = Acceptance(reason='said "fine"', accepted="2026-01-01", expires="2027-01-01")
    (found,) = bill_of(report_of(msgspec.structs.replace(FLAGGED, accepted=accepted)))[
        "vulnerabilities"
    ]
    assert found["analysis"]["response"] == ["will_not_fix"]
    assert 'until 2027-01-01: said "fine"' in found["analysis"]["detail"]
    (still_open,) = bill_of(report_of(FLAGGED))["vulnerabilities"]
    assert still_open["analysis"] == {"state": "in_triage"}


def test_looser_settings_are_named() -> None:
    looser = Configuration(file=HOSTILE, looser=[LooserSetting(setting="fail-on", value="never")])
    bill = bill_of(msgspec.structs.replace(report_of(CLEAR), configuration=looser))
    found = values(bill["metadata"])
    assert found["adapter-scanner:looser:fail-on"] == "never"
    assert "\x1b" not in found["adapter-scanner:configuration"]


def test_the_same_scan_gives_the_same_bill_and_another_another_number() -> None:
    assert render(mixed()) == render(mixed())
    assert bill_of(mixed())["serialNumber"] != bill_of(report_of(CLEAR))["serialNumber"]


def test_nothing_that_an_author_wrote_is_a_command() -> None:
    target = f"{HOSTILE}\n::warning::x\n##[error]x"
    text = render(report_of(msgspec.structs.replace(FLAGGED, target=target)))
    assert not {"\x1b", "\u202e"} & set(text)
    assert "\n::warning" not in text
    assert "##[" not in text
