"""Records for tests."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import msgspec

from scanner.gates.attestation import Attestation, JudgedBy, PackIdentity, Subject
from scanner.results import Verdict

JUDGED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def subject(**changes: Any) -> Subject:
    """One version of one model."""
    plain = Subject(model="team-lora", version="3", created=1_700_000_000_000,
                    artifact_sha256="a" * 64)  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def clear_verdict(**changes: Any) -> Attestation:
    """A verdict that lets `subject` pass."""
    plain = Attestation(
        subject=subject(),
        verdict=Verdict.CLEAR,
        adapters=1,
        dose=0.1,
        p_value=0.5,
        alpha=0.01,
        packs=[PackIdentity(id="synthetic-weights", digest="b" * 64)],
        judged_by=[JudgedBy(packs=["synthetic-weights"])],
        weights_sha256="c" * 64,
        reasons=["no overlap"],
        tool_version="0",
        time=JUDGED,
    )
    return msgspec.structs.replace(plain, **changes)
