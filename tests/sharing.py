"""Which tests one worker of pytest-xdist runs, so that what they share is made once.

xdist's own groups cannot be used: its release 3.8 writes a test's group into a field that pytest
9.2 no longer reads, and then deals tests out one by one without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

_SHARE_NOTHING = ("tests/attacks/test_attacks.py",)
"""Files of very many tests that need nothing of each other: they go wherever there is room."""
_GATED_SERVER = "tests/gates/test_mlflow_"
"""Files that ask one gated MLflow server, which takes long to start."""


def group_of(test: str) -> str:
    """The group of a test: its file, but for the files named above.

    Args:
        test: pytest's id of it.
    """
    file = test.split("::", 1)[0]
    if file in _SHARE_NOTHING:
        return test
    return _GATED_SERVER if file.startswith(_GATED_SERVER) else file


def scheduler(config: pytest.Config, log: Any) -> Any:
    """Deals groups of tests out to xdist's workers, in the order of their tests."""
    from xdist.scheduler import LoadScopeScheduling

    made = LoadScopeScheduling(config, log)
    made._split_scope = group_of
    return made


def longest_first(items: list[pytest.Item]) -> None:
    """Sorts tests so that no worker is left alone with the longest at the end.

    Files stay together, and keep their order but for this: those that are allowed more time, and
    then those with slow tests, come first.
    """
    allowed: dict[str, float] = {}
    slow: set[str] = set()
    for item in items:
        group = group_of(item.nodeid)
        limit = item.get_closest_marker("timeout")
        if limit is not None and limit.args:
            allowed[group] = max(allowed.get(group, 0.0), limit.args[0])
        if item.get_closest_marker("slow") is not None:
            slow.add(group)

    def rank(item: pytest.Item) -> tuple[float, bool]:
        group = group_of(item.nodeid)
        return -allowed.get(group, 0.0), group not in slow

    items.sort(key=rank)
