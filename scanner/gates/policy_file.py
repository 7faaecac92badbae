"""The policy file: YAML in, `Policy` and its keys out, every error with its line.

As with the configuration, an unknown key or a wrong value is an error and never a default: a
gate that ignores a line of its policy lets through what it was told to stop.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from scanner.errors import AttestationError, UsageError
from scanner.formats.limits import MAX_CONFIG_BYTES
from scanner.formats.regular import read_regular
from scanner.formats.yamlfile import line_of, parse_yaml
from scanner.gates.keys import PublicKey, parse_public_key
from scanner.gates.policy import Keys, Policy, Rule
from scanner.system.validation import with_allowed

_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy and its keys."""

    policy: Policy
    keys: Keys
    where: str


def load_policy(path: Path) -> LoadedPolicy:
    """Reads and checks a policy file.

    Raises:
        UsageError: With file and line, if anything in it is not as it should be.
    """
    try:
        raw = read_regular(path, MAX_CONFIG_BYTES)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    document = parse_yaml(raw, str(path))
    node, values = document.node, document.value
    if not isinstance(values, dict):
        raise UsageError("a mapping with version and rules was expected", where=f"{path}:1")
    try:
        policy = msgspec.convert(values, Policy)
    except msgspec.ValidationError as error:
        raise _with_line(error, node, path) from None
    return LoadedPolicy(policy, _keys(policy, node, path), str(path))


def _with_line(error: msgspec.ValidationError, root: Any, path: Path) -> UsageError:
    """The validator's message, at the line of what it is about."""
    what, _, place = with_allowed(error, Policy).partition(" - at `")
    node = _node_at(root, place.rstrip("`"))
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    what = what.replace("`", "")
    if unknown is None:
        key = re.sub(r"^\$\.?", "", place.rstrip("`"))
        said = f"{key}: {what[:1].lower()}{what[1:]}" if key else f"{what[:1].lower()}{what[1:]}"
        return UsageError(said, where=_where(path, node))
    name = unknown[1]
    table = Rule if "rules[" in place else Policy
    known = [item.encode_name for item in msgspec.structs.fields(table)]
    near = get_close_matches(name.replace("_", "-"), known, n=1)
    keys = [key for key, _ in node.value if key.value == name]
    return UsageError(
        f"unknown key {name!r}",
        where=_where(path, keys[0] if keys else node),
        todo=f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}",
    )


def _node_at(node: Any, place: str) -> Any:
    """The YAML node at a validator's path, or the nearest one above it."""
    import yaml

    for name, index in _STEP.findall(place):
        if isinstance(node, yaml.SequenceNode) and index.isdigit():
            node = node.value[int(index)]
        elif isinstance(node, yaml.MappingNode):
            inner = [value for key, value in node.value if key.value == name]
            if not inner:
                return node
            node = inner[0]
        else:
            return node
    return node


def _where(path: Path, node: Any) -> str:
    return f"{path}:{line_of(node)}"


def _keys(policy: Policy, root: Any, path: Path) -> Keys:
    """Parses the keys, and checks that names and keys mean one thing each.

    Raises:
        UsageError: If a key is none, stands for two, or an override names nobody.
    """
    found: dict[str, dict[str, PublicKey]] = {"scanners": {}, "people": {}}
    owners: dict[str, str] = {}
    for group, entries in (("scanners", policy.scanners), ("people", policy.people)):
        for name, text in entries.items():
            where = _where(path, _node_at(root, f"$.{group}.{name}"))
            try:
                key = parse_public_key(text, where)
            except AttestationError as error:
                raise UsageError(error.what, where=error.where, todo=error.todo) from None
            if key.id in owners:
                raise UsageError(
                    f"the key of {name!r} is also that of {owners[key.id]!r}",
                    where=where,
                    todo="one key, one name: a scanner must not be able to override",
                )
            owners[key.id] = name
            found[group][name] = key
    for number, rule in enumerate(policy.rules):
        for name in rule.overrides:
            if name not in policy.people:
                raise UsageError(
                    f"{name!r} is not among the policy's people",
                    where=_where(path, _node_at(root, f"$.rules[{number}].overrides")),
                )
    return Keys(found["scanners"], found["people"])
