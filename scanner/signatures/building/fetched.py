"""Adapters a recipe names on the hub, fetched whole into huggingface_hub's own cache.

Unlike a scan, building reads every tensor, some of them several times, and is done again when
a recipe changes: what was fetched is kept. Which files an adapter consists of, the commit and
the digests come from the same snapshot a scan uses; each file is checked against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanner.errors import (
    AccessDeniedError,
    AdapterMissingError,
    HubAnswerError,
    HubError,
    HubUnavailableError,
    NothingToScanError,
    NotOnHubError,
    SignatureError,
    TargetError,
    first_line,
)
from scanner.formats.stores.blocks import blocks_of_descriptor
from scanner.formats.stores.sniff import INDEX_SUFFIX
from scanner.hub.address import HubAddress
from scanner.hub.client import PATIENT, HubClient
from scanner.hub.reading import RemoteAdapter, find_hub_adapters
from scanner.hub.refusals import refusal
from scanner.hub.snapshot import HubFile
from scanner.signatures.recipe import AdapterEntry


def fetch(entry: AdapterEntry, client: HubClient | None = None) -> tuple[Path, str]:
    """Fetches an hf:// adapter, unless the cache has it.

    Args:
        entry: The adapter.
        client: Who asks; a new one by default.

    Returns:
        Its directory (or its weight file, if the address names one), and the commit it is of.

    Raises:
        AdapterMissingError: If the hub does not have it, or does not let this account have it.
        SignatureError: If it cannot be fetched, or the address holds no single adapter.
    """
    address = entry.hub_address
    try:
        client = client or HubClient(policy=PATIENT)
        try:
            remote = _single(find_hub_adapters(address, client), address)
        except HubUnavailableError:
            if (kept := _in_cache(address)) is None:
                raise
            return kept, address.revision or ""
        if remote.problem is not None:
            raise remote.problem
        if remote.weights and not remote.weights.name.endswith((".safetensors", INDEX_SUFFIX)):
            raise SignatureError(
                f"{remote.weights.name} is not fetched: references are safetensors",
                where=remote.target,
                todo="convert it, and name the local copy",
            )
        return _download(remote), remote.snapshot.commit
    except TargetError as error:
        missing = isinstance(error, (AccessDeniedError, NotOnHubError, NothingToScanError))
        raise (AdapterMissingError if missing else SignatureError)(
            f"cannot be fetched: {error.what}", where=error.where, todo=error.todo
        ) from None


def _single(found: list[RemoteAdapter], address: HubAddress) -> RemoteAdapter:
    """The adapter an address means: the one directly there, or the only one below."""
    here = [item for item in found if item.address.folder == address.folder]
    chosen = here or found
    if len(chosen) > 1:
        raise SignatureError(
            f"{len(chosen)} adapters in this repository",
            where=str(address),
            todo=f"name one of them, such as {chosen[-1].address.at(address.revision)}",
        )
    return chosen[0]


def _in_cache(address: HubAddress) -> Path | None:
    """An adapter of a pinned address that an earlier run has fetched."""
    from huggingface_hub import try_to_load_from_cache

    if not address.is_pinned:
        return None
    name = f"{address.folder}/adapter_config.json".lstrip("/")
    path = try_to_load_from_cache(address.repository, name, revision=address.revision)
    return Path(path).parent if isinstance(path, str) else None


def _download(remote: RemoteAdapter) -> Path:
    """Brings an adapter's files into the cache.

    Raises:
        HubError: If one cannot be had, or is not what the snapshot says.
    """
    files = [file for file in (remote.config, remote.weights, *remote.shards) if file]
    paths = {file.path: _download_file(remote, file) for file in files}
    assert remote.weights or remote.config, "an adapter has files"
    if remote.weights and remote.weights.path == remote.address.folder:
        return paths[remote.weights.path]
    return paths[files[0].path].parent


def _download_file(remote: RemoteAdapter, file: HubFile) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    where = str(remote.snapshot.address.below(file.path))
    patience = remote.client.patience()
    while True:
        try:
            with _without_bars():
                path = hf_hub_download(
                    remote.address.repository,
                    file.path,
                    revision=remote.snapshot.commit,
                    endpoint=remote.client.endpoint,
                )
            _verify(Path(path), file, where)
            return Path(path)
        except HfHubHTTPError as error:
            refused = refusal(error.response.status_code, error.response.headers, where)
            failure: HubError = refused or HubUnavailableError(first_line(error), where=where)
        except OSError as error:  # among them everything about the connection
            failure = HubUnavailableError(
                first_line(error), where=where, todo="check the network and the disk"
            )
        if not isinstance(failure, HubUnavailableError):
            raise failure
        patience.after(failure)


def _verify(path: Path, file: HubFile, where: str) -> None:
    """Checks a fetched file; the cache takes the hub's word for what it holds."""
    with path.open("rb") as opened:
        found = file.digest.of(blocks_of_descriptor(opened.fileno()), file.size)
    if found != file.digest.value:
        raise HubAnswerError(
            f"{path} has {file.digest.kind} digest {found}, the hub says {file.digest.value}",
            where=where,
            todo="delete the file and fetch it again",
        )


@contextmanager
def _without_bars() -> Iterator[None]:
    """Downloads without huggingface_hub's bars: the building shows its own progress."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
