"""Where models live: what is fetched from there, and what is written back."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import msgspec

from scanner.errors import AdapterScannerError
from scanner.gates.attestation import Attestation
from scanner.results import Report
from scanner.serve.events import Platform, Subject

_MODULES = {
    "mlflow": "scanner.serve.mlflow_registry",
    "hub": "scanner.serve.hub",
}


class UnreachableError(AdapterScannerError):
    """A platform does not answer, or not now: the same is worth trying again later."""


class WriteRefusedError(AdapterScannerError):
    """A platform will not take a verdict, however often it is tried."""


class ChangedSinceError(AdapterScannerError):
    """What stands where a verdict is to be written is no longer what was judged."""


class JudgedSubject(msgspec.Struct, frozen=True):
    """A verdict as it is kept until it is written back, and after."""

    report: Report
    attestation: Attestation | None
    """None if so little could be read that no digest binds a verdict to it."""


class Fetch(Protocol):
    """Brings the files of a subject here. Runs in a worker process."""

    def __call__(
        self, subject: Subject, directory: Path, most_bytes: int, permit: str | None
    ) -> int | None:
        """Fetches everything that would be used of a model into an empty directory.

        Args:
            subject: What to fetch.
            directory: Where to.
            most_bytes: Of all files together.
            permit: Lets a worker read what nobody may read before it is judged, if that is so.

        Returns:
            The platform's own time stamp of the revision, if it has one.

        Raises:
            UnreachableError: If the platform does not answer.
            TargetError: If there is nothing there, or more than `most_bytes`.
        """


class WriteBack(Protocol):
    """Writes a verdict to where the model lives, in the server's own process."""

    def __call__(self, subject: Subject, judged: JudgedSubject) -> None:
        """Writes a verdict; to do so twice leaves what once leaves.

        Raises:
            UnreachableError: If the platform does not answer.
            WriteRefusedError: If it will not take the verdict.
            ChangedSinceError: If the verdict is about something else than stands there now.
        """


def fetcher(platform: Platform) -> Fetch:
    """How the files of a platform's subjects are fetched."""
    return cast(Fetch, import_module(_MODULES[platform]).fetch)


def preloaded(platform: Platform) -> list[str]:
    """The modules that a worker has imported before it is given a task."""
    module = _MODULES[platform]
    return [module, *import_module(module).PRELOADED]
