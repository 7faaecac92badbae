"""Results of adapters that have not changed, so that they cost one digest.

A result is a function of the adapter's content, of the signatures, of the options that
change scores, and of this program. The key is a digest over all of them. Entries are
written beside their place and renamed into it: concurrent runs see a whole entry or none,
and the worst a race does is to compute something twice. Whatever is wrong with an entry, or
with the directory, makes it a miss, never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from scanner.formats.model import Adapter
from scanner.results import ScanResult
from scanner.signatures.pack import Signature
from scanner.system.files import write_whole
from scanner.version import version

UNUSED_DAYS = 90
"""Entries that nothing asked for in this time are removed."""

_DAY = 86_400.0


def verdict_key(
    signatures: Sequence[Signature], alpha: float | None, base_model: str | None = None
) -> str:
    """Digest over what a verdict depends on beside the adapter: packs, options, this program."""
    packs = sorted(f"{signature.id} {signature.digest}" for signature in signatures)
    return _digest(version(), repr(alpha), repr(base_model), *packs)


def run_key(signatures: Sequence[Signature], alpha: float | None, base_model: str | None) -> str:
    """`verdict_key` on this machine, where the program may change without its version."""
    return _digest(verdict_key(signatures, alpha, base_model), _program())


def _program() -> str:
    """Digest over the sizes and times of this package's files."""
    package = Path(__file__).resolve().parent.parent
    stats = ((path, path.stat()) for path in sorted(package.rglob("*.py")))
    return _digest(
        *(f"{path.relative_to(package)} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


@dataclass(frozen=True)
class ResultCache:
    """Results of one kind of run.

    Args:
        root: Directory of the cache, shared by all runs.
        run: The run's `run_key`.
    """

    root: Path
    run: str

    def apart(self, source: str) -> ResultCache:
        """The results of adapters whose digests are known on the word of one source."""
        return replace(self, run=_digest(self.run, source))

    def _shelf(self, adapter: Adapter) -> Path:
        """Directory of the results of all adapters that look like this one.

        What was read from the files' headers is in its name, which beside the files also
        depends on what else lies with them; the content's digest then names the entry.
        """
        read = [f"{adapter.format} {adapter.base_model!r} {adapter.config_sha256}"]
        for update in adapter.updates:
            shape = (update.rank, update.d_out, update.d_in)
            read.append(f"{update.site.key} {shape} {update.scaling!r} {update.tensors}")
        read += [f"{item.tensor} {item.reason}" for item in adapter.uncovered]
        return self.root / _digest(self.run, *read)

    def get(self, adapter: Adapter) -> ScanResult | None:
        """The result of an adapter with this content, under its present name.

        Where nothing alike was ever scanned the content is not even hashed: the scan does
        that beside its other work, for free.
        """
        shelf = self._shelf(adapter)
        if not shelf.is_dir():
            return None
        path = shelf / f"{adapter.sha256}.json"
        try:
            result = msgspec.json.decode(path.read_bytes(), type=ScanResult)
            os.utime(path)
        except (OSError, msgspec.MsgspecError):
            return None
        return msgspec.structs.replace(result, target=adapter.target)

    def put(self, adapter: Adapter, result: ScanResult) -> None:
        """Keeps a result; does nothing if the directory cannot be written."""
        path = self._shelf(adapter) / f"{result.sha256}.json"
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(path, msgspec.json.encode(result), durable=False)
            _prune(self.root)


def _prune(root: Path) -> None:
    """Removes what nothing asked for in a long time, looking once a day."""
    marker = root / ".pruned"
    now = time.time()
    if marker.exists() and now - marker.stat().st_mtime < _DAY:
        return
    marker.touch()
    for entry in root.glob("*/*"):
        with contextlib.suppress(OSError):  # another run may have been faster
            if now - entry.stat().st_mtime > UNUSED_DAYS * _DAY:
                entry.unlink()
    for shelf in root.iterdir():
        with contextlib.suppress(OSError):  # not empty
            shelf.rmdir()
