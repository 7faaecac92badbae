"""SARIF 2.1.0, as GitHub code scanning reads it.

Flagged and inconclusive adapters are results; an adapter that could not be read is a
notification of a run that did not succeed. Fingerprints come from rule, path and base model:
an alert that somebody dismissed stays dismissed while the adapter's score moves.

Standard: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html. What GitHub needs:
https://docs.github.com/en/code-security/code-scanning/integrating-with-code-scanning/sarif-support-for-code-scanning
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from scanner.formats.peft_config import CONFIG_NAME
from scanner.formats.rules import WEIGHT_SUFFIXES
from scanner.formats.stores.sniff import INDEX_SUFFIX
from scanner.reports.rules import HOME, NOTIFICATIONS, RULE_OF, RULES, UNREADABLE
from scanner.reports.terminal import printable, safe_json
from scanner.reports.wording import NOT_ALIGNED
from scanner.results import Report, ScanResult, Verdict

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_ROOT = "%SRCROOT%"
_LEVEL_OF = {Verdict.FLAGGED: "error", Verdict.INCONCLUSIVE: "warning"}


def render(report: Report) -> str:
    """The report as one SARIF log with one run."""
    found = [_result(item) for item in report.results if item.verdict in RULE_OF]
    unreadable = [_notification(item) for item in report.results if item.verdict is Verdict.ERROR]
    run = {
        "tool": {
            "driver": {
                "name": report.tool.name,
                "version": report.tool.version,
                "informationUri": HOME,
                "fullDescription": {"text": f"Scans LoRA adapters. {NOT_ALIGNED}"},
                "rules": RULES,
                "notifications": NOTIFICATIONS,
            }
        },
        "invocations": [
            {
                "executionSuccessful": not unreadable,
                "properties": {"configuration": msgspec.to_builtins(report.configuration)},
                "toolExecutionNotifications": unreadable,
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": found,
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return safe_json(json.dumps(log, indent=2, ensure_ascii=False)) + "\n"


def _message(result: ScanResult) -> dict[str, str]:
    """Reasons as plain text: brackets would make a link of what an adapter's author wrote."""
    text = printable(f"{Path(result.target).name}: {'; '.join(result.reasons)}")
    return {"text": text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")}


def _result(result: ScanResult) -> dict[str, Any]:
    index = RULE_OF[result.verdict]
    rule = RULES[index]["id"]
    fingerprint = hashlib.sha256(
        "\n".join((rule, _location(result)["uri"], result.base_model or "")).encode(
            "utf-8", "backslashreplace"
        )
    ).hexdigest()
    found: dict[str, Any] = {
        "ruleId": rule,
        "ruleIndex": index,
        "level": _LEVEL_OF[result.verdict],
        "message": _message(result),
        "locations": [_place(result)],
        "partialFingerprints": {
            "adapterScan/v1": fingerprint,
            "primaryLocationLineHash": f"{fingerprint[:16]}:1",
        },
        "properties": {
            "sha256": result.sha256,
            "pValue": result.p_value,
            "dose": result.dose,
            "cosine": result.cosine,
            "overlap": result.overlap,
        },
    }
    if result.accepted is not None:
        found["suppressions"] = [
            {
                "kind": "external",
                "status": "accepted",
                "justification": f"{result.accepted.reason} (until {result.accepted.expires})",
            }
        ]
    return found


def _notification(result: ScanResult) -> dict[str, Any]:
    return {
        "descriptor": {"id": UNREADABLE, "index": 0},
        "level": "error",
        "message": _message(result),
        "locations": [_place(result)],
    }


def _place(result: ScanResult) -> dict[str, Any]:
    """The file an alert is shown at; the first line, since weights have none."""
    region = {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1}
    return {"physicalLocation": {"artifactLocation": _location(result), "region": region}}


def _location(result: ScanResult) -> dict[str, str]:
    """The adapter's configuration if it has one (a text file can be shown), else the target."""
    if "://" in result.target:
        return {"uri": quote(result.target, safe=":/@", errors="surrogateescape")}
    path = Path(result.target)
    if result.config_sha256 is not None:
        is_file = path.name.endswith((*WEIGHT_SUFFIXES, INDEX_SUFFIX))
        path = (path.parent if is_file else path) / CONFIG_NAME
    relative = os.path.relpath(path)
    if relative.startswith(os.pardir):
        return {"uri": path.resolve().as_uri()}
    uri = quote(Path(relative).as_posix(), errors="surrogateescape")
    return {"uri": uri, "uriBaseId": _ROOT}
