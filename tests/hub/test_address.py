from __future__ import annotations

import pytest

from scanner.errors import UsageError
from scanner.hub.address import HubAddress, is_address, parse_address

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://owner/name", HubAddress("owner/name")),
        ("hf://owner/name@main", HubAddress("owner/name", "main")),
        (f"hf://owner/na.me@{COMMIT}/a/b", HubAddress("owner/na.me", COMMIT, "a/b")),
        ("hf://owner/name/a b", HubAddress("owner/name", None, "a b")),
        ("hf://owner/name@refs/pr/12/sub", HubAddress("owner/name", "refs/pr/12", "sub")),
        ("hf://owner/name@feature%2Fx/sub", HubAddress("owner/name", "feature/x", "sub")),
        ("hf://owner/name/a@b/c.safetensors", HubAddress("owner/name", None, "a@b/c.safetensors")),
    ],
)
def test_an_address_is_read_back_as_written(text: str, address: HubAddress) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["hf://owner/name/", "hf://owner/name/sub/"])
def test_a_final_slash_means_nothing(text: str) -> None:
    assert str(parse_address(text)) == text.rstrip("/")


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://owner",
        "hf:///name",
        "hf://owner/",
        "hf://owner/name@",
        "hf://owner/name@/sub",
        "hf://owner/name@a b",
        "hf://owner/name/../other",
        "hf://owner/name//sub",
        "hf://owner/name/./sub",
        "hf://owner/name/a\nb",
        "hf://../name",
        "hf://owner/n ame",
        "https://owner/name",
    ],
)
def test_what_is_no_address_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(UsageError, match=r"write hf://owner/name\[@revision\]\[/subfolder\]"):
        parse_address(text)


def test_only_a_whole_commit_pins() -> None:
    assert HubAddress("a/b", COMMIT).is_pinned
    assert not HubAddress("a/b", COMMIT[:12]).is_pinned
    assert not HubAddress("a/b", "main").is_pinned
    assert not HubAddress("a/b").is_pinned


def test_local_paths_are_no_addresses() -> None:
    assert is_address("hf://a/b")
    assert not is_address("hf:/a/b")
    assert not is_address("models/hf://a/b")
