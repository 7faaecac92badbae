"""The ledger's file: making it, recognising it, opening it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from scanner.errors import UsageError

APPLICATION_ID = 0x61647363
"""``adsc``: marks a SQLite file as a ledger."""
SCHEMA_VERSION = 3

_PAGE_BYTES = 16 * 2**10
"""A row is a few kilobytes: of SQLite's own pages of 4 KiB it would fill one and waste the rest."""

_SCHEMA = Path(__file__).with_name("schema.sql")


def create(path: Path) -> None:
    """Makes an empty ledger; what an interrupted attempt left is no obstacle.

    Raises:
        UsageError: If it cannot be written.
    """
    marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN; {_SCHEMA.read_text()} {marks} COMMIT;")
    except sqlite3.Error as error:
        raise UsageError(f"cannot be written: {error}", where=str(path)) from None


def is_blank(path: Path) -> bool:
    """Whether there is nothing at a path yet: no file, or one that was only just begun.

    Raises:
        UsageError: If the file is no SQLite file.
    """
    if not path.exists() or path.stat().st_size == 0:
        return True
    with contextlib.closing(_open(path)) as connection:
        return _header(connection, path) == (0, 0, 0)


def connect(path: Path) -> sqlite3.Connection:
    """Opens a ledger that exists.

    Raises:
        UsageError: If it is missing, no ledger, or of another version.
    """
    connection = _open(path)
    try:
        application, found, _ = _header(connection, path)
        if application != APPLICATION_ID:
            raise UsageError("a SQLite file, but not a ledger", where=str(path))
        if found != SCHEMA_VERSION:
            raise UsageError(
                f"ledger version {found}, this program reads {SCHEMA_VERSION}",
                where=str(path),
                todo="use the program that wrote it, or start another ledger",
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _open(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise UsageError("no such ledger", where=str(path), todo='"hub scan --ledger" makes one')
    return sqlite3.connect(path, isolation_level=None)


def _header(connection: sqlite3.Connection, path: Path) -> tuple[int, int, int]:
    """Application id, version of the schema, and number of tables and indices."""
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (things,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise UsageError(f"not a ledger: {error}", where=str(path)) from None
    return application, version, things
