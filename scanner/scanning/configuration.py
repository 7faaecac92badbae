"""Configuration files: `.adapter-scanner.yaml`, or `[tool.adapter-scanner]` in pyproject.toml.

A key that is not known, a value of the wrong type, or a file under a name that would be
overlooked is an error with the line it stands in, never a default: a scanner that ignores its
configuration passes what it was told to stop.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from scanner.errors import UsageError
from scanner.formats.limits import MAX_CONFIG_BYTES
from scanner.formats.regular import read_regular
from scanner.formats.yamlfile import line_of, parse_yaml
from scanner.scanning.settings import About, Settings
from scanner.system.spelling import nearest

YAML_NAME = ".adapter-scanner.yaml"
TOML_NAME = "pyproject.toml"
TABLE = "adapter-scanner"
_OVERLOOKED = (".adapter-scanner.yml", ".adapter-scanner.toml", ".adapter-scanner.json")
_MOST_OF_A_TOML = 2**20
_MISSPELT_TABLES = ("adapter_scanner", "adapterscanner", "adapter_scan", "adapter-scan")


def find_config(
    start: Path,
    untrusted: Callable[[Path], bool] = lambda _: False,
    passed_over: Callable[[Path], object] = lambda _: None,
) -> Path | None:
    """The configuration file for a directory: its own, or its nearest parent's.

    The search ends at the root of a git repository.

    Args:
        start: The directory.
        untrusted: Whether a file must not be read, nor be an obstacle.
        passed_over: Is told of each configuration file that was therefore passed over.

    Raises:
        UsageError: If a directory has two, or one under a name that would be overlooked.
    """
    for directory in (start, *start.parents):
        if any(untrusted(directory / name) for name in (YAML_NAME, TOML_NAME)):
            for path in _in_an_untrusted(directory):
                passed_over(path)
        elif found := _config_in(directory):
            return found
        if (directory / ".git").exists():
            return None
    return None


def _config_in(directory: Path) -> Path | None:
    """The configuration file that lies directly in a directory.

    Raises:
        UsageError: As `find_config`.
    """
    for name in _OVERLOOKED:
        if (directory / name).is_file():
            raise UsageError(
                "not a name that is read",
                where=str(directory / name),
                todo=f"call it {YAML_NAME}",
            )
    found = []
    if (directory / YAML_NAME).is_file():
        found.append(directory / YAML_NAME)
    toml = directory / TOML_NAME
    if toml.is_file() and _toml_table(toml) is not None:
        found.append(toml)
    if len(found) > 1:
        raise UsageError(
            f"there is a [tool.{TABLE}] in {TOML_NAME} too",
            where=str(directory / YAML_NAME),
            todo="keep one of them",
        )
    return found[0] if found else None


def _in_an_untrusted(directory: Path) -> list[Path]:
    """What would be read there if it were trusted. Nothing in it is parsed yet."""
    found = [directory / YAML_NAME] if (directory / YAML_NAME).is_file() else []
    toml = directory / TOML_NAME
    if toml.is_file():
        with contextlib.suppress(OSError), toml.open("rb") as file:
            if f"tool.{TABLE}".encode() in file.read(_MOST_OF_A_TOML):
                found.append(toml)
    return found


def check_unread(directory: Path) -> None:
    """Checks that the configuration files in a directory are YAML and TOML, whatever they say.

    For a run that found nothing to scan: it withholds no verdict, and whoever stands beside a
    file that is damaged has to know.

    Raises:
        UsageError: With the file, and the line where that is known, at the first that is not.
    """
    for path in _in_an_untrusted(directory):
        if path.suffix == ".toml":
            _toml_table(path)
        else:
            _yaml_mapping(path)


def load_config(path: Path) -> Settings:
    """Reads a configuration file; relative paths in it start from its own directory.

    Raises:
        UsageError: With file, line and key, if anything in it is not as it should be.
    """
    if path.suffix == ".toml":
        values, lines = _toml_table(path), _toml_lines
        if values is None:
            raise UsageError(f"has no [tool.{TABLE}]", where=str(path))
    else:
        values, lines = _yaml_mapping(path), _yaml_lines
    known = [field.encode_name for field in msgspec.structs.fields(Settings)]
    for key in values:
        if key not in known:
            near = nearest(str(key).replace("_", "-"), known, most=1)
            raise UsageError(
                f"unknown key {key!r}",
                where=f"{path}:{lines(path).get(str(key), 1)}",
                todo=f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}",
            )
    for key, value in values.items():
        try:
            msgspec.convert({key: value}, Settings)
        except OverflowError:
            raise UsageError(
                f"{key}: a number beyond all measure",
                where=f"{path}:{lines(path).get(str(key), 1)}",
            ) from None
        except msgspec.ValidationError as error:
            from scanner.system.validation import with_allowed

            what = with_allowed(error, Settings).split(" - at ")[0].replace("`", "")
            raise UsageError(
                f"{key}: {what[:1].lower()}{what[1:]}",
                where=f"{path}:{lines(path).get(str(key), 1)}",
            ) from None
    return msgspec.convert(_rooted(values, path.parent), Settings)


def _rooted(values: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Values with relative paths made relative to the working directory."""
    hints = get_type_hints(Settings, include_extras=True)
    paths = {
        field.encode_name
        for field in msgspec.structs.fields(Settings)
        if any(isinstance(note, About) and note.is_path for note in hints[field.name].__metadata__)
    }

    def rooted(value: Any) -> Any:
        if isinstance(value, list):
            return [rooted(item) for item in value]
        if value is None or "://" in value or root == Path.cwd():
            return value
        return str(root / value)

    return {key: rooted(value) if key in paths else value for key, value in values.items()}


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_CONFIG_BYTES)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=str(path)) from None


def _text(path: Path) -> str:
    try:
        return _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"not UTF-8 at byte {error.start}", where=str(path)) from None


def _toml_table(path: Path) -> dict[str, Any] | None:
    """[tool.adapter-scanner] of a TOML file; None if it has none.

    Raises:
        UsageError: If the file is not TOML, or has the table under a misspelt name.
    """
    text = _text(path)
    if path.name == TOML_NAME and "adapter" not in text:
        return None
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at line ")
        line = re.match(r"\d+", place)
        where = f"{path}:{line.group()}" if line else str(path)
        raise UsageError(f"invalid TOML: {message[:1].lower()}{message[1:]}", where=where) from None
    except (RecursionError, ValueError, OverflowError) as error:
        # Of the parser's own: arrays without end, a number of thousands of digits.
        deep = isinstance(error, RecursionError)
        what = "nested too deeply" if deep else f"a value cannot be read ({str(error)[:200]})"
        raise UsageError(f"invalid TOML: {what}", where=str(path)) from None
    tool = document.get("tool", {})
    tool = tool if isinstance(tool, dict) else {}
    for name in _MISSPELT_TABLES:
        if name in tool:
            raise UsageError(
                f"unknown table [tool.{name}]",
                where=f"{path}:{_line_of(text, rf'tool.{re.escape(name)}')}",
                todo=f"call it [tool.{TABLE}]",
            )
    table = tool.get(TABLE)
    if table is not None and not isinstance(table, dict):
        raise UsageError(
            f"tool.{TABLE} is not a table", where=f"{path}:{_line_of(text, re.escape(TABLE))}"
        )
    return table


def _line_of(text: str, pattern: str) -> int:
    return next(
        (number for number, line in enumerate(text.splitlines(), 1) if re.search(pattern, line)), 1
    )


def _toml_lines(path: Path) -> dict[str, int]:
    """Key -> line, for keys that stand in their table as usual, one to a line."""
    found: dict[str, int] = {}
    inside = False
    for number, line in enumerate(_text(path).splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
            inside = re.sub(r"[\s\"']", "", header.group(1)) == f"tool.{TABLE}"
        elif inside and (key := re.match(r"\s*[\"']?([\w-]+)[\"']?\s*[=.]", line)):
            found.setdefault(key.group(1), number)
    return found


def _yaml_mapping(path: Path) -> dict[str, Any]:
    """A YAML file's one mapping, which may be empty."""
    document = parse_yaml(_read(path), str(path))
    if document.value is None:
        return {}
    if not isinstance(document.value, dict):
        raise UsageError("a mapping of settings was expected", where=f"{path}:1")
    return document.value


def _yaml_lines(path: Path) -> dict[str, int]:
    document = parse_yaml(_read(path), str(path))
    return {str(key.value): line_of(key) for key, _ in document.node.value}
