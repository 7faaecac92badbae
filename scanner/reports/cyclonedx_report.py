"""CycloneDX 1.6: a bill of materials of the adapters, with what was found of each.

Every adapter is a component of type `machine-learning-model` with the digest of its weights and its
base model as ancestor; the packs it was judged with are components of type `data`. A finding is a
vulnerability that affects its adapter. The bill holds no time and its serial number follows from
what it says, so that the same scan gives the same bill.

Standard: ECMA-424, https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from scanner.reports.rules import HOME, NOTIFICATIONS, RULE_OF, RULES
from scanner.reports.terminal import printable, safe_json
from scanner.results import Report, ScanResult, SignatureSummary, Verdict

SPEC_VERSION = "1.6"
_SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_NAMESPACE = "adapter-scanner"
"""What the names of properties begin with, as the standard asks of tools."""
_SEVERITY_OF = {Verdict.FLAGGED: "high", Verdict.INCONCLUSIVE: "unknown", Verdict.ERROR: "unknown"}
"""How bad it is that nothing is known is not known either."""


def render(report: Report) -> str:
    """The report as one bill of materials."""
    refs = [f"adapter-{place}" for place in range(len(report.results))]
    pairs = list(zip(refs, report.results, strict=True))
    bill: dict[str, Any] = {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": _serial_number(report),
        "version": 1,
        "metadata": _metadata(report),
        "components": [
            *(_adapter(ref, result) for ref, result in pairs),
            *map(_pack, report.signatures),
        ],
        "vulnerabilities": [
            _finding(ref, result) for ref, result in pairs if result.verdict in _SEVERITY_OF
        ],
    }
    return safe_json(json.dumps(bill, indent=2, ensure_ascii=False)) + "\n"


def _serial_number(report: Report) -> str:
    """The same for the same report, another for any other."""
    content = msgspec.json.encode(report).hex()
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{HOME}{content}").urn


def _metadata(report: Report) -> dict[str, Any]:
    """The program, the configuration in force, and each setting looser than its default."""
    tool = {"type": "application", "name": report.tool.name, "version": report.tool.version}
    found: dict[str, Any] = {"tools": {"components": [tool]}}
    configuration = report.configuration
    properties = {"configuration": configuration.file} | {
        f"looser:{item.setting}": item.value for item in configuration.looser
    }
    if named := _properties(properties):
        found["properties"] = named
    return found


def _adapter(ref: str, result: ScanResult) -> dict[str, Any]:
    """An adapter, with what was measured of it."""
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": printable(result.target),
    }
    if result.sha256 is not None:
        found["hashes"] = [{"alg": "SHA-256", "content": result.sha256}]
    if result.base_model is not None:
        base = {"type": "machine-learning-model", "name": printable(result.base_model)}
        found["pedigree"] = {"ancestors": [base]}
    measured = {
        "verdict": result.verdict.value,
        "format": result.format,
        "score": result.score,
        "p-value": result.p_value,
        "q-value": result.q_value,
        "alpha": result.alpha,
        "sites": result.coverage.sites,
        "covered-sites": result.coverage.covered_sites,
    }
    for name, by_pack in (
        ("dose", result.dose),
        ("cosine", result.cosine),
        ("overlap", result.overlap),
    ):
        measured |= {f"{name}:{pack}": value for pack, value in by_pack.items()}
    found["properties"] = _properties(measured)
    return found


def _pack(signature: SignatureSummary) -> dict[str, Any]:
    """A pack that adapters were judged with."""
    return {
        "type": "data",
        "bom-ref": f"pack-{printable(signature.id)}",
        "name": printable(signature.id),
        "hashes": [{"alg": "SHA-256", "content": signature.digest}],
        "properties": _properties({"base-model": signature.base_model, "method": signature.method}),
    }


def _finding(ref: str, result: ScanResult) -> dict[str, Any]:
    """What was found of an adapter that is not clear."""
    place = RULE_OF.get(result.verdict)
    rule = NOTIFICATIONS[0] if place is None else RULES[place]
    source = {"name": "adapter-scanner", "url": HOME}
    found: dict[str, Any] = {
        "bom-ref": f"finding-{ref}",
        "id": rule["id"],
        "source": source,
        "ratings": [
            {"source": source, "severity": _SEVERITY_OF[result.verdict], "method": "other"}
        ],
        "description": rule["fullDescription"]["text"],
        "detail": printable("; ".join(result.reasons)),
        "analysis": _analysis(result),
        "affects": [{"ref": ref}],
    }
    if "help" in rule:
        found["recommendation"] = rule["help"]["text"]
    return found


def _analysis(result: ScanResult) -> dict[str, Any]:
    """What the owner said of it: nothing yet, or that a baseline accepts it."""
    if result.accepted is None:
        return {"state": "in_triage"}
    until = f"accepted until {result.accepted.expires}: {result.accepted.reason}"
    return {"state": "exploitable", "response": ["will_not_fix"], "detail": printable(until)}


def _properties(values: Mapping[str, str | float | None]) -> list[dict[str, str]]:
    """Name-value pairs; what is not known has none."""
    return [
        {"name": f"{_NAMESPACE}:{printable(name)}", "value": printable(str(value))}
        for name, value in values.items()
        if value is not None
    ]
