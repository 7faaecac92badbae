"""Signed records: a verdict, an override, a scanner's pass; as one line of text each.

A token is ``v1.<key id>.<payload>.<signature>``: the payload is the record as canonical JSON
(sorted keys, no spaces, UTF-8), and payload and signature are in unpadded base64url. The
signature is over the record's kind and the payload's bytes as they stand in the token, so
nothing is parsed before it is verified, and a record of one kind is never taken for another.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta

from scanner.errors import AttestationError
from scanner.gates.keys import PublicKey, SigningKey
from scanner.results import Record, Verdict

MAX_TOKEN_CHARACTERS = 5000
"""What every MLflow can store in a model version's tag (newer ones take 100,000)."""
_TOKEN = re.compile(r"v1\.([0-9a-f]{16})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})", re.ASCII)

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Moment = Annotated[datetime, Meta(tz=True)]


class Subject(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a record is about: one version of one model, and its bytes."""

    model: str
    """The registered model's name, or the repository's."""
    version: str = ""
    """The registry's version; empty where there are none."""
    created: int | None = None
    """The registry's own time stamp of the version (MLflow: milliseconds), which nobody can
    choose: a version that was deleted and made again under the same number is another."""
    artifact_sha256: Sha256
    """`scanner.gates.artifact.artifact_sha256` of all its files."""


class PackIdentity(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signature pack a verdict rests on."""

    id: str
    digest: str


class JudgedBy(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pack, or several by one joint score, that an adapter's verdict rests on."""

    packs: list[str]
    """Their ids."""
    power: float | None = None
    """The share of their misaligned references that they find at the verdict's alpha; null if
    that is not known."""
    why_unknown: str = ""
    """Why it is not known, where there is more to say than that nobody has measured it."""


class Attestation(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A verdict on a whole model version: the gravest of its adapters'."""

    subject: Subject
    verdict: Verdict
    adapters: int
    """Adapters found in it; 0 if none, and then the verdict is `error`."""
    dose: float | None
    """The largest dose of any of them."""
    p_value: float | None
    """The smallest p-value of any of them."""
    alpha: float | None
    """The false-positive rate it was judged at; the smallest, if they differ."""
    packs: list[PackIdentity]
    judged_by: list[JudgedBy] = []
    """The packs again, as adapters were judged by them: alone or together."""
    weights_sha256: str | None
    """Of the one adapter's weights; of several, of their digests, sorted, one a line."""
    reasons: list[str]
    """The first reasons of the gravest verdict, shortened."""
    tool_version: str
    time: Moment


class Override(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person's decision that one version may pass although its verdict does not let it."""

    subject: Subject
    reason: Annotated[str, Meta(min_length=1, max_length=1000)]
    time: Moment
    expires: Moment


class Pass(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lets a scanner read what nobody may read before it is judged. It lives for minutes."""

    expires: Moment


Kind = TypeVar("Kind", Attestation, Override, Pass)


@dataclass(frozen=True)
class Signed(Generic[Kind]):
    """A record whose signature has been verified."""

    record: Kind
    signer: str
    """The name the policy gives to the key."""


def now() -> datetime:
    """The time, in UTC and whole seconds."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def canonical(record: Record) -> bytes:
    """A record as canonical JSON."""
    return msgspec.json.encode(record, order="sorted")


def sign(record: Attestation | Override | Pass, key: SigningKey) -> str:
    """Returns a record as a signed token.

    Raises:
        AttestationError: If the token would be too long for a tag.
    """
    payload = canonical(record)
    signature = key.sign(_message(type(record), payload))
    token = f"v1.{key.public.id}.{_encode(payload)}.{_encode(signature)}"
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise AttestationError(
            f"the signed record has {len(token)} characters, more than {MAX_TOKEN_CHARACTERS}",
            todo="name fewer packs with --signature",
        )
    return token


def verify(token: str, keys: Mapping[str, PublicKey], kind: type[Kind]) -> Signed[Kind]:
    """Checks a token and returns what it says.

    Args:
        token: The text.
        keys: Name of the signer -> key; nobody else is believed.
        kind: The kind of record expected.

    Raises:
        AttestationError: If it is malformed, of another kind, changed, or signed by nobody known.
    """
    match = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN_CHARACTERS else None
    if match is None:
        raise AttestationError("not a signed record")
    key_id, payload, signature = match[1], _decode(match[2]), _decode(match[3])
    signer = next((name for name, key in keys.items() if key.id == key_id), None)
    if signer is None:
        raise AttestationError(f"signed with the key {key_id}, which the policy does not know")
    if not keys[signer].verifies(signature, _message(kind, payload)):
        raise AttestationError(f"the signature is not that of {signer!r}")
    try:
        return Signed(msgspec.json.decode(payload, type=kind), signer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise AttestationError(
            f"signed by {signer!r}, but not in a form this version reads",
            todo="update adapter-scanner where it signs and where it checks",
        ) from None


def _message(kind: type[Record], payload: bytes) -> bytes:
    return f"adapter-scanner {kind.__name__} v1\n".encode() + payload


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        data = b""
    if _encode(data) != text:  # several texts decode to the same bytes; only one is accepted
        raise AttestationError("not a signed record")
    return data
