"""The gate in front of an upload: a policy, and the key that an override or a verdict needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scanner.errors import UsageError
from scanner.gates.attestation import Attestation, Override, Signed, now, sign
from scanner.gates.judgement import Judgement
from scanner.gates.keys import load_signing_key, signing_key_at_hand
from scanner.gates.policy import DEFAULT_POLICY, Access, Action, Decision, Keys, decide
from scanner.gates.policy_file import LoadedPolicy, load_policy

_LONGEST_REASON = 1000


def check_override_reason(reason: str) -> None:
    """Refuses a reason that says nothing, or that no record can hold.

    Raises:
        UsageError: If it is blank or too long.
    """
    if not reason.strip() or len(reason) > _LONGEST_REASON:
        raise UsageError(f"a reason has 1 to {_LONGEST_REASON} characters", where="the reason")


@dataclass(frozen=True)
class PushGate:
    """Decides what may be uploaded, before a registry or a hub sees any of it."""

    policy: LoadedPolicy
    key: Path | None = None
    """File of the private key; None: the environment's, if it names one."""
    override_reason: str | None = None
    """Why the holder of the key lets it pass against the verdict; None: they do not."""

    @classmethod
    def of_file(
        cls, policy_file: Path | None, key: Path | None, override_reason: str | None
    ) -> PushGate:
        """The gate of a policy file; without one only "clear" passes.

        Raises:
            UsageError: If the policy is not sound.
        """
        if policy_file is None:
            loaded = LoadedPolicy(DEFAULT_POLICY, Keys(), "the default policy")
        else:
            loaded = load_policy(policy_file)
        return cls(loaded, key, override_reason)

    def require_rule(self, model: str, *, named: bool) -> None:
        """Refuses a model that the policy does not know: a mistake in one of them, never a pass.

        Args:
            model: Its name.
            named: Whether somebody said that it is this model; otherwise its folder did.

        Raises:
            UsageError: If no rule is for the model.
        """
        if self.policy.policy.rule_for(model) is None:
            todo = "add a rule" if named else "say which model it is with --model"
            raise UsageError(f"no rule is for {model!r}", where=self.policy.where, todo=todo)

    def decide(self, judgement: Judgement) -> Decision:
        """What the policy says to what was found.

        Raises:
            UsageError: If it is to be overridden, and the key is nobody's whom the policy knows.
        """
        attestation = judgement.attestation
        override = None if self.override_reason is None else self._override(attestation)
        access = Access(Action.PUSH, attestation.subject)
        return decide(self.policy.policy, access, attestation, override, now())

    def _override(self, attestation: Attestation) -> Signed[Override]:
        """The override of whoever holds the key, for what has just been judged."""
        assert self.override_reason is not None, "asked for only with a reason"
        check_override_reason(self.override_reason)
        public = load_signing_key(self.key).public
        names = [name for name, known in self.policy.keys.people.items() if known == public]
        if not names:
            raise UsageError(
                f"the key {public.id} is not that of one of the policy's people",
                where="--override",
            )
        record = Override(
            subject=attestation.subject, reason=self.override_reason, time=now(), expires=now()
        )
        return Signed(record, names[0])

    def token(self, judgement: Judgement, decision: Decision) -> str | None:
        """The signed verdict, if there is a key to sign with.

        None too where a person overrode the verdict: a person's key signs no verdict.
        """
        if not signing_key_at_hand(self.key) or decision.overridden_by:
            return None
        return sign(judgement.attestation, load_signing_key(self.key))
