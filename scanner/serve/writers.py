"""How verdicts are written back, for the platforms that a server serves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from scanner.errors import UsageError
from scanner.gates.keys import KEY_VARIABLE, load_signing_key
from scanner.serve import hub, mlflow_registry
from scanner.serve.events import Platform
from scanner.serve.hub import HubWriter
from scanner.serve.mlflow_registry import MlflowWriter
from scanner.serve.platforms import WriteBack
from scanner.serve.settings import ServeSettings

REGISTRY_VARIABLE = "MLFLOW_TRACKING_URI"
"""Without it MLflow's client would use, and make, a registry in the working directory."""


@dataclass(frozen=True)
class Writers:
    """The writers of the platforms that are served."""

    hub: HubWriter | None
    mlflow: MlflowWriter | None

    def of(self, platform: Platform) -> WriteBack:
        """What writes verdicts back to one platform."""
        writer = self.hub if platform == "hub" else self.mlflow
        assert writer is not None, f"{platform} is not served"
        return writer

    def permit(self, platform: Platform) -> str | None:
        """What lets a worker read from a platform what is blocked until it is judged."""
        return self.mlflow.permit() if platform == "mlflow" and self.mlflow else None


def make_writers(settings: ServeSettings, signing_key: Path | None) -> Writers:
    """Makes what the settings ask for, and tells the platforms' clients how to behave.

    Args:
        settings: Of the server.
        signing_key: The private key that signs verdicts; None: the environment says.

    Raises:
        UsageError: If MLflow is served, and its client, its address or a key is missing.
    """
    served = settings.platforms
    for name, value in {**hub.ENVIRONMENT, **mlflow_registry.ENVIRONMENT}.items():
        os.environ.setdefault(name, value)
    return Writers(
        hub=HubWriter(settings.policy) if "hub" in served else None,
        mlflow=_mlflow_writer(signing_key) if "mlflow" in served else None,
    )


def _mlflow_writer(signing_key: Path | None) -> MlflowWriter:
    if find_spec("mlflow") is None:
        raise UsageError(
            "MLflow's webhooks need its client", todo="pip install 'adapter-scanner[mlflow]'"
        )
    if not os.environ.get(REGISTRY_VARIABLE):
        raise UsageError(
            "no registry is named", where=f"${REGISTRY_VARIABLE}", todo="set it to MLflow's address"
        )
    key = load_signing_key(signing_key)
    # Worker processes inherit the environment, and read what may be hostile.
    os.environ.pop(KEY_VARIABLE, None)
    return MlflowWriter(key)
