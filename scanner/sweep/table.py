"""A sweep's table as Parquet: one row per adapter, written in bounded pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from scanner.errors import UsageError
from scanner.sweep.ledger_rows import FinishedAdapter
from scanner.system.files import written_whole

_ROWS = 5_000
"""Rows of one row group: what is held in memory at once."""


def write_parquet(path: Path, rows: Iterable[FinishedAdapter]) -> None:
    """Writes the table; the file appears whole or not at all.

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
            todo="pip install 'adapter-scanner[parquet]'",
        ) from None
    schema = pyarrow.schema([(name, _type(pyarrow, kind)) for name, kind in _COLUMNS.items()])
    try:
        with (
            written_whole(path) as scratch,
            pyarrow.parquet.ParquetWriter(scratch, schema, compression="zstd") as writer,
        ):
            for piece in _pieces(_record(row) for row in rows):
                writer.write_table(pyarrow.Table.from_pylist(piece, schema=schema))
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror or error}", where=str(path)) from None


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
    }


def _pieces(records: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while piece := list(islice(records, _ROWS)):
        yield piece
