"""An address on the hub -> the adapters there, and each of them opened.

    client = HubClient()
    for remote in find_hub_adapters(parse_address("hf://owner/name"), client):
        with remote.open() as adapter: ...

Finding costs one request for the whole repository and fetches no file: what each adapter
consists of, and the digest of its content, is in the snapshot. Opening reads the config and
the header; the weights are fetched when a scan says which of them it needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, cast

from scanner.errors import (
    NothingToScanError,
    NotOnHubError,
    TargetError,
    UnreadableFileError,
    UsageError,
)
from scanner.formats.limits import MAX_CONFIG_BYTES
from scanner.formats.model import Adapter, TensorStore
from scanner.formats.opening import AdapterParts, Shapes, ShapesOf, adapter_from
from scanner.formats.peft_config import CONFIG_NAME, PeftConfig, config_from_bytes
from scanner.formats.rules import (
    SKIPPED_FOLDERS,
    Choice,
    choose,
    is_named_like_trainer_state,
    is_shard,
    lone_shard,
    may_be_trainer_state,
)
from scanner.formats.stores.ranged import Prefetch, open_ranged
from scanner.formats.stores.sharded import shard_map, unite
from scanner.formats.stores.sniff import INDEX_SUFFIX
from scanner.formats.trainer_state import holds_trainer_state
from scanner.hub.address import HubAddress, parse_address
from scanner.hub.client import HubClient
from scanner.hub.remote_file import RangeReader, remote_file
from scanner.hub.snapshot import HubFile, Snapshot, take_snapshot


@dataclass(frozen=True)
class RemoteAdapter:
    """The files of one adapter on the hub, none of them fetched."""

    address: HubAddress
    """Its folder, or its weight file if that was named; the revision is a commit."""
    snapshot: Snapshot = field(repr=False)
    client: HubClient = field(repr=False)
    weights: HubFile | None
    """The weight file or the index of its shards; None if only a config was found."""
    config: HubFile | None
    others: tuple[str, ...] = ()
    """Names of weight files beside it that are not part of it, as far as names say."""
    checkpoints: tuple[str, ...] = ()
    """Names of files beside it that are adapters of their own, if mlx-lm wrote them all."""
    is_checkpoint: bool = False
    """Whether this is an earlier state of the adapter in the same folder."""
    problem: TargetError | None = None
    """Why the files cannot be read; None if they can."""

    @property
    def target(self) -> str:
        """The adapter's address, as reports show it."""
        return str(self.address)

    @property
    def shards(self) -> tuple[HubFile, ...]:
        """The weight files the index may name: every shard beside it."""
        if self.weights is None or not self.weights.name.endswith(INDEX_SUFFIX):
            return ()
        beside = self.snapshot.folders[self.weights.folder]
        return tuple(file for name, file in sorted(beside.items()) if is_shard(name))

    @property
    def content_digest(self) -> str:
        """Digest of everything the verdict depends on: names and contents of all the files."""
        files = (self.weights, self.config, *self.shards)
        parts = [_digest_of(file for file in files if file), *self.others, *self.checkpoints]
        parts.append(_digest_of(self._pickles_beside))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Size of the weight files together, in bytes."""
        return sum(file.size for file in (self.shards or (self.weights,)) if file)

    def open(self, shapes: Shapes | ShapesOf | None = None) -> Adapter:
        """Opens the adapter: its config and headers are read now, tensors when they are needed.

        Args:
            shapes: As `scanner.formats.opening.open_adapter`.

        Raises:
            HubError: If the hub does not give what it announced; see its `transient`.
            TargetError: If the adapter is not sound.
        """
        if self.problem is not None:
            raise self.problem
        config: PeftConfig | None = None
        config_sha256 = None
        if self.config is not None:
            source = remote_file(self.client, self.snapshot, self.config.path)
            raw = source.whole(MAX_CONFIG_BYTES)
            config = config_from_bytes(raw, source.where)
            config_sha256 = hashlib.sha256(raw).hexdigest()
        if self.weights is None:
            raise UnreadableFileError(
                "an adapter_config.json without weights beside it", where=self.target
            )
        states = {
            file.name
            for file in self._pickles_beside
            if _is_trainer_state(self.client, self.snapshot, file)
        }
        others = tuple(name for name in self.others if name not in states)
        store, prefetch = self._open_weights(self.weights)
        parts = AdapterParts(self.target, store, config, config_sha256, others, self.checkpoints)
        return adapter_from(parts, shapes, prefetch)

    @property
    def _pickles_beside(self) -> list[HubFile]:
        """Files beside it whose content says whether they are trainer state."""
        if self.weights is None:
            return []
        beside = self.snapshot.folders[self.weights.folder]
        return [beside[name] for name in self.others if may_be_trainer_state(name)]

    def _open_weights(self, weights: HubFile) -> tuple[TensorStore, Prefetch]:
        source = remote_file(self.client, self.snapshot, weights.path)
        if not weights.name.endswith(INDEX_SUFFIX):
            return open_ranged(source)
        fetchers: list[Prefetch] = []
        shards = {shard.name: shard for shard in self.shards}

        def open_shard(name: str) -> TensorStore:
            if name not in shards:
                raise UnreadableFileError(f"the index names {name}, which is not there")
            shard = remote_file(self.client, self.snapshot, shards[name].path)
            store, prefetch = open_ranged(shard)
            fetchers.append(prefetch)
            return store

        weight_map = shard_map(source.whole(MAX_CONFIG_BYTES), source.where)
        store = unite(weight_map, open_shard, source.where)
        return store, partial(_prefetch_each, fetchers)


def _is_trainer_state(client: HubClient, snapshot: Snapshot, file: HubFile) -> bool:
    """Whether a pickle holds trainer state: reads its outline, not its tensors.

    Raises:
        HubError: If it cannot be fetched.
    """
    with RangeReader(remote_file(client, snapshot, file.path)) as reader:
        return holds_trainer_state(cast(BinaryIO, reader), file.name)


def _prefetch_each(fetchers: Sequence[Prefetch], names: Sequence[str]) -> None:
    for prefetch in fetchers:
        prefetch(names)


def _digest_of(files: Iterable[HubFile]) -> str:
    lines = sorted(f"{file.digest}  {file.name}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_hub_adapters(address: HubAddress, client: HubClient | None = None) -> list[RemoteAdapter]:
    """Finds every adapter at an address, by the rules for directories; this takes one request.

    Args:
        address: A repository, a folder in it (searched to any depth), or a weight file.
        client: Who asks; a new one by default.

    Returns:
        The adapters, their addresses pinned to the commit that was found.

    Raises:
        HubError: As `take_snapshot`, or if there is no such folder.
        NothingToScanError: If there is no adapter.
    """
    client = client or HubClient()
    snapshot = take_snapshot(address, client)
    return adapters_in(snapshot, client)


def adapters_in(snapshot: Snapshot, client: HubClient) -> list[RemoteAdapter]:
    """Finds every adapter in a snapshot; this takes no request.

    Raises:
        NotOnHubError: If the snapshot has no such folder.
        NothingToScanError: If there is no adapter.
    """
    named = snapshot.address.folder
    if named in snapshot.files:
        return [_around_file(snapshot, client, snapshot.files[named])]
    folders = _folders(snapshot, named)
    if named and not folders:
        raise NotOnHubError(
            "no such folder in this repository",
            where=str(snapshot.address),
            todo="check the name and the revision",
        )
    found = []
    for folder in folders:
        files = snapshot.folders[folder]
        if choice := _choose(snapshot, client, files):
            place = snapshot.address.below(folder)
            found += _from_choice(snapshot, client, place, choice, files)
    if not found:
        raise NothingToScanError(
            "no adapter in this repository",
            where=str(snapshot.address),
            todo="name a repository with adapter weights",
        )
    return found


def _choose(snapshot: Snapshot, client: HubClient, files: Mapping[str, HubFile]) -> Choice | None:
    """The adapter in a folder; pickles that have it to themselves are looked into for that."""
    pickles = [name for name in files if is_named_like_trainer_state(name)]
    choice = choose(files)
    if choice is None or choice.weights not in pickles:
        return choice
    states = {name for name in pickles if _is_trainer_state(client, snapshot, files[name])}
    return choose(name for name in files if name not in states)


def open_hub_adapter(
    address: str | HubAddress,
    shapes: Shapes | ShapesOf | None = None,
    client: HubClient | None = None,
) -> Adapter:
    """Opens the one adapter at an address.

    Args:
        address: ``hf://owner/name[@revision][/subfolder]``.
        shapes: As `scanner.formats.opening.open_adapter`.
        client: Who asks; a new one by default.

    Raises:
        UsageError: If there are several adapters.
        HubError: If the hub does not give it; see its `transient`.
        TargetError: If the adapter is not sound.
    """
    place = parse_address(address) if isinstance(address, str) else address
    found = [item for item in find_hub_adapters(place, client) if not item.is_checkpoint]
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} adapters in this repository",
            where=str(place),
            todo=f"name one of them, such as {found[-1].target}",
        )
    return found[0].open(shapes)


def _folders(snapshot: Snapshot, root: str) -> list[str]:
    """Folders with files at and below one, in the order a directory is walked."""
    found = []
    for folder in snapshot.folders:
        below = not root or folder == root or folder.startswith(f"{root}/")
        inner = folder[len(root) :].split("/")
        if below and not any(part in SKIPPED_FOLDERS for part in inner):
            found.append(folder)
    return sorted(found, key=lambda folder: folder.split("/") if folder else [])


def _around_file(snapshot: Snapshot, client: HubClient, file: HubFile) -> RemoteAdapter:
    """The adapter a single named file belongs to."""
    beside = snapshot.folders[file.folder]
    if file.name == CONFIG_NAME:
        choice = _choose(snapshot, client, beside)
        assert choice is not None, "a folder with a config always makes an adapter"
        place = snapshot.address.below(file.folder)
        return _from_choice(snapshot, client, place, choice, beside)[0]
    choice = choose(beside)
    if choice is not None and file.name in choice.checkpoints:
        place = snapshot.address.below(file.folder)
        every = _from_choice(snapshot, client, place, choice, beside)
        return next(item for item in every if item.weights == file)
    problem = lone_shard(str(snapshot.address)) if is_shard(file.name) else None
    config = beside.get(CONFIG_NAME)
    return RemoteAdapter(snapshot.address, snapshot, client, file, config, problem=problem)


def _from_choice(
    snapshot: Snapshot,
    client: HubClient,
    place: HubAddress,
    choice: Choice,
    files: Mapping[str, HubFile],
) -> list[RemoteAdapter]:
    problem = None
    if choice.lone_shard:
        problem = lone_shard(str(snapshot.address.below(files[choice.lone_shard].path)))
    config = files[choice.config] if choice.config else None
    if choice.weights is None:
        return [RemoteAdapter(place, snapshot, client, None, config, problem=problem)]
    every = (choice.weights, *choice.checkpoints)
    return [
        RemoteAdapter(
            address=snapshot.address.below(files[name].path) if index else place,
            snapshot=snapshot,
            client=client,
            weights=files[name],
            config=config,
            others=choice.others,
            checkpoints=tuple(other for other in every if other != name),
            is_checkpoint=index > 0,
        )
        for index, name in enumerate(every)
    ]
