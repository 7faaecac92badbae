"""docs/formats.md is what its generator writes."""

from __future__ import annotations

import runpy
from pathlib import Path

from scanner.formats.readers import READERS, unsupported

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_up_to_date() -> None:
    render = runpy.run_path(str(DOCS / "generate_formats.py"))["render"]
    assert (DOCS / "formats.md").read_text() == render(), "run python docs/generate_formats.py"


def test_every_reader_is_documented() -> None:
    assert all(hasattr(reader, "NOTES") for reader in READERS if reader is not unsupported)
