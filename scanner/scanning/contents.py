"""What lies in an adapter's folder beside the adapter, so that accepting one accepts no more."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.formats.discover import AdapterFiles
from scanner.formats.stores.opened import sha256_of_file

if TYPE_CHECKING:
    from scanner.hub.reading import RemoteAdapter


@dataclass(frozen=True)
class Contents:
    """The files of an adapter's folder, without those of folders below it."""

    files: Mapping[str, Callable[[], str | None] | None]
    """Name -> how to know its digest, where it may hold weights that are not the adapter's own;
    None for every other file. The digest is None if the file cannot be read."""

    def recorded(self) -> dict[str, str | None]:
        """What a baseline writes down: every name, with the digests that matter."""
        return {name: digest() if digest else None for name, digest in sorted(self.files.items())}

    def within(self, recorded: Mapping[str, str | None]) -> bool:
        """Whether nothing is here that was not there when this was recorded."""
        if not set(self.files) <= set(recorded):
            return False
        digests = {name: digest for name, digest in self.files.items() if digest is not None}
        return all(
            recorded[name] is not None and digest() == recorded[name]
            for name, digest in digests.items()
        )


def together(parts: Mapping[str, Contents]) -> Contents:
    """The contents of several adapters, by their targets, as one."""
    return Contents(
        {
            f"{target}: {name}": digest
            for target, part in parts.items()
            for name, digest in part.files.items()
        }
    )


def local_contents(files: AdapterFiles) -> Contents:
    """The contents of an adapter's folder; of a file that is scanned alone, the file's."""
    own = [path.name for path in (files.weights, files.config) if path is not None]
    names: Sequence[str] = own
    if files.target.is_dir():
        with os.scandir(files.target) as entries:
            names = [entry.name for entry in entries if not entry.is_dir()]
    others = {path.name: path for path in files.others}
    return Contents(
        {name: partial(_digest, others[name]) if name in others else None for name in names}
    )


def _digest(path: Path) -> str | None:
    try:
        return f"sha256:{sha256_of_file(path)}"
    except OSError:
        return None


def hub_contents(remote: RemoteAdapter) -> Contents:
    """The contents of a folder on the hub, on the hub's word."""
    own = [file for file in (remote.weights, remote.config) if file is not None]
    folder = remote.snapshot.folders.get(own[0].folder, {}) if own else {}
    alone = remote.address.folder in remote.snapshot.files
    names = [file.name for file in own] if alone else list(folder)
    return Contents(
        {
            name: partial(str, folder[name].digest) if name in remote.others else None
            for name in names
        }
    )
