"""A sweep's table, as CSV or as Parquet: one row per adapter, written in bounded pieces."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from scanner.errors import UsageError
from scanner.reports.terminal import printable
from scanner.results import ScanResult
from scanner.sweep.ledger_rows import FinishedAdapter
from scanner.system.files import written_whole

_ROWS = 5_000
"""Rows of one row group: what is held in memory at once."""

_PIECE_CHARACTERS = 2**16
_FORMULA = ("=", "+", "-", "@", "\t")
"""What a spreadsheet takes for the start of a formula."""
_BETWEEN_REASONS = " | "

_COLUMNS = {
    "target": "string",
    "repository": "string",
    "revision": "string",
    "subfolder": "string",
    "verdict": "string",
    "base_model": "string",
    "format": "string",
    "dose": "double",
    "score": "double",
    "p_value": "double",
    "q_value": "double",
    "alpha": "double",
    "threshold": "double",
    "compared": "int64",
    "as_high": "int64",
    "shape": "string",
    "decided_by": "string",
    "cosine": "double",
    "overlap": "double",
    "nearest_reference": "string",
    "nearest_cosine": "double",
    "sites": "int64",
    "covered_sites": "int64",
    "uncovered_tensors": "int64",
    "reasons": "strings",
    "sha256": "string",
    "config_sha256": "string",
    "content": "string",
    "state": "string",
    "copied": "bool",
    "attempts": "int64",
    "version": "string",
    "finished": "string",
}
_BY_PACK = ("dose", "cosine", "overlap")


def columns(packs: Sequence[str]) -> dict[str, str]:
    """Name -> kind of every column: those of an adapter, and three for each pack.

    Args:
        packs: Ids of the packs of the sweep.
    """
    by_pack = {f"{name}:{pack}": "double" for pack in packs for name in _BY_PACK}
    return {**_COLUMNS, **by_pack}


def csv_pieces(rows: Iterable[FinishedAdapter], packs: Sequence[str]) -> Iterator[str]:
    """The table as CSV (RFC 4180), in pieces: what is not known is an empty cell.

    Text that a spreadsheet would take for a formula has an apostrophe in front.

    Args:
        rows: The adapters.
        packs: Ids of the packs of the sweep.
    """
    names = list(columns(packs))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([_cell(name) for name in names])
    for record in map(_record, rows):
        writer.writerow([_cell(record.get(name)) for name in names])
        if buffer.tell() > _PIECE_CHARACTERS:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        value = _BETWEEN_REASONS.join(value)
    if isinstance(value, str):
        text = printable(value)
        return f"'{text}" if text.startswith(_FORMULA) else text
    return repr(value)


def write_parquet(path: Path, rows: Iterable[FinishedAdapter], packs: Sequence[str]) -> None:
    """Writes the table as Parquet; the file appears whole or not at all.

    Args:
        path: The file.
        rows: The adapters.
        packs: Ids of the packs of the sweep.

    Raises:
        UsageError: If pyarrow is not installed, or the file cannot be written.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            "writing Parquet needs pyarrow",
            where="-f parquet",
            todo="pip install 'adapter-scanner[parquet]', or say -f csv",
        ) from None
    kinds = columns(packs)
    schema = pyarrow.schema([(name, _type(pyarrow, kind)) for name, kind in kinds.items()])
    try:
        with (
            written_whole(path) as scratch,
            pyarrow.parquet.ParquetWriter(scratch, schema, compression="zstd") as writer,
        ):
            for piece in _pieces(_record(row) for row in rows):
                writer.write_table(pyarrow.Table.from_pylist(piece, schema=schema))
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror or error}", where=str(path)) from None


def _type(pyarrow: Any, kind: str) -> Any:
    if kind == "strings":
        return pyarrow.list_(pyarrow.string())
    kinds = {"double": "float64", "bool": "bool_"}
    return getattr(pyarrow, kinds.get(kind, kind))()


def _record(row: FinishedAdapter) -> dict[str, Any]:
    result = row.result
    comparison, nearest = result.comparison, result.nearest_reference
    return {
        "target": result.target,
        "repository": row.repository,
        "revision": row.revision,
        "subfolder": row.subfolder,
        "verdict": result.verdict.value,
        "base_model": result.base_model,
        "format": result.format,
        "dose": result.deciding_dose,
        "score": result.score,
        "p_value": result.p_value,
        "q_value": result.q_value,
        "alpha": result.alpha,
        "threshold": comparison and comparison.threshold,
        "compared": comparison and comparison.n,
        "as_high": comparison and comparison.as_high,
        "shape": comparison.shape.value if comparison and comparison.shape else None,
        "decided_by": result.decided_by,
        "cosine": result.deciding_cosine,
        "overlap": result.deciding_overlap,
        "nearest_reference": nearest and nearest.id,
        "nearest_cosine": nearest and nearest.cosine,
        "sites": result.coverage.sites,
        "covered_sites": result.coverage.covered_sites,
        "uncovered_tensors": len(result.coverage.uncovered),
        "reasons": result.reasons,
        "sha256": result.sha256,
        "config_sha256": result.config_sha256,
        "content": row.content,
        "state": row.state,
        "copied": row.copied,
        "attempts": row.attempts,
        "version": row.version,
        "finished": row.finished,
        **_by_pack(result),
    }


def _by_pack(result: ScanResult) -> dict[str, float]:
    """The numbers of every pack that saw the adapter, whichever decided."""
    numbers: dict[str, Mapping[str, float]] = {name: getattr(result, name) for name in _BY_PACK}
    return {f"{name}:{pack}": x for name, each in numbers.items() for pack, x in each.items()}


def _pieces(records: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while piece := list(islice(records, _ROWS)):
        yield piece
