"""The registry's store with the gate in it.

`gated_store_class` makes a subclass of whatever SQL store the server uses, so that calls the
store makes to itself are gated as those from the routes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scanner.gates.mlflow_server.files import canonical_location, is_inside
from scanner.gates.mlflow_server.gate import Gate, judging_command, refuse
from scanner.gates.mlflow_tags import is_reserved
from scanner.gates.policy import Action

if TYPE_CHECKING:
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore


@dataclass(frozen=True)
class Place:
    """A registered version and where its files are."""

    model: str
    version: int
    location: str
    """The storage location that the registry records."""
    canonical: str


class GatedStore:
    """What a gated store does differently. `Inner` is the store class, `gate` the gate."""

    gate: Gate

    def set_registered_model_alias(self, name: str, alias: str, version: Any) -> None:
        """Points an alias at a version that has passed."""
        self._require(name, version, Action.ALIAS, alias)
        super().set_registered_model_alias(name, alias, version)  # type: ignore[misc]

    def transition_model_version_stage(
        self, name: str, version: Any, stage: str, archive_existing_versions: bool
    ) -> Any:
        """Moves a version that has passed into a stage."""
        self._require(name, version, Action.STAGE, stage)
        return super().transition_model_version_stage(  # type: ignore[misc]
            name, version, stage, archive_existing_versions
        )

    def get_model_version_download_uri(self, name: str, version: Any) -> str:
        """Says where the files of a version are, if they may be read."""
        self._require(name, version, Action.DOWNLOAD)
        location: str = super().get_model_version_download_uri(name, version)  # type: ignore[misc]
        return location

    def rename_registered_model(self, name: str, new_name: str) -> Any:
        """Renames a model, unless that takes it, or what it holds, around the gate."""
        if self.gate.freezes(name) or self.gate.freezes(new_name):
            refuse(
                f"{name} cannot become {new_name}: verdicts are given to names; register its "
                "versions under the new one"
            )
        return super().rename_registered_model(name, new_name)  # type: ignore[misc]

    def create_registered_model(
        self, name: str, tags: Any = None, *arguments: Any, **options: Any
    ) -> Any:
        """Creates a model without tags of the scanner's."""
        _refuse_reserved(tags)
        return super().create_registered_model(name, tags, *arguments, **options)  # type: ignore[misc]

    def set_registered_model_tag(self, name: str, tag: Any) -> None:
        """Sets a tag that is not the scanner's."""
        _refuse_reserved([tag])
        super().set_registered_model_tag(name, tag)  # type: ignore[misc]

    def create_model_version(
        self, name: str, source: str, run_id: Any = None, tags: Any = None, **options: Any
    ) -> Any:
        """Creates a version without a verdict: that of a version it copies is not its own."""
        tags = self._without_copied(source, tags)
        _refuse_reserved(tags)
        return super().create_model_version(name, source, run_id, tags, **options)  # type: ignore[misc]

    def set_model_version_tag(self, name: str, version: Any, tag: Any) -> None:
        """Sets a tag; those of the scanner's only as its signed records say."""
        if is_reserved(tag.key):
            self.gate.admit_tag(self._found(name, version), tag.key, tag.value)
        super().set_model_version_tag(name, version, tag)  # type: ignore[misc]

    def delete_model_version_tag(self, name: str, version: Any, key: str) -> None:
        """Deletes a tag that is not the scanner's."""
        if is_reserved(key):
            refuse(f"the tag {key} belongs to the scanner; a newer verdict replaces it")
        super().delete_model_version_tag(name, version, key)  # type: ignore[misc]

    def places(self) -> list[Place]:
        """Every version of a gated model, deleted ones too, with the place of its files."""
        from mlflow.store.model_registry.dbmodels.models import SqlModelVersion

        with self.ManagedSessionMaker() as session:  # type: ignore[attr-defined]
            rows = session.query(
                SqlModelVersion.name,
                SqlModelVersion.version,
                SqlModelVersion.storage_location,
                SqlModelVersion.source,
            ).all()
        gated = {name: self.gate.freezes(name) for name in {row[0] for row in rows}}
        return [
            Place(name, version, location or source, canonical_location(location or source))
            for name, version, location, source in rows
            if gated[name] and (location or source)
        ]

    def require_readable(self, place: str) -> None:
        """Refuses to read files of a version whose downloads are blocked and that has not passed.

        Raises:
            MlflowException: PERMISSION_DENIED.
        """
        if self.gate.shows_pass():
            return
        holders = [
            item
            for item in self.places()
            if self.gate.blocks_downloads(item.model) and is_inside(place, item.canonical)
        ]
        if holders and not any(self._passes(item) for item in holders):
            first = holders[0]
            refuse(
                f"files of {first.model} version {first.version} are not to be downloaded: it "
                "has no valid verdict that lets it pass; "
                f"{judging_command(first.model, first.version)} makes one"
            )

    def require_writable(self, place: str) -> None:
        """Refuses to write among the files of a registered version.

        Raises:
            MlflowException: PERMISSION_DENIED.
        """
        for item in self.places():
            if is_inside(place, item.canonical) or is_inside(item.canonical, place):
                refuse(
                    f"files of {item.model} version {item.version} no longer change: log a new "
                    "model and register it"
                )

    def _passes(self, item: Place) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            version = self._found(item.model, item.version)
        except MlflowException:  # deleted: whoever deletes a verdict does not open the files
            return False
        return self.gate.decision(version, item.location, Action.DOWNLOAD).allowed

    def _found(self, name: str, version: Any) -> Any:
        return super().get_model_version(name, version)  # type: ignore[misc]

    def _require(self, name: str, version: Any, action: Action, what: str = "") -> None:
        location = super().get_model_version_download_uri(name, version)  # type: ignore[misc]
        self.gate.require(self._found(name, version), location, action, what)

    def _without_copied(self, source: str, tags: Any) -> Any:
        """Tags without those that the client's copy brings along from a judged version."""
        from mlflow.store.artifact.utils.models import _parse_model_uri

        if not source.startswith("models:/"):
            return tags
        parsed = _parse_model_uri(source)
        if parsed.name is None or parsed.version is None:
            return tags
        self._require(parsed.name, parsed.version, Action.DOWNLOAD)
        theirs = self._found(parsed.name, parsed.version).tags
        return [
            tag
            for tag in tags or []
            if not (is_reserved(tag.key) and theirs.get(tag.key) == tag.value)
        ]


def gated_store_class(inner: type[SqlAlchemyStore], gate: Gate) -> type[Any]:
    """A class that is the server's store, gated."""
    return type(f"Gated{inner.__name__}", (GatedStore, inner), {"gate": gate})


def _refuse_reserved(tags: Any) -> None:
    for tag in tags or []:
        if is_reserved(tag.key):
            refuse(f"the tag {tag.key} belongs to the scanner")
