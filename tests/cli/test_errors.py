"""Usage and configuration errors: status 2, one line, no traceback."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from scanner.cli.root import cli
from scanner.cli.status import EXIT_INCONCLUSIVE
from scanner.signatures.pack import Signature
from tests.cli.program import run


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["scna", "x"], "did you mean 'scan'"),
        (["scan"], "missing argument 'TARGET...'"),
        (["scan", "x", "--fomat", "json"], "--format"),
        (["scan", "x", "-f", "jso"], "'jso' is not one of"),
        (["scan", "x", "--alpha", "much"], "'much' is not a valid float"),
        (["scan", "x", "--jobs", "0"], "0 is not in the range"),
        (["scan", "x", "-s", "no-such-pack"], "no-such-pack"),
        (["signatures", "verfy", "x"], "verfy"),
    ],
)
def test_a_usage_error_is_one_line_and_status_2(args: list[str], says: str) -> None:
    done = CliRunner().invoke(cli, args)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_alpha_out_of_range_and_below_the_calibration(pack: Signature, benign: Path) -> None:
    for alpha, says in (
        ("2", "2.0 is not in the range 0<x<1"),
        ("0.0001", "needs 9999 benign adapters"),
    ):
        done = CliRunner().invoke(
            cli, ["scan", str(benign), "-s", str(pack.path), "--alpha", alpha]
        )
        assert (done.exit_code, done.stdout) == (2, "")
        assert says in done.stderr
        assert done.stderr.count("\n") == 1


def test_an_unreadable_target_is_a_verdict_not_a_crash(pack: Signature, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["scan", str(tmp_path / "none"), "-s", str(pack.path)])
    assert done.exit_code == 3
    assert "no such file or directory" in " ".join(done.stdout.split())


def test_a_bug_never_looks_like_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unhandled exception would exit 1, which means flagged."""
    monkeypatch.delenv("ADAPTER_SCANNER_DEBUG", raising=False)

    def broken(_self: object, _ctx: click.Context) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(click.Group, "invoke", broken)
    done = CliRunner().invoke(cli, ["scan", "x"])
    assert done.exit_code == EXIT_INCONCLUSIVE
    assert done.stderr.count("\n") == 1
    assert "internal error: KeyError" in done.stderr


def test_without_a_command_it_helps() -> None:
    done = CliRunner().invoke(cli, [])
    assert done.exit_code == 2
    assert "Commands:" in done.stderr


@pytest.mark.parametrize("args", [["--version"], ["-h"], ["scan", "--help"]])
def test_asking_is_no_error(args: list[str]) -> None:
    done = CliRunner().invoke(cli, args)
    assert done.exit_code == 0
    assert "adapter-scanner" in done.stdout


def test_the_module_runs_like_the_command() -> None:
    assert run("--version").stdout.startswith("adapter-scanner ")
