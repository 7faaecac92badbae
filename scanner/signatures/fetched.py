"""Adapters a recipe names on the Hugging Face Hub, fetched into the hub's own cache."""

from __future__ import annotations

from pathlib import Path

from scanner.errors import SignatureError
from scanner.signatures.recipe import AdapterEntry

_PATTERNS = ("adapter_config.json", "*.safetensors", "*.safetensors.index.json")
"""What is fetched: never a pickle, never code."""


def fetch(entry: AdapterEntry) -> tuple[Path, str]:
    """Fetches an hf:// adapter, unless the cache has it.

    Returns:
        Its directory, and the commit it is of.

    Raises:
        SignatureError: If it cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    address = entry.hub_address
    repository, revision, folder = address.repository, address.revision, address.folder
    prefix = f"{folder}/" if folder else ""
    try:
        snapshot = snapshot_download(
            repository, revision=revision, allow_patterns=[prefix + name for name in _PATTERNS]
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SignatureError(
            f"cannot be fetched: {lines[0][:200]}",
            where=entry.adapter,
            todo="check the name, the network and your access, or name a local copy",
        ) from None
    return Path(snapshot) / folder, Path(snapshot).name
