"""The quick way through a safetensors header gives what the strict one gives, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import MalformedFileError
from scanner.formats.stores.header import _decoded, _parsed, parse_header

_NAMES = st.sampled_from(["a", "b:c", "d{e", 'f\\"', "layers.0", "ü", "__metadata__x"])
_WHOLE = st.integers(0, 2**62)
_ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "x:y"]),
        "shape": st.lists(_WHOLE, max_size=3),
        "data_offsets": st.lists(_WHOLE, min_size=2, max_size=2),
    }
)
_METADATA = st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3)


def written(pairs: list[tuple[str, Any]]) -> bytes:
    """An object with its members as they are listed, equal names included."""
    members = (f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs)
    return ("{" + ",".join(members) + "}").encode()


@given(st.lists(st.tuples(_NAMES, _ENTRIES), max_size=5), st.none() | _METADATA)
def test_it_is_what_the_strict_parser_gives(
    tensors: list[tuple[str, Any]], metadata: dict[str, str] | None
) -> None:
    pairs: list[tuple[str, Any]] = [*tensors]
    if metadata is not None:
        pairs.insert(len(pairs) // 2, ("__metadata__", metadata))
    raw = written(pairs)
    quick = _decoded(raw)
    if len({name for name, _ in pairs}) < len(pairs):
        assert quick is None
        with pytest.raises(MalformedFileError, match="twice"):
            _parsed(raw, "here")
    elif quick is not None:
        assert quick == _parsed(raw, "here")


def test_an_ordinary_header_goes_the_quick_way() -> None:
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    for pairs in ([("a.weight", entry)], [("__metadata__", {"format": "pt"}), ("a.weight", entry)]):
        assert _decoded(written(pairs)) is not None
        assert list(parse_header(written(pairs), 24, "here").entries) == ["a.weight"]


@pytest.mark.parametrize(
    "inside",
    [
        b'"dtype":"F32","dtype":"F16","shape":[0],"data_offsets":[0,0]',
        b'"dtype":"F32","shape":[0],"data_offsets":[0,0],"data_offsets":[0,0]',
        b'"dtype":"F32","shape":[0.0],"data_offsets":[0,0]',
        b'"dtype":"F32","shape":[0],"data_offsets":[0,0,0]',
        b'"dtype":"F32","shape":[true],"data_offsets":[0,0]',
        b'"dtype":"F32","shape":[-1],"data_offsets":[0,0]',
        b'"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,0]',
        b'"dtype":"F32","shape":[0],"data_offsets":[0,0],"more":1',
        b'"dtype":"\xff","shape":[0],"data_offsets":[0,0]',
    ],
)
def test_what_is_not_exactly_an_entry_takes_the_strict_way_and_is_refused(inside: bytes) -> None:
    raw = b'{"a":{' + inside + b"}}"
    assert _decoded(raw) is None
    with pytest.raises(MalformedFileError):
        parse_header(raw, 0, "here")


def test_metadata_that_names_a_key_twice_is_refused() -> None:
    raw = b'{"__metadata__":{"format":"pt","format":"np"}}'
    assert _decoded(raw) is None
    with pytest.raises(MalformedFileError, match="twice"):
        parse_header(raw, 0, "here")
