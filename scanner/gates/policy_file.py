"""The policy file: YAML in, `Policy` and its keys out, every error with its line.

As with the configuration, an unknown key or a wrong value is an error and never a default: a
gate that ignores a line of its policy lets through what it was told to stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scanner.errors import AttestationError, UsageError
from scanner.formats.limits import MAX_CONFIG_BYTES
from scanner.formats.regular import read_regular
from scanner.formats.yamlfile import line_of, node_at, parse_yaml, validation_error
from scanner.gates.keys import PublicKey, parse_public_key
from scanner.gates.policy import Keys, Policy, Rule


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
        raise validation_error(error, Policy, node, str(path), _known_keys) from None
    return LoadedPolicy(policy, _keys(policy, node, path), str(path))


def _known_keys(place: str) -> list[str]:
    table = Rule if "rules[" in place else Policy
    return [item.encode_name for item in msgspec.structs.fields(table)]


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
            where = _where(path, node_at(root, f"$.{group}.{name}"))
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
                    where=_where(path, node_at(root, f"$.rules[{number}].overrides")),
                )
    return Keys(found["scanners"], found["people"])
