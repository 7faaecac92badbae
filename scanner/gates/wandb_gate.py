"""An artifact of Weights & Biases -> a collection of its registry, if the policy lets it.

What is judged is what W&B serves: the artifact is fetched from the project it was logged to, and
the very version that was fetched is linked. Its metadata get the verdict, signed if there is a
key; metadata can be edited by whoever can write the artifact, so only the signature counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scanner.errors import MissingExtraError, RegistryError, UsageError, first_line
from scanner.gates.hub_push import verdict_file
from scanner.gates.judgement import Judgement, judge_directory
from scanner.gates.policy import Decision
from scanner.scanning.targets import ScanOptions

METADATA_KEY = "adapter-scanner"
"""Where the verdict stands in an artifact's metadata."""


class Artifact(Protocol):
    """What is used of `wandb.Artifact`."""

    metadata: dict[str, Any]

    def download(self, root: str) -> str:
        """Fetches the files into a folder."""

    def save(self) -> None:
        """Writes changed metadata."""


class Run(Protocol):
    """What is used of `wandb.Run`."""

    def use_artifact(self, name: str) -> Artifact:
        """The artifact, as an input of the run."""

    def link_artifact(self, artifact: Artifact, target_path: str, aliases: list[str]) -> Any:
        """Links the artifact into a collection."""


@dataclass(frozen=True)
class ArtifactName:
    """``entity/project/name:version``."""

    entity: str
    project: str
    name: str
    version: str

    @classmethod
    def parse(cls, text: str) -> ArtifactName:
        """Reads the full name; a short one would depend on who asks.

        Raises:
            UsageError: If a part is missing.
        """
        path, _, version = text.rpartition(":")
        parts = path.split("/")
        if len(parts) != 3 or not all((*parts, version)):
            raise UsageError(
                f"{text!r} is no full name of an artifact", todo="say entity/project/name:version"
            )
        entity, project, name = parts
        return cls(entity, project, name, version)

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.name}:{self.version}"


@contextmanager
def gate_run(name: ArtifactName) -> Iterator[Run]:
    """A run of the job type ``gate`` in the artifact's project.

    Raises:
        MissingExtraError: If wandb is not installed.
        RegistryError: If it cannot be started.
    """
    try:
        import wandb
    except ImportError:
        raise MissingExtraError(
            "Weights & Biases needs wandb", todo="pip install 'adapter-scanner[wandb]'"
        ) from None
    with wandb_errors(name):
        run = wandb.init(entity=name.entity, project=name.project, job_type="gate")
    with run:
        yield run


def fetch(run: Run, name: ArtifactName, folder: Path) -> Artifact:
    """Fetches an artifact's files.

    Raises:
        RegistryError: If W&B does not have it, or does not give it.
    """
    with wandb_errors(name):
        artifact = run.use_artifact(str(name))
        artifact.download(root=str(folder))
    return artifact


def judge(folder: Path, name: ArtifactName, options: ScanOptions) -> Judgement:
    """Scans what was fetched.

    Raises:
        UsageError: If the options cannot be honoured.
        TargetError: If it cannot be read as a whole.
    """
    return judge_directory(folder, options, model=name.name, model_version=name.version)


def record(artifact: Artifact, judgement: Judgement, decision: Decision, token: str | None) -> None:
    """Writes the verdict into the artifact's metadata.

    Raises:
        RegistryError: If W&B refuses.
    """
    with wandb_errors(judgement.attestation.subject.model):
        artifact.metadata[METADATA_KEY] = verdict_file(judgement, token, decision)
        artifact.save()


def link(run: Run, artifact: Artifact, target: str, aliases: Sequence[str]) -> None:
    """Links the version that was judged into a collection.

    Raises:
        RegistryError: If W&B refuses.
    """
    with wandb_errors(target):
        run.link_artifact(artifact, target, list(aliases))


@contextmanager
def wandb_errors(where: object) -> Iterator[None]:
    """The errors of wandb as one line each.

    Raises:
        RegistryError: In place of them.
    """
    try:
        yield
    except (OSError, ValueError, TypeError) as error:
        raise RegistryError(first_line(error), where=str(where)) from None
    except Exception as error:
        # wandb.Error is the base of its own; importing it here would need wandb.
        if type(error).__module__.partition(".")[0] not in ("wandb", "requests"):
            raise
        raise RegistryError(first_line(error), where=str(where)) from None
