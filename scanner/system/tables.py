"""Rows -> a pandas data frame, where pandas is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scanner.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas


def data_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pandas.DataFrame:
    """A data frame of rows, with these columns even if there is no row.

    Raises:
        MissingExtraError: If pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise MissingExtraError(
            "pandas is not installed", where="to_frame", todo="pip install pandas"
        ) from None
    return pandas.DataFrame(list(rows), columns=list(columns))
