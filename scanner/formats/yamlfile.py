"""YAML that people write and that others may have written: plain data of bounded depth.

Aliases are refused: thirty lines of them stand for more values than a machine can hold. So are
a key that occurs twice, of which the second would silently win, and a key that is no text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from scanner.errors import UsageError
from scanner.system.validation import with_allowed

_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_TEXT, _LIST, _DICT = (f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))
_MOST_NESTED = 50
"""Collections inside each other; no file of this program has more than six."""


@dataclass(frozen=True)
class YamlDocument:
    """One document, as values and as the nodes that know their lines."""

    value: Any
    """None if the file is empty."""
    node: Any
    """The root `yaml.Node`; None if the file is empty."""


def parse_yaml(raw: bytes, where: str, error: type[UsageError] = UsageError) -> YamlDocument:
    """Parses one document.

    Args:
        raw: The file's bytes.
        where: What to call the file in errors.
        error: The kind of error to raise.

    Raises:
        UsageError: Or `error`, with the line where that is known, if it is not UTF-8 or not YAML,
            or is what the module's docstring names.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = raw.decode("utf-8-sig")
        _check_events(yaml.parse(text, Loader=loader), where, error)
        made = loader(text)
        node = made.get_single_node()
        _check_keys(node, where, error)
        value = None if node is None else _value(node, made)
    except UnicodeDecodeError as failure:
        raise error(f"not UTF-8 at byte {failure.start}", where=where) from None
    except yaml.YAMLError as failure:
        mark = getattr(failure, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        said = " ".join(str(getattr(failure, "problem", failure)).split())
        raise error(f"invalid YAML: {said}", where=place) from None
    except (ValueError, TypeError, AttributeError, OverflowError) as failure:
        # What the constructors of numbers, dates and other tagged scalars let escape.
        said = " ".join(str(failure).split())[:200]
        raise error(f"invalid YAML: a value cannot be read ({said})", where=where) from None
    return YamlDocument(value, node)


def _value(node: Any, loader: Any) -> Any:
    """What a node stands for, as the (safe) loader would make it of the text.

    Almost everything in these files is text, in lists and under keys: that needs no loader, whose
    constructors for any tag take half the time of parsing.
    """
    import yaml

    if node.tag == _TEXT and isinstance(node, yaml.ScalarNode):
        return node.value
    if node.tag == _LIST and isinstance(node, yaml.SequenceNode):
        return [_value(item, loader) for item in node.value]
    if node.tag == _DICT and isinstance(node, yaml.MappingNode) and _plain_keys(node):
        return {key.value: _value(item, loader) for key, item in node.value}
    return loader.construct_document(node)


def _plain_keys(mapping: Any) -> bool:
    """Whether all keys are text; others, among them the merge key `<<`, are the loader's."""
    return all(key.tag == _TEXT for key, _ in mapping.value)


def line_of(node: Any) -> int:
    """The line a node stands in, counted from 1."""
    line: int = node.start_mark.line + 1
    return line


def node_at(node: Any, place: str) -> Any:
    """The node at a validator's path, or the nearest one above it.

    Args:
        node: The root.
        place: Such as ``$.rules[2].models``.
    """
    import yaml

    for name, index in _STEP.findall(place):
        if isinstance(node, yaml.SequenceNode) and index.isdigit() and int(index) < len(node.value):
            node = node.value[int(index)]
        elif isinstance(node, yaml.MappingNode):
            inner = [value for key, value in node.value if key.value == name]
            if not inner:
                return node
            node = inner[0]
        else:
            return node
    return node


def validation_error(
    failure: msgspec.ValidationError,
    record: type[msgspec.Struct],
    root: Any,
    where: str,
    known: Callable[[str], Sequence[str]],
    error: type[UsageError] = UsageError,
) -> UsageError:
    """A msgspec validation error as one line: the field, what is wrong, and where it stands.

    Args:
        failure: The error.
        record: What the document was to be.
        root: The document's root node.
        where: What to call the file.
        known: The keys that may stand at a validator's path.
        error: The kind of error to make.
    """
    what, _, place = with_allowed(failure, record).partition(" - at `")
    place = place.rstrip("`")
    node = node_at(root, place)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    if unknown is None:
        what = what.replace("`", "")
        key = re.sub(r"^\$\.?", "", place)
        said = f"{key}: {what[:1].lower()}{what[1:]}" if key else f"{what[:1].lower()}{what[1:]}"
        return error(said, where=f"{where}:{line_of(node)}")
    name, names = unknown[1], known(place)
    from difflib import get_close_matches  # only who errs waits for it

    near = get_close_matches(name.replace("_", "-"), [item.replace("_", "-") for item in names], 1)
    meant = [item for item in names if near and item.replace("_", "-") == near[0]]
    keys = [key for key, _ in node.value if key.value == name]
    return error(
        f"unknown key {name!r}",
        where=f"{where}:{line_of(keys[0] if keys else node)}",
        todo=f"did you mean {meant[0]!r}?" if meant else f"known are {', '.join(names)}",
    )


def _check_events(events: Any, where: str, error: type[UsageError]) -> None:
    """Refuses aliases and depth before anything is built of them."""
    import yaml

    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise error("an alias (*) is not read; write the value out", where=_at(where, event))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MOST_NESTED:
            raise error("nested too deeply", where=_at(where, event))


def _check_keys(node: Any, where: str, error: type[UsageError]) -> None:
    import yaml

    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, where, error)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise error("a key that is no text", where=_at(where, key))
        if key.value in seen:
            raise error(f"the key {key.value[:200]!r} occurs twice", where=_at(where, key))
        seen.add(key.value)
        _check_keys(value, where, error)


def _at(where: str, item: Any) -> str:
    return f"{where}:{line_of(item)}"
