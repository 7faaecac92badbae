"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scanner.system.files import write_whole


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


def test_no_reader_ever_sees_half_a_report(tmp_path: Path) -> None:
    """The new content stands in a file of another name until it is complete."""
    path = tmp_path / "report.json"
    path.write_text("old")
    seen = []
    real = os.replace

    def spy(source: str, target: Path) -> None:
        seen.append((path.read_text(), Path(source).read_text()))
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.replace", spy)
        write_whole(path, b"new")
    assert seen == [("old", "new")]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    write_whole(tmp_path / "report", b"")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "report").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_device_is_written_to_as_it_is() -> None:
    write_whole(Path(os.devnull), b"data")
    assert not Path(os.devnull).is_file()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "report", b"")
