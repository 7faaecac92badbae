from __future__ import annotations

from pathlib import Path

import pytest

from scanner.errors import UsageError
from scanner.hub.address import HubAddress, is_address, meant_address, parse_address
from tests.cli.program import run

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


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://huggingface.co/owner/name", "hf://owner/name"),
        ("http://www.hf.co/owner/name/", "hf://owner/name"),
        ("huggingface.co/o/n/tree/main/sub/x", "hf://o/n@main/sub/x"),
        ("https://huggingface.co/o/n/blob/refs%2Fpr%2F3/a.bin", "hf://o/n@refs/pr/3/a.bin"),
        ("https://huggingface.co/o/n?library=peft#files", "hf://o/n"),
        ("owner/name@v1.0", "hf://owner/name@v1.0"),
        ("hf:owner/name", "hf://owner/name"),
        ("hf:/owner/name", "hf://owner/name"),
        ("https://huggingface.co/datasets/o/n", None),
        ("https://example.org/o/n", None),
        ("/srv/name", None),
        ("./owner/name", None),
        ("../name", None),
        ("one/two/three", None),
        ("name", None),
    ],
)
def test_what_somebody_means_who_writes_a_page_or_a_name(written: str, meant: str | None) -> None:
    address = meant_address(written)
    assert (None if address is None else str(address)) == meant


@pytest.mark.parametrize("command", ["scan", "inspect"])
@pytest.mark.parametrize("written", ["https://huggingface.co/owner/name", "owner/name"])
def test_a_target_that_is_not_on_disk_is_answered_with_its_address(
    command: str, written: str, tmp_path: Path
) -> None:
    done = run(command, written, cwd=tmp_path)
    assert done.returncode == 3
    assert "hf://owner/name" in " ".join((done.stdout + done.stderr).split())


def test_a_folder_called_like_a_repository_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    done = run("inspect", "owner/name", cwd=tmp_path)
    assert "hf://" not in done.stderr
    assert "no adapter" in done.stderr


def test_other_web_pages_are_not_read(tmp_path: Path) -> None:
    done = run("inspect", "https://example.org/adapter.safetensors", cwd=tmp_path)
    assert done.returncode == 3
    assert "the address of a web page; download it first" in done.stderr
