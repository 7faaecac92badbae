"""The policy: which models are gated, what a verdict must be to pass, and who may override.

`decide` is a pure function of the policy, what is asked, and verified records. Whatever is
missing, unknown or out of date is a refusal with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from scanner.gates.attestation import Attestation, Override, Signed, Subject
from scanner.gates.keys import PublicKey
from scanner.results import Verdict

Stage = Literal["None", "Staging", "Production", "Archived"]
Globs = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1)]


class Action(str, Enum):
    """What somebody wants to do with a version."""

    ALIAS = "alias"
    STAGE = "stage"
    DOWNLOAD = "download"
    PUSH = "push"
    """Enter a hub or a registry at all."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """What holds for some models. The first rule of a policy that names a model is its rule."""

    models: Globs
    """Globs of registered models' or repositories' names, whatever the case."""
    aliases: list[str] = msgspec.field(default_factory=lambda: ["*"])
    """Globs of the aliases that only a judged version may carry."""
    stages: list[Stage] = msgspec.field(default_factory=lambda: ["Staging", "Production"])
    """The stages that only a judged version may enter."""
    downloads: Literal["open", "block"] = "open"
    """Whether a version can be downloaded before it has passed."""
    inconclusive: Literal["block", "allow"] = "block"
    """What a verdict of `inconclusive` means. An `error` is always a refusal."""
    alpha: Annotated[float, Meta(gt=0, lt=1)] | None = None
    """A `clear` must have been given at this false-positive rate or a larger one, which flags
    more: p does not depend on alpha, so what is not flagged at a rate is not flagged at any
    smaller one."""
    packs: list[str] = []
    """Packs a `clear` must rest on: an id, or id@digest."""
    min_power: Annotated[float, Meta(gt=0, le=1)] | None = None
    """The packs that a `clear` rests on must find at least this share of their own misaligned
    references at the verdict's alpha, each held out where that is possible: together, if they
    judged together. Packs of which it is not known what they find do not count."""
    max_age_days: Annotated[int, Meta(ge=1)] | None = None
    """A verdict older than this no longer counts."""
    overrides: list[str] = []
    """People (of the policy's `people`) who may let a version pass, with a reason."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A whole policy file; `scanner.gates.policy_file` reads it."""

    version: Literal[1]
    rules: Annotated[list[Rule], Meta(min_length=1)]
    scanners: dict[str, str] = {}
    """Name -> public key of those whose verdicts count."""
    people: dict[str, str] = {}
    """Name -> public key of those whose overrides may count."""

    def rule_for(self, model: str) -> Rule | None:
        """The rule of a model; None if the policy says nothing about it."""
        return next((rule for rule in self.rules if _matches(model, rule.models)), None)


DEFAULT_POLICY = Policy(version=1, rules=[Rule(models=["*"])])
"""Without a policy: nothing passes that is not clear."""


@dataclass(frozen=True)
class Keys:
    """The policy's public keys, parsed."""

    scanners: Mapping[str, PublicKey] = field(default_factory=dict)
    people: Mapping[str, PublicKey] = field(default_factory=dict)


@dataclass(frozen=True)
class Access:
    """What is asked: may this version do that?"""

    action: Action
    subject: Subject
    """The version as it is now, its digest computed now."""
    name: str = ""
    """Name of the alias or stage that is asked for; empty for other actions."""


@dataclass(frozen=True)
class Decision:
    """Whether a request is allowed, and why."""

    allowed: bool
    reason: str
    overridden_by: str | None = None
    """Name of the person whose override allows what the verdict does not."""


def governs(rule: Rule, action: Action, name: str = "") -> bool:
    """Whether a rule restricts an action at all."""
    if action is Action.ALIAS:
        return _matches(name, rule.aliases)
    if action is Action.STAGE:
        return _matches(name, rule.stages)
    if action is Action.DOWNLOAD:
        return rule.downloads == "block"
    return True


def is_gated(policy: Policy, model: str, action: Action, name: str = "") -> bool:
    """Whether an action on a model needs a verdict."""
    rule = policy.rule_for(model)
    return rule is not None and governs(rule, action, name)


def decide(
    policy: Policy,
    access: Access,
    attestation: Signed[Attestation] | Attestation | None,
    override: Signed[Override] | None,
    now: datetime,
) -> Decision:
    """Decides one request.

    Args:
        policy: The policy.
        access: What is asked.
        attestation: The version's verdict, its signature verified; or, unsigned, one that the
            caller has just reached itself.
        override: The version's override, its signature verified.
        now: The time.
    """
    rule = policy.rule_for(access.subject.model)
    if rule is None or not governs(rule, access.action, access.name):
        return Decision(True, "not gated")
    verdict = attestation.record if isinstance(attestation, Signed) else attestation
    refusal = _refusal(rule, access.subject, verdict, now)
    if refusal is None:
        assert verdict is not None, "only a verdict is no refusal"
        return Decision(True, f"the verdict is {verdict.verdict.value}")
    if override is None:
        return Decision(False, refusal)
    objection = _objection(rule, access.subject, override, now)
    if objection is not None:
        return Decision(False, f"{refusal}; {objection}")
    reason = f"{refusal}; overridden by {override.signer}: {override.record.reason}"
    return Decision(True, reason, override.signer)


def _refusal(
    rule: Rule, subject: Subject, attestation: Attestation | None, now: datetime
) -> str | None:
    """Why a verdict does not let its version pass; None if it does."""
    if attestation is None:
        return "there is no valid verdict on it"
    changed = _other_subject("verdict", attestation.subject, subject)
    if changed is not None:
        return changed
    age = now - attestation.time
    if rule.max_age_days is not None and age > timedelta(days=rule.max_age_days):
        return f"the verdict is {age.days} days old, the policy takes {rule.max_age_days} at most"
    if age < -timedelta(minutes=5):
        return "the verdict's time is in the future; a clock is wrong"
    if attestation.verdict is Verdict.INCONCLUSIVE and rule.inconclusive == "allow":
        return None
    if attestation.verdict is not Verdict.CLEAR:
        because = f": {attestation.reasons[0]}" if attestation.reasons else ""
        return f"the verdict is {attestation.verdict.value}{because}"
    return _too_weak(rule, attestation)


def _too_weak(rule: Rule, attestation: Attestation) -> str | None:
    """Which requirement of the policy a `clear` does not meet, if any."""
    if rule.alpha is not None and (attestation.alpha is None or attestation.alpha < rule.alpha):
        return f"it was judged at alpha {attestation.alpha}, the policy asks for {rule.alpha:g}"
    known = {pack.id for pack in attestation.packs}
    known |= {f"{pack.id}@{pack.digest}" for pack in attestation.packs}
    missing = [pack for pack in rule.packs if pack not in known]
    if missing:
        return f"the verdict does not rest on the pack {missing[0]}, which the policy asks for"
    return None if rule.min_power is None else _too_little_power(rule.min_power, attestation)


def _too_little_power(least: float, attestation: Attestation) -> str | None:
    """Which packs find too little for the policy, if any do."""
    if not attestation.judged_by:
        return f"the verdict names no pack, the policy asks for packs of power {least:g}"
    for item in attestation.judged_by:
        one = len(item.packs) == 1
        who = f"the pack {item.packs[0]}" if one else f"the packs {', '.join(item.packs)} together"
        verb, whose = ("finds", "its") if one else ("find", "their")
        if item.power is None:
            why = item.why_unknown or "calibrate or build the pack again"
            return (
                f"it is not known what {who} {verb}, the policy asks for a power of {least:g}: "
                f"{why}"
            )
        if item.power < least:
            return (
                f"{who} {verb} {item.power:.0%} of {whose} own misaligned references at alpha "
                f"{attestation.alpha}, the policy asks for {least:.0%}"
            )
    return None


def _objection(
    rule: Rule, subject: Subject, override: Signed[Override], now: datetime
) -> str | None:
    """Why an override does not count; None if it does."""
    record = override.record
    if override.signer not in rule.overrides:
        return f"{override.signer} may not override for this model"
    if record.expires < now:
        return f"the override by {override.signer} ended on {record.expires:%Y-%m-%d}"
    return _other_subject("override", record.subject, subject)


def _other_subject(record: str, judged: Subject, found: Subject) -> str | None:
    if judged == found:
        return None
    if (judged.model, judged.version, judged.created) != (
        found.model,
        found.version,
        found.created,
    ):
        return f"the {record} is about another version, {judged.model} {judged.version}".rstrip()
    return f"its files are not those the {record} is about"


def _matches(text: str, globs: Iterable[str]) -> bool:
    """Whether any glob matches, whatever the case: some databases do not tell case apart."""
    return any(fnmatchcase(text.casefold(), glob.casefold()) for glob in globs)
