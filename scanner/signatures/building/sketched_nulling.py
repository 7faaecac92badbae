"""What many benign adapters share at each site, in bounded memory and one adapter at a time.

Nulling needs the leading left singular vectors of all unit updates side by side. Frequent
Directions (Liberty 2013; Ghashami, Liberty, Phillips and Woodruff 2016, arXiv 1501.01711) keeps at
most `SKETCH_COLUMNS` columns S of them. Whenever an adapter makes them more, they are brought into
singular form, and the largest squared singular value that has no place any more is subtracted from
all. For the columns C of all adapters together, C C^T - S S^T is then positive semidefinite, and
at most

    (||C||_F^2 - ||C_k||_F^2) / (SKETCH_COLUMNS + 1 - k)    for every k <= SKETCH_COLUMNS,

C_k being the best approximation of rank k: what a good part of the adapters share stays, and what
single adapters do goes. Until the adapters have more columns than that, S is exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from scanner.errors import SignatureError
from scanner.formats.model import Site, site_order
from scanner.geometry import Matrix, gram
from scanner.signatures.building.nulling import BenignStack, stack_updates
from scanner.signatures.building.opened import Member, as_reference, check_shape
from scanner.signatures.manifest import Reference
from scanner.signatures.pack import open_tensors
from scanner.system.files import written_whole

SKETCH_COLUMNS = 64

Columns = npt.NDArray[np.float32]


def shrunk(columns: Matrix, most: int) -> Matrix:
    """At most so many columns that stand for those given, (d_out, n) -> (d_out, <= most)."""
    if columns.shape[1] <= most:
        return columns
    values, vectors = np.linalg.eigh(gram(columns))  # ascending
    lost = max(float(values[-most - 1]), 0.0)
    top = slice(-most, None)
    keep = np.sqrt(np.clip(values[top] - lost, 0.0, None))
    left = columns @ vectors[:, top]
    found: Matrix = left * (keep / np.sqrt(np.maximum(values[top], np.finfo(np.float64).tiny)))
    return found[:, keep > 0]


class SketchedNulling:
    """The sketches of all sites, and which adapters are in them.

    Args:
        shapes: (d_out, d_in) of the sites where a signature may have a direction; nothing else
            is kept.
        path: Where the state outlives this process; nowhere if None.
        about: What the state belongs to; another state in the file is not taken up.
    """

    def __init__(
        self, shapes: Mapping[Site, tuple[int, int]], path: Path | None = None, about: str = ""
    ) -> None:
        self._shapes = shapes
        self._path = path
        self._about = about
        self._columns: dict[Site, Columns] = {}
        self.members: dict[str, Reference] = {}
        """Candidate -> the adapter that stands for it, as the manifest records it."""
        self._take_up()

    def add(self, candidate: str, member: Member) -> bool:
        """Adds an adapter, and keeps the state.

        Args:
            candidate: What the adapter was found as.
            member: The adapter, open.

        Returns:
            Whether it changes any of the sites; if not, it is not added.

        Raises:
            SignatureError: If a factor is not finite, or a site has another shape; nothing of it
                is added then.
        """
        blocks: dict[Site, Columns] = {}
        for site in sorted(self._shapes.keys() & member.by_site.keys(), key=site_order):
            check_shape(member, site, self._shapes[site])
            update = member.at(site)
            assert update is not None, "it is one of the member's sites"
            stack = stack_updates([(update, "")], len(update.b))
            if stack.columns.shape[1]:
                blocks[site] = self._joined(site, stack.columns)
        if not blocks:
            return False
        self._columns |= blocks
        self.members[candidate] = as_reference(member, "aligned")
        self._keep()
        return True

    def stack(self, site: Site, d_out: int) -> BenignStack:
        """What stands for the adapters' unit updates at a site, all of one family."""
        columns = self._columns.get(site)
        if columns is None:
            return BenignStack(np.zeros((d_out, 0)), ())
        return BenignStack(columns.astype(np.float64), ("",) * columns.shape[1])

    def _joined(self, site: Site, block: Matrix) -> Columns:
        before = self._columns.get(site)
        joined = block if before is None else np.concatenate([before, block], axis=1)
        return shrunk(joined, SKETCH_COLUMNS).astype(np.float32)

    def _keep(self) -> None:
        from safetensors.numpy import save_file

        if self._path is None:
            return
        members = msgspec.json.encode(self.members).decode()
        tensors = {site.key: np.ascontiguousarray(item) for site, item in self._columns.items()}
        with written_whole(self._path, durable=False) as scratch:
            save_file(tensors, scratch, {"about": self._about, "members": members})

    def _take_up(self) -> None:
        if self._path is None or not self._path.exists():
            return
        try:
            store = open_tensors(self._path)
        except SignatureError:
            return
        if store.metadata.get("about") == self._about:
            members = json.loads(store.metadata["members"])
            self.members = msgspec.convert(members, dict[str, Reference])
            self._columns = {
                Site.from_key(name): store.read(name).astype(np.float32) for name in store.names()
            }
        store.close()
