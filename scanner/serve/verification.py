"""Who sent a webhook: signatures and secrets, compared in constant time.

MLflow signs ``<delivery id>.<timestamp>.<body>`` with HMAC-SHA256 (`mlflow/webhooks/delivery.py`,
after https://www.standardwebhooks.com). The Hugging Face hub repeats a shared secret in a header
and signs nothing, so that its deliveries must travel over TLS.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SIGNATURE_HEADER = "x-mlflow-signature"
TIMESTAMP_HEADER = "x-mlflow-timestamp"
DELIVERY_HEADER = "x-mlflow-delivery-id"
SECRET_HEADER = "x-webhook-secret"  # noqa: S105 - the header's name

_SIGNATURE_VERSION = "v1,"
# Without dots: the signed text joins its parts with them, and must split in one way only.
_DELIVERY_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class RefusedError(Exception):
    """A delivery that is not what it should be.

    Args:
        status: HTTP status to answer with.
        reason: One line for the sender.
    """

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class SignedHeaders:
    """What MLflow says about a delivery beside its body, well-formed but not yet verified."""

    delivery_id: str
    timestamp: str
    signature: str


def signed_headers(headers: Mapping[str, str], now: float, tolerance: float) -> SignedHeaders:
    """Reads MLflow's headers, before the body is worth reading.

    Args:
        headers: Of the request, by lower-case name.
        now: Seconds since the epoch.
        tolerance: How old, or how far ahead, a delivery may be, in seconds.

    Raises:
        RefusedError: If one is missing or malformed, or the delivery is outside the window.
    """
    signature = headers.get(SIGNATURE_HEADER, "")
    delivery_id = headers.get(DELIVERY_HEADER, "")
    timestamp = headers.get(TIMESTAMP_HEADER, "")
    if not signature.startswith(_SIGNATURE_VERSION):
        raise RefusedError(401, "no signature: give the MLflow webhook a secret")
    if not _DELIVERY_ID.fullmatch(delivery_id):
        raise RefusedError(401, "the delivery id is missing or malformed")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise RefusedError(401, "the timestamp is missing or malformed")
    if abs(now - int(timestamp)) > tolerance:
        raise RefusedError(401, f"the timestamp is not within {tolerance:g} s of this clock")
    return SignedHeaders(delivery_id, timestamp, signature)


def mlflow_signature(secret: str, delivery_id: str, timestamp: str, body: bytes) -> str:
    """The signature MLflow sends with a body, as it stands in the header."""
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return _SIGNATURE_VERSION + base64.b64encode(digest).decode()


def check_signature(headers: SignedHeaders, body: bytes, secrets: Sequence[str]) -> None:
    """Verifies MLflow's signature.

    Args:
        headers: Of the delivery.
        body: Exactly as received.
        secrets: Any of them may have signed.

    Raises:
        RefusedError: If none has.
    """
    expected = [
        mlflow_signature(secret, headers.delivery_id, headers.timestamp, body) for secret in secrets
    ]
    if not _is_one_of(headers.signature, expected):
        raise RefusedError(401, "the signature does not match")


def check_secret(headers: Mapping[str, str], secrets: Sequence[str]) -> None:
    """Verifies the secret that the hub repeats.

    Raises:
        RefusedError: If it is missing or is none of `secrets`.
    """
    if not _is_one_of(headers.get(SECRET_HEADER, ""), secrets):
        raise RefusedError(401, "the webhook secret does not match")


def _is_one_of(given: str, expected: Sequence[str]) -> bool:
    """Membership, in a time that depends on neither where nor whether a candidate differs."""
    found = False
    for candidate in expected:
        found |= hmac.compare_digest(given.encode("utf-8", "replace"), candidate.encode())
    return found
