"""A digest that is begun early is that of the file that is read, or is not used."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from scanner.formats.stores import ahead
from scanner.formats.stores.opened import OpenedFile


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is large enough."""
    monkeypatch.setattr(ahead, "_WORTH_IT", 1)
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(os.urandom(3_000_000))
    return path


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest_when_opened(path: Path) -> str:
    opened = OpenedFile(path, str(path))
    try:
        return opened.sha256()
    finally:
        opened.close()


@pytest.mark.parametrize("named", ["file", "directory"])
def test_a_digest_that_was_begun_is_used(
    weights: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead.begin_digest(weights if named == "file" else weights.parent)

    def never(descriptor: int) -> str:
        raise AssertionError("hashed twice")

    monkeypatch.setattr("scanner.formats.stores.opened.sha256_of_descriptor", never)
    assert digest_when_opened(weights) == digest_of(weights)


def test_another_content_since_has_its_own_digest(weights: Path) -> None:
    ahead.begin_digest(weights)
    status = weights.stat()
    weights.write_bytes(os.urandom(3_000_000))
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest_when_opened(weights) == digest_of(weights)


def test_another_file_of_that_name_has_its_own_digest(weights: Path) -> None:
    ahead.begin_digest(weights)
    other = weights.with_name("other")
    other.write_bytes(os.urandom(3_000_000))
    other.replace(weights)
    assert digest_when_opened(weights) == digest_of(weights)


def test_a_file_that_changes_while_it_is_hashed_has_no_digest(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = weights.stat()

    def hashed(descriptor: int) -> str:
        with weights.open("r+b") as file:
            file.write(b"changed")
        return "of neither content"

    monkeypatch.setattr(ahead, "sha256_of_descriptor", hashed)
    ahead.begin_digest(weights)
    assert ahead.digest_begun(status) is None


@pytest.mark.parametrize("what", ["missing", "fifo", "empty directory", "hf://owner/name"])
def test_what_is_no_file_is_left_to_those_who_read(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "fifo":
        os.mkfifo(path)
    elif what == "empty directory":
        path.mkdir()
    ahead.begin_digest(path)


def test_small_files_are_hashed_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"a few bytes")
    ahead.begin_digest(path)
    assert digest_when_opened(path) == digest_of(path)
