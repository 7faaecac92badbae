"""Every report format is a choice of the command line, has a module, and is described."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from scanner.cli.hub import report_command
from scanner.cli.scan import command as scan_command
from scanner.reports import FORMATS, renderer
from tests.reports.samples import mixed

PAGE = (Path(__file__).parent.parent.parent / "docs" / "reports.md").read_text()


def _choices(command: click.Command) -> set[str]:
    option = next(item for item in command.params if "-f" in item.opts)
    assert isinstance(option.type, click.Choice)
    return set(option.type.choices)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_renders_and_has_a_row_in_the_documentation(name: str) -> None:
    assert renderer(name)(mixed())
    assert f"\n| `{name}` | " in PAGE


def test_commands_offer_every_format() -> None:
    assert _choices(scan_command) == set(FORMATS)
    assert _choices(report_command) == {*FORMATS, "csv", "parquet"}


def test_another_name_is_no_format() -> None:
    with pytest.raises(KeyError):
        renderer("inspection")
