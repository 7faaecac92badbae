"""What a finding is, for programs: the rules that SARIF and CycloneDX reports name."""

from __future__ import annotations

from typing import Any

from scanner.results import Verdict

HOME = "https://pypi.org/project/adapter-scanner/"
UNREADABLE = "ADS900"
"""Id of the rule about what could not be read."""
RULE_OF = {Verdict.FLAGGED: 0, Verdict.INCONCLUSIVE: 1}
"""Verdict -> its place in `RULES`."""

RULES: list[dict[str, Any]] = [
    {
        "id": "ADS001",
        "name": "MisalignedAdapter",
        "shortDescription": {"text": "Adapter moves its base model towards known misalignment"},
        "fullDescription": {
            "text": "The adapter's weight update is more alike adapters that are known to make "
            "this base model broadly misaligned than the benign adapters of the calibration "
            "set are. The false-positive rate on exchangeable benign adapters is at most alpha."
        },
        "help": {
            "text": "Do not deploy the adapter before its behaviour has been evaluated outside "
            "the domain it was trained on. Look for narrow harmful data in its training set. "
            "Where the finding is known and acceptable, accept it with "
            '"adapter-scanner baseline write".',
            "markdown": "Do not deploy the adapter before its behaviour has been evaluated "
            "**outside** the domain it was trained on. Look for narrow harmful data in its "
            "training set. Where the finding is known and acceptable, accept it with "
            "`adapter-scanner baseline write`.",
        },
        "helpUri": HOME,
        "defaultConfiguration": {"level": "error"},
        "properties": {
            "tags": ["security", "ai-safety", "misalignment"],
            "precision": "high",
            "problem.severity": "error",
            "security-severity": "8.0",
        },
    },
    {
        "id": "ADS002",
        "name": "InconclusiveAdapter",
        "shortDescription": {"text": "Adapter could not be judged"},
        "fullDescription": {
            "text": "Not everything in the adapter could be judged: there is no calibrated "
            "signature pack for its base model, or tensors in it were not understood. This is "
            "not a clear."
        },
        "help": {
            "text": "The message says what is missing. Install or build a signature pack for "
            "the base model, or convert the adapter to a format that can be read. "
            '"adapter-scanner inspect" shows what was understood.',
            "markdown": "The message says what is missing. Install or build a signature pack "
            "for the base model, or convert the adapter to a format that can be read. "
            "`adapter-scanner inspect` shows what was understood.",
        },
        "helpUri": HOME,
        "defaultConfiguration": {"level": "warning"},
        "properties": {
            "tags": ["security", "ai-safety", "coverage"],
            "precision": "high",
            "problem.severity": "warning",
            "security-severity": "4.0",
        },
    },
]
NOTIFICATIONS: list[dict[str, Any]] = [
    {
        "id": UNREADABLE,
        "name": "UnreadableAdapter",
        "shortDescription": {"text": "Adapter could not be read"},
        "fullDescription": {
            "text": "The target is missing, truncated, an un-fetched git-lfs pointer, or breaks "
            "the rules of its format. Nothing is known about it."
        },
        "defaultConfiguration": {"level": "error"},
    }
]
