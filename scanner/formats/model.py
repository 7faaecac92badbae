"""What an adapter is once its bytes have been understood.

An adapter is a set of low-rank updates, one per site of its base model, together with a
list of what was in the files and could not be turned into an update. Both halves matter:
a verdict of ``clear`` needs the second one to be empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from scanner.errors import LimitExceededError
from scanner.geometry import AnyUpdate, LowRank
from scanner.geometry.whole_matrix import Product, Structure, Whole

FloatArray = npt.NDArray[np.float32]
IntegerArray = npt.NDArray[np.int64]


class Site(NamedTuple):
    """One weight matrix of a base model.

    Attributes:
        layer: 0-indexed block, or None for weights outside the blocks (embeddings, head).
        module: The base model's own path below its block, e.g. ``self_attn.o_proj``.
    """

    layer: int | None
    module: str

    @property
    def key(self) -> str:
        """The site as written in packs and reports: ``12.self_attn.o_proj`` or ``lm_head``."""
        return self.module if self.layer is None else f"{self.layer}.{self.module}"

    @property
    def unplaced(self) -> str | None:
        """Why it is not known where in the network the matrix stands; None if it is known.

        A matrix stands in a block of the language model, or outside all blocks. Numbered blocks
        elsewhere are a vision tower's, or those of a model whose paths are not known.
        """
        numbered = any(part.lstrip("-").isdecimal() for part in self.module.split("."))
        if self.layer is not None or not numbered:
            return None
        return f"which block of the language model {self.key} belongs to cannot be told"

    @classmethod
    def from_key(cls, key: str) -> Site:
        """Parses what `key` writes."""
        head, _, rest = key.partition(".")
        return cls(int(head), rest) if head.isascii() and head.isdigit() else cls(None, key)


def site_order(site: Site) -> tuple[int, str]:
    """A sort key: by layer, then module, with sites outside the blocks first."""
    return (-1 if site.layer is None else site.layer, site.module)


class TensorInfo(NamedTuple):
    """One tensor as its file's header describes it; a tuple, since a file may name 100,000."""

    name: str
    dtype: str
    """The dtype in safetensors spelling: ``F32``, ``BF16``, ``F8_E4M3`` ..."""
    shape: tuple[int, ...]
    nbytes: int


class TensorStore(Protocol):
    """Named tensors that can be listed without reading them, and read one at a time."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Free-form strings of the file header; never trusted."""

    def names(self) -> Sequence[str]:
        """Every tensor's name, in file order."""

    def info(self, name: str) -> TensorInfo:
        """The header entry of one tensor."""

    def read(self, name: str) -> FloatArray:
        """One tensor's values as float32.

        Raises:
            MalformedFileError: If the dtype does not hold floating-point numbers.
            UnreadableFileError: If the bytes are not there any more.
        """

    def integers(self, name: str) -> IntegerArray:
        """One tensor's whole numbers as int64.

        Raises:
            MalformedFileError: If the dtype does not hold whole numbers.
            UnreadableFileError: If the bytes are not there any more.
        """

    def sha256(self) -> str:
        """Hex digest of the file's bytes (of a manifest of digests, if there are several)."""

    def close(self) -> None:
        """Lets go of open files."""


@dataclass(frozen=True)
class Uncovered:
    """Something in an adapter's files that no update accounts for, and why."""

    tensor: str
    reason: str

    @property
    def label(self) -> str:
        """The name fit for a sentence: what does not print, line ends among it, is escaped."""
        shown = self.tensor[:200]
        if shown.isprintable():
            return shown
        return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)


Factors = tuple[FloatArray, FloatArray]
Content = Factors | Structure
"""What an update is read as: factors (b, a), or a matrix without low-rank structure."""

_MAX_DENSE_ELEMENTS = 2**28
"""Entries of a matrix that is formed whole for whoever asks for it: 1 GB in float32."""


def low_rank_work(rank: int, d_out: int, d_in: int) -> int:
    """Multiplications for the statistics of B @ A by Gram matrices and their eigenvalues.

    A pass over the factors counts as several: it is bound by memory.
    """
    full = min(d_out, d_in)
    product = d_out * d_in * rank if rank > full else 0
    passes = 32 * rank * (d_out + d_in)
    rank = min(rank, full)
    return product + passes + rank**2 * (d_out + d_in) + 20 * rank**3


def by_rows_work(rank: int, d_out: int, d_in: int) -> int:
    """Multiplications for the statistics of B @ A from its rows, formed three times."""
    return 3 * d_out * d_in * (rank + 32)


def cheaper_by_rows(rank: int, d_out: int, d_in: int) -> bool:
    """Whether a product's rank is so high that its rows are formed to judge it."""
    gram_work = low_rank_work(rank, d_out, d_in)
    return gram_work > max(by_rows_work(rank, d_out, d_in), 2**30)


def factors_work(rank: int, d_out: int, d_in: int) -> int:
    """Multiplications for the statistics of B @ A in the cheaper of the two ways."""
    by_rows = cheaper_by_rows(rank, d_out, d_in)
    return (by_rows_work if by_rows else low_rank_work)(rank, d_out, d_in)


@dataclass(frozen=True)
class Update:
    """One update: dW = scaling * b @ a at one site, or scaling times a matrix without factors.

    What it is made of is read when asked for.
    """

    site: Site
    rank: int
    """Columns of b: the rank the file declares, not the rank the product reaches."""
    d_out: int
    d_in: int
    scaling: float
    dtype: str
    tensors: tuple[str, ...]
    """Names of the tensors this update was read from."""
    load: Callable[[], Content] = field(repr=False, compare=False)
    work: int = field(repr=False, compare=False, default=0)
    """Multiplications that its statistics take, as its shapes tell beforehand."""

    @property
    def layer(self) -> int | None:
        """0-indexed block, or None outside the blocks."""
        return self.site.layer

    @property
    def module(self) -> str:
        """The base model's path below its block."""
        return self.site.module

    def prepared(self) -> AnyUpdate:
        """Reads the update and prepares it for its statistics."""
        content = self.load()
        if not isinstance(content, tuple):
            return Whole(content, self.scaling)
        if cheaper_by_rows(content[0].shape[1], self.d_out, self.d_in):
            return Whole(Product(*content), self.scaling)
        return LowRank(*content, self.scaling)

    def factors(self) -> Factors:
        """Reads (b, a), shapes (d_out, r) and (r, d_in), float32, without the scaling.

        One of them is an identity if the update has no low-rank structure.

        Raises:
            LimitExceededError: If a matrix without low-rank structure is too large to form.
        """
        content = self.load()
        if isinstance(content, tuple):
            return content
        if self.d_out * self.d_in > _MAX_DENSE_ELEMENTS:
            raise LimitExceededError(
                f"the delta is a full {self.d_out:,} x {self.d_in:,} matrix: too large to form"
            )
        whole = content.formed().astype(np.float32, copy=False)
        identity = np.eye(min(whole.shape), dtype=np.float32)
        return (whole, identity) if self.d_in <= self.d_out else (identity, whole)

    @property
    def b(self) -> FloatArray:
        """The factor that writes, (d_out, r) float32. Read from the file at each access."""
        return self.factors()[0]

    @property
    def a(self) -> FloatArray:
        """The factor that reads, (r, d_in) float32. Read from the file at each access."""
        return self.factors()[1]

    def delta(self) -> FloatArray:
        """The dense update, (d_out, d_in) float32. For tests and small models only."""
        b, a = self.factors()
        return (self.scaling * (b.astype(np.float64) @ a.astype(np.float64))).astype(np.float32)


def nothing_to_fetch(names: Sequence[str]) -> None:
    """The `Adapter.prefetch` of files that are at hand."""


@dataclass(frozen=True)
class Adapter:
    """An adapter as understood from its files."""

    target: str
    """What the caller asked for: a path or an hf:// address."""
    format: str
    base_model: str | None
    """The base model as the adapter names it; None if it does not."""
    updates: tuple[Update, ...]
    uncovered: tuple[Uncovered, ...]
    digest: Callable[[], str] = field(repr=False, compare=False)
    config_sha256: str | None = None
    last_blocks: int | None = None
    """How many of the base's last blocks the loader gives layers to; None for all of them. Which
    blocks those are only the base tells: updates below them are ignored by the loader."""
    fills_blocks: bool = False
    """Whether the loader puts random weights into blocks that the file has nothing for."""
    close: Callable[[], None] = field(repr=False, compare=False, default=lambda: None)
    prefetch: Callable[[Sequence[str]], None] = field(
        repr=False, compare=False, default=nothing_to_fetch
    )
    """Fetches tensors that are about to be read, together: for files that lie elsewhere."""

    @property
    def sha256(self) -> str:
        """Hex digest of the weights (computed when first asked for)."""
        return self.digest()

    def __enter__(self) -> Adapter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
