"""Keeps version, changelog and citation in step: `python -m tools.release`.

python -m tools.release prepare 0.2.0    # a dated section, and the version in every file
python -m tools.release check v0.2.0     # whether a tag may become a release
python -m tools.release notes v0.2.0     # what its page says
"""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = re.compile(r"\d+\.\d+\.\d+(rc\d+)?")
UNRELEASED = "## [Unreleased]\n"
SECTION = re.compile(
    r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d\d-\d\d))?\n", re.MULTILINE
)
PLACES = {
    "pyproject.toml": re.compile(r'(?<=^version = ")[^"]+(?="$)', re.MULTILINE),
    "CITATION.cff": re.compile(r"(?<=^version: ).+$", re.MULTILINE),
}
"""Files that name the version, and where."""
RELEASED = re.compile(r"(?<=^date-released: ).+$", re.MULTILINE)


def section(changelog: str, version: str) -> str | None:
    """What a changelog says of one version; None if it has no dated section of it."""
    found = list(SECTION.finditer(changelog))
    for here, after in zip(found, [*found[1:], None], strict=True):
        if here["version"] == version and here["date"]:
            return changelog[here.end() : after.start() if after else len(changelog)].strip()
    return None


def problems(root: Path, tag: str) -> list[str]:
    """Why a tag may not become a release."""
    version = tag.removeprefix("v")
    if not tag.startswith("v") or not VERSION.fullmatch(version):
        return [f"{tag}: a tag is v and a version, such as v0.2.0"]
    found = []
    for name, pattern in PLACES.items():
        match = pattern.search((root / name).read_text("utf-8"))
        if match is None or match[0] != version:
            found.append(f"{name}: says version {match[0] if match else 'nothing'}, not {version}")
    text = section((root / "CHANGELOG.md").read_text("utf-8"), version)
    if not text:
        found.append(f"CHANGELOG.md: no dated section of {version} with anything in it")
    return found


def prepare(root: Path, version: str, today: datetime.date) -> None:
    """Writes a version into every file that names it, and dates what was unreleased.

    Raises:
        SystemExit: If it is no version, or there is nothing to release.
    """
    changelog = root / "CHANGELOG.md"
    text = changelog.read_text("utf-8")
    if not VERSION.fullmatch(version):
        sys.exit(f"{version}: not a version such as 0.2.0")
    _, heading, rest = text.partition(UNRELEASED)
    if not heading or not SECTION.split(rest)[0].strip():
        sys.exit("CHANGELOG.md: nothing stands under Unreleased")
    dated = f"{UNRELEASED}\n## [{version}] - {today.isoformat()}\n"
    changelog.write_text(text.replace(UNRELEASED, dated, 1), "utf-8")
    for name, pattern in PLACES.items():
        path = root / name
        new = pattern.sub(version, path.read_text("utf-8"), count=1)
        path.write_text(RELEASED.sub(today.isoformat(), new, count=1), "utf-8")


def main(arguments: list[str]) -> int:
    """Does what the arguments say; 1 if the tag may not become a release."""
    if len(arguments) != 2 or arguments[0] not in ("prepare", "check", "notes"):
        sys.exit((__doc__ or "").strip())
    command, word = arguments
    if command == "prepare":
        prepare(ROOT, word, datetime.datetime.now(datetime.timezone.utc).date())
        return 0
    found = problems(ROOT, word)
    for line in found:
        sys.stderr.write(f"{line}\n")
    if command == "notes" and not found:
        changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
        sys.stdout.write(f"{section(changelog, word.removeprefix('v'))}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
