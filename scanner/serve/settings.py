"""What a server is told at its start, and the secrets it reads then."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from scanner.errors import UsageError
from scanner.gates.policy import Policy
from scanner.serve.events import Platform
from scanner.serve.worker import Limits

MLFLOW_SECRET_VARIABLE = "ADAPTER_SCANNER_MLFLOW_WEBHOOK_SECRET"  # noqa: S105 - the variable's name
HUB_SECRET_VARIABLE = "ADAPTER_SCANNER_HUB_WEBHOOK_SECRET"  # noqa: S105 - the variable's name

_SHORTEST_SECRET = 16
_LONGEST_SECRET_FILE = 65_536


@dataclass(frozen=True)
class ServeSettings:
    """How a server runs."""

    host: str
    port: int
    """The port to listen on; 0 takes any that is free."""
    state: Path
    signatures: Sequence[Path]
    alpha: float | None
    """Used for models to which the policy gives no alpha."""
    base_model: str | None
    policy: Policy
    mlflow_secrets: Sequence[str]
    hub_secrets: Sequence[str]
    host_names: Sequence[str]
    limits: Limits
    workers: int
    longest_queue: int
    most_body_bytes: int
    tolerance: float
    patience: float
    """Seconds for which a registry that does not answer is asked again."""
    keep_seconds: float
    """How long verdicts and reports are kept."""

    def alpha_of(self, model: str) -> float | None:
        """The false-positive rate at which a model is judged."""
        rule = self.policy.rule_for(model)
        return self.alpha if rule is None or rule.alpha is None else rule.alpha

    @property
    def platforms(self) -> list[Platform]:
        """The platforms whose webhooks are accepted."""
        found: list[Platform] = []
        if self.mlflow_secrets:
            found.append("mlflow")
        if self.hub_secrets:
            found.append("hub")
        return found


def read_secrets(variable: str, path: Path | None) -> list[str]:
    """Secrets from a file, one a line, or a single one from the environment.

    The variable is removed from the environment, which worker processes inherit.

    Args:
        variable: The environment variable.
        path: The file, if one is named.

    Returns:
        The secrets, any of which is accepted: the old and the new one while they are changed.
        Empty if neither is given.

    Raises:
        UsageError: If both are given, or a secret is empty, short or not text.
    """
    text = os.environ.pop(variable, None)
    if path is not None and text is not None:
        raise UsageError("given twice", where=f"{path} and ${variable}", todo="keep one of them")
    if path is None and text is None:
        return []
    where = f"${variable}" if path is None else str(path)
    lines = [text] if path is None else _lines(path)
    secrets = [line.strip() for line in lines if line and line.strip()]
    if not secrets:
        raise UsageError("holds no secret", where=where)
    if any(len(secret) < _SHORTEST_SECRET for secret in secrets):
        raise UsageError(
            f"a webhook secret is shorter than {_SHORTEST_SECRET} characters",
            where=where,
            todo="make one with `openssl rand -hex 32`",
        )
    return secrets


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST_SECRET_FILE).decode("utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    except UnicodeDecodeError:
        raise UsageError("is not UTF-8 text", where=str(path)) from None


def check_host(host: str, *, public: bool) -> None:
    """Refuses to listen beyond this machine unless that is said in so many words.

    Raises:
        UsageError: If the host is no address, or not this machine's own without `public`.
    """
    try:
        address = ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise UsageError(f"{host!r} is not an IP address", where="--host") from None
    if not address.is_loopback and not public:
        raise UsageError(
            f"{host} can be reached from other machines",
            where="--host",
            todo="put a TLS proxy in front of 127.0.0.1, or add --public",
        )
