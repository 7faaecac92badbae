"""What the server asks before it changes or hands out something: one object, `Gate`."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from scanner.errors import AttestationError, TargetError
from scanner.gates.attestation import Attestation, Kind, Override, Pass, Signed, now, verify
from scanner.gates.keys import PublicKey
from scanner.gates.mlflow_gate import subject_of
from scanner.gates.mlflow_server.files import version_sha256
from scanner.gates.mlflow_server.presented import presented_pass
from scanner.gates.mlflow_tags import (
    ATTESTATION,
    OVERRIDE,
    is_reserved,
    override_tags,
    verdict_tags,
)
from scanner.gates.policy import Access, Action, Decision, Policy, decide, governs, is_gated
from scanner.gates.policy_file import LoadedPolicy
from scanner.reports.terminal import printable
from scanner.reports.wording import ORDER

_log = logging.getLogger("adapter_scanner.gate")


class Gate:
    """The policy, applied to MLflow's entities. Every refusal is an MLflow error: status 403."""

    def __init__(self, loaded: LoadedPolicy) -> None:
        self.policy: Policy = loaded.policy
        self._keys = loaded.keys

    def require(self, version: Any, location: str, action: Action, name: str = "") -> None:
        """Refuses an action on a version that its verdict does not let pass.

        Args:
            version: MLflow's model version, read from the store now.
            location: Where its files are.
            action: What is to be done.
            name: The alias or the stage.

        Raises:
            MlflowException: PERMISSION_DENIED, with the reason.
        """
        if not is_gated(self.policy, version.name, action, name):
            return
        if action is Action.DOWNLOAD and self.shows_pass():
            return
        decision = self.decision(version, location, action, name)
        what = f"{action.value} {name} of {version.name} version {version.version}".replace(
            "  ", " "
        )
        if not decision.allowed:
            refuse(f"{what}: {decision.reason}{self.way_out(version)}")
        if decision.overridden_by:
            _record("allowed", f"{what}: {decision.reason}")

    def decision(self, version: Any, location: str, action: Action, name: str = "") -> Decision:
        """Decides from the tags and the files as they are now."""
        try:
            digest = version_sha256(location)
        except TargetError as error:
            return Decision(False, f"its files cannot be read: {error.what}")
        access = Access(action, subject_of(version, digest), name)
        return decide(
            self.policy,
            access,
            self._believed(version.tags, ATTESTATION, self._keys.scanners, Attestation),
            self._believed(version.tags, OVERRIDE, self._keys.people, Override),
            now(),
        )

    def way_out(self, version: Any) -> str:
        """The command that gives a version its verdict, if it has none; otherwise nothing."""
        if self._believed(version.tags, ATTESTATION, self._keys.scanners, Attestation):
            return ""
        return f"; {judging_command(version.name, version.version)} makes one"

    def freezes(self, model: str) -> bool:
        """Whether files of a registered version of this model may no longer change."""
        rule = self.policy.rule_for(model)
        return rule is not None and bool(
            rule.aliases or rule.stages or governs(rule, Action.DOWNLOAD)
        )

    def blocks_downloads(self, model: str) -> bool:
        """Whether versions of this model are read only after they have passed."""
        return is_gated(self.policy, model, Action.DOWNLOAD)

    def shows_pass(self) -> bool:
        """Whether the request at hand carries a scanner's pass."""
        token = presented_pass()
        if token is None:
            return False
        try:
            shown = verify(token, self._keys.scanners, Pass)
        except AttestationError:
            return False
        return shown.record.expires > now()

    def admit_tag(self, version: Any, key: str, value: str) -> None:
        """Refuses a tag of the scanner's namespace that is not what a signed record says.

        The signature is the permission: whoever holds a scanner's key may write its verdicts
        over any connection, and nobody else may, whoever they are to the server.

        Raises:
            MlflowException: PERMISSION_DENIED.
        """
        if not is_reserved(key):
            return
        if key == ATTESTATION:
            self._admit_attestation(version, value)
        elif key == OVERRIDE:
            self._admit_override(version, value)
        elif self._derived(version).get(key) != value:
            refuse(f"the tag {key} belongs to the scanner: it repeats what a signed record says")

    def _admit_attestation(self, version: Any, token: str) -> None:
        new = self._verified(token, self._keys.scanners, Attestation)
        _same_version(version, new.record)
        old = self._believed(version.tags, ATTESTATION, self._keys.scanners, Attestation)
        if old is not None and _rank(new.record) < _rank(old.record):
            refuse("there is a newer verdict on this version")

    def _admit_override(self, version: Any, token: str) -> None:
        new = self._verified(token, self._keys.people, Override)
        _same_version(version, new.record)
        rule = self.policy.rule_for(version.name)
        if rule is None or new.signer not in rule.overrides:
            refuse(f"{new.signer} may not override for this model")
        old = self._believed(version.tags, OVERRIDE, self._keys.people, Override)
        if old is not None and new.record.time < old.record.time:
            refuse("there is a newer override on this version")
        _record(
            "override recorded",
            f"{version.name} version {version.version} by {new.signer} until "
            f"{new.record.expires.isoformat()}: {new.record.reason}",
        )

    def _derived(self, version: Any) -> dict[str, str]:
        """The readable tags that the version's signed records stand for."""
        tags: dict[str, str] = {}
        verdict = self._believed(version.tags, ATTESTATION, self._keys.scanners, Attestation)
        if verdict is not None:
            tags |= verdict_tags(verdict.record)
        override = self._believed(version.tags, OVERRIDE, self._keys.people, Override)
        if override is not None:
            tags |= override_tags(override.record)
        return tags

    def _believed(
        self,
        tags: Mapping[str, str],
        tag: str,
        keys: Mapping[str, PublicKey],
        kind: type[Kind],
    ) -> Signed[Kind] | None:
        """The record in a tag; None if there is none whose signature holds."""
        token = tags.get(tag)
        if token is None:
            return None
        try:
            return verify(token, keys, kind)
        except AttestationError:
            return None

    def _verified(
        self, token: str, keys: Mapping[str, PublicKey], kind: type[Kind]
    ) -> Signed[Kind]:
        try:
            return verify(token, keys, kind)
        except AttestationError as error:
            refuse(f"the record is not believed: {error.what}")


def _rank(verdict: Attestation) -> tuple[datetime, int]:
    """Which of two verdicts holds: the newer, and within a second the graver."""
    return verdict.time, -ORDER.index(verdict.verdict)


def judging_command(model: str, version: Any) -> str:
    """The command that judges a version, as somebody with a scanner's key types it."""
    uri = shlex.quote(f"models:/{model}/{version}")
    return f"`adapter-scanner gate mlflow {uri} --key KEY`"


def _same_version(version: Any, record: Attestation | Override) -> None:
    if record.subject != subject_of(version, record.subject.artifact_sha256):
        refuse("the record is about another version")


def refuse(reason: str) -> NoReturn:
    """Raises MLflow's refusal and writes it to the log.

    Raises:
        MlflowException: PERMISSION_DENIED.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    _record("refused", reason)
    raise MlflowException(f"adapter-scanner: {reason}", error_code=PERMISSION_DENIED)


def _record(what: str, about: str) -> None:
    """One line of the server's log: names and reasons are others' text and cannot add lines."""
    _log.warning("%s: %s", what, printable(about))
