"""The policy file, and every way a decision can go."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scanner.errors import UsageError
from scanner.gates.attestation import Attestation, JudgedBy, Override, Signed
from scanner.gates.keys import load_signing_key, write_new_key
from scanner.gates.policy import Access, Action, Policy, Rule, decide, is_gated
from scanner.gates.policy_file import load_policy
from scanner.results import Verdict
from tests.gates.records import JUDGED, clear_verdict, subject

NOW = JUDGED + timedelta(days=10)


def policy(**rule: Any) -> Policy:
    return Policy(version=1, rules=[Rule(models=["*"], **rule)])


def alias(name: str = "champion", **changes: Any) -> Access:
    return Access(Action.ALIAS, subject(**changes), name)


def override(signer: str = "alice", **changes: Any) -> Signed[Override]:
    fields = {
        "subject": subject(),
        "reason": "reviewed by hand",
        "time": JUDGED,
        "expires": NOW + timedelta(days=1),
    }
    return Signed(Override(**{**fields, **changes}), signer)


def test_a_clear_version_passes() -> None:
    assert decide(policy(), alias(), clear_verdict(), None, NOW).allowed


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (None, "no valid verdict"),
        (clear_verdict(verdict=Verdict.FLAGGED, reasons=["too alike"]), "flagged: too alike"),
        (clear_verdict(verdict=Verdict.ERROR), "error"),
        (clear_verdict(verdict=Verdict.INCONCLUSIVE), "inconclusive"),
        (clear_verdict(subject=subject(version="2")), "another version"),
        (clear_verdict(subject=subject(model="other")), "another version"),
        (clear_verdict(subject=subject(created=1)), "another version"),
        (clear_verdict(subject=subject(artifact_sha256="d" * 64)), "its files are not those"),
        (clear_verdict(time=NOW + timedelta(hours=1)), "future"),
    ],
)
def test_anything_else_is_refused(verdict: Attestation | None, reason: str) -> None:
    decision = decide(policy(), alias(), verdict, None, NOW)
    assert not decision.allowed
    assert reason in decision.reason


def test_inconclusive_follows_the_policy_and_error_never_passes() -> None:
    lenient = policy(inconclusive="allow")
    for verdict, allowed in ((Verdict.INCONCLUSIVE, True), (Verdict.ERROR, False)):
        found = decide(lenient, alias(), clear_verdict(verdict=verdict), None, NOW)
        assert found.allowed is allowed


@pytest.mark.parametrize(
    ("powers", "allowed"),
    [([0.8], True), ([0.79], False), ([0.9, 0.8], True), ([0.9, None], False), ([], False)],
)
def test_every_pack_must_be_known_to_find_enough(powers: list[float | None], allowed: bool) -> None:
    judged_by = [JudgedBy(packs=[f"pack-{i}"], power=power) for i, power in enumerate(powers)]
    verdict = clear_verdict(judged_by=judged_by)
    decision = decide(policy(min_power=0.8), alias(), verdict, None, NOW)
    assert decision.allowed is allowed
    assert decide(policy(), alias(), verdict, None, NOW).allowed


@pytest.mark.parametrize(
    ("power", "why", "refusal"),
    [
        (0.8, "", None),
        (0.5, "", "the packs a, b together find 50% of their own misaligned references"),
        (None, "a and b share no misaligned reference",
         "not known what the packs a, b together find, the policy asks for a power of 0.8: a and b "
         "share no misaligned reference"),
    ],
)  # fmt: skip
def test_packs_that_judged_together_must_find_enough_together(
    power: float | None, why: str, refusal: str | None
) -> None:
    together = JudgedBy(packs=["a", "b"], power=power, why_unknown=why)
    verdict = clear_verdict(judged_by=[JudgedBy(packs=["c"], power=0.9), together])
    decision = decide(policy(min_power=0.8), alias(), verdict, None, NOW)
    assert decision.allowed is (refusal is None)
    assert (refusal or "clear") in decision.reason


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"alpha": 0.05}, "at alpha 0.01"),
        ({"packs": ["another-pack"]}, "another-pack"),
        ({"packs": ["synthetic-weights@" + "0" * 64]}, "synthetic-weights@"),
        ({"max_age_days": 9}, "10 days old"),
        ({"min_power": 0.5}, "not known what the pack synthetic-weights finds"),
    ],
)
def test_requirements_that_a_clear_does_not_meet(rule: dict[str, Any], reason: str) -> None:
    decision = decide(policy(**rule), alias(), clear_verdict(), None, NOW)
    assert not decision.allowed
    assert reason in decision.reason


def test_requirements_that_a_clear_meets() -> None:
    strict = policy(alpha=0.01, packs=["synthetic-weights@" + "b" * 64], max_age_days=10)
    assert decide(strict, alias(), clear_verdict(), None, NOW).allowed


def test_only_named_people_override_and_the_reason_stands_in_the_decision() -> None:
    flagged = clear_verdict(verdict=Verdict.FLAGGED)
    rule = policy(overrides=["alice"])
    decision = decide(rule, alias(), flagged, override(), NOW)
    assert (decision.allowed, decision.overridden_by) == (True, "alice")
    assert "reviewed by hand" in decision.reason
    for bad, reason in (
        (override("mallory"), "may not override"),
        (override(expires=NOW - timedelta(days=1)), "ended"),
        (override(subject=subject(artifact_sha256="d" * 64)), "override is about"),
        (override(subject=subject(version="4")), "another version"),
    ):
        refused = decide(rule, alias(), flagged, bad, NOW)
        assert not refused.allowed
        assert reason in refused.reason


def test_names_match_whatever_their_case_and_the_first_rule_counts() -> None:
    rules = [
        Rule(models=["Scratch-*"], aliases=["prod*"], stages=["Production"]),
        Rule(models=["*"], downloads="block"),
    ]
    both = Policy(version=1, rules=rules)
    assert is_gated(both, "scratch-1", Action.ALIAS, "PROD-eu")
    assert not is_gated(both, "scratch-1", Action.ALIAS, "test")
    assert is_gated(both, "scratch-1", Action.STAGE, "production")
    assert not is_gated(both, "scratch-1", Action.DOWNLOAD)
    assert is_gated(both, "other", Action.DOWNLOAD)
    assert not is_gated(Policy(version=1, rules=rules[:1]), "other", Action.PUSH)


GOOD = """\
version: 1
scanners:
  lab: KEY1
people:
  alice: KEY2
rules:
  - models: ["team-*"]
    inconclusive: allow
    max-age-days: 90
    overrides: [alice]
"""


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    paths = [tmp_path / "1.pem", tmp_path / "2.pem"]
    return {f"KEY{i}": str(write_new_key(path)) for i, path in enumerate(paths, 1)}


def written(tmp_path: Path, text: str, keys: dict[str, str]) -> Path:
    for name, key in keys.items():
        text = text.replace(name, key)
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    return path


def test_a_policy_file_is_read(tmp_path: Path, keys: dict[str, str]) -> None:
    loaded = load_policy(written(tmp_path, GOOD, keys))
    rule = loaded.policy.rule_for("team-a")
    assert rule is not None
    assert (rule.inconclusive, rule.max_age_days, rule.aliases) == ("allow", 90, ["*"])
    assert loaded.keys.scanners["lab"] == load_signing_key(tmp_path / "1.pem").public


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", ":1: version: "),
        ("inconclusive: allow", "inconclusive: maybe", ":8: rules[0].inconclusive: "),
        ("inconclusive: allow", "inconclusiv: allow", ":8: unknown key 'inconclusiv'; did you"),
        ("max-age-days: 90", "max-age-days: 0", ":9: rules[0].max-age-days: "),
        ("max-age-days: 90", "alpha: 2", ":9: rules[0].alpha: "),
        ("max-age-days: 90", "inconclusive: block", ":9: the key 'inconclusive' occurs twice"),
        ("overrides: [alice]", "overrides: [bob]", ":10: 'bob' is not among"),
        ("KEY2", "KEY1", ":5: the key of 'alice' is also that of 'lab'"),
        ("KEY2", "ed25519:AAAA", ":5: not a public key"),
        ('["team-*"]', "[]", ":7: rules[0].models: "),
        ("rules:", "rulez:", ":6: unknown key 'rulez'; did you mean 'rules'?"),
        ("rules:", "rules: [", "invalid YAML"),
    ],
)
def test_every_error_has_its_line(
    tmp_path: Path, keys: dict[str, str], old: str, new: str, message: str
) -> None:
    path = written(tmp_path, GOOD.replace(old, new), keys)
    with pytest.raises(UsageError) as caught:
        load_policy(path)
    assert message in caught.value.line()


@pytest.mark.parametrize("text", ["", "[]", "\0", "a: &a [*a]", "version: 1\nrules: !!python/x y"])
def test_what_is_no_policy_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"gate\.yaml"):
        load_policy(path)
