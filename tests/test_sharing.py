"""Tests that share something run in one worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sharing import group_of

ROOT = Path(__file__).parents[1]

INNER = """
import os
import pytest

@pytest.fixture(scope="module")
def made():
    return os.getpid()

@pytest.mark.parametrize("number", range(20))
def test_it(made, number):
    assert made == os.getpid()
    with open(LOG, "a") as log:
        log.write(f"{__file__} {made}\\n")
"""


def test_all_that_need_the_gated_server_go_together() -> None:
    asking = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if "gated_server" in path.read_text(encoding="utf-8") and path != Path(__file__)
    }
    assert len(asking) > 3
    assert len({group_of(f"{file}::test_it") for file in asking}) == 1


def test_tests_that_share_nothing_go_anywhere() -> None:
    one, other = (group_of(f"tests/attacks/test_attacks.py::test_attack[{n}]") for n in "ab")
    assert one != other


@pytest.mark.slow
def test_a_file_is_run_by_one_worker(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the releases of pytest and xdist that are installed, whatever they are."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    log = pytester.path / "log"
    pytester.makeconftest(
        "from tests.sharing import scheduler\n"
        "def pytest_xdist_make_scheduler(config, log):\n    return scheduler(config, log)\n"
    )
    inner = INNER.replace("LOG", repr(str(log)))
    pytester.makepyfile(test_one=inner, test_other=inner)
    run = pytester.runpytest_subprocess("-n2", "--dist=loadscope", "-p", "no:cacheprovider")
    run.assert_outcomes(passed=40)
    assert len(set(log.read_text().splitlines())) == 2
