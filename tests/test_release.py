"""Version, changelog and citation are in step, and what a release asks of them."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import pytest
import yaml

from tools import release
from tools.project import ROOT, project

TODAY = datetime.date(2027, 1, 31)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n\n"
        "## [0.0.1] - 2026-01-01\n\n- Old.\n"
    )
    return tmp_path


def test_a_prepared_release_is_one(repository: Path) -> None:
    assert len(release.problems(repository, "v9.8.7")) == 3
    release.prepare(repository, "9.8.7", TODAY)
    assert release.problems(repository, "v9.8.7") == []
    changelog = (repository / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n\n## [9.8.7] - 2027-01-31\n\n### Added" in changelog
    assert release.section(changelog, "9.8.7") == "### Added\n\n- A thing."
    assert release.section(changelog, "0.0.1") == "- Old."
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert (citation["version"], citation["date-released"]) == ("9.8.7", TODAY)
    with pytest.raises(SystemExit, match="nothing stands under Unreleased"):
        release.prepare(repository, "9.9.0", TODAY)


@pytest.mark.parametrize("tag", ["9.8.7", "v9.8", "v9.8.7-final", "vnext"])
def test_other_tags_are_refused(tag: str, repository: Path) -> None:
    (line,) = release.problems(repository, tag)
    assert "a tag is v and a version" in line


def test_an_undated_section_is_none(repository: Path) -> None:
    release.prepare(repository, "9.8.7", TODAY)
    path = repository / "CHANGELOG.md"
    path.write_text(path.read_text().replace(" - 2027-01-31", ""))
    (line,) = release.problems(repository, "v9.8.7")
    assert "no dated section of 9.8.7" in line


def test_the_repository_names_one_version_and_one_address() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == project()["version"]
    assert citation["license"] == project()["license"]
    assert citation["repository-code"] == project()["urls"]["Source"]
    assert citation["url"] == project()["urls"]["Documentation"]
