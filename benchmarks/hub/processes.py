"""Programs of their own: a hub that serves, and commands whose time and memory are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """One finished process."""

    status: int
    seconds: float
    peak_megabytes: float
    output: str


def environment(endpoint: str, home: Path) -> dict[str, str]:
    """Nothing of the user's: no token, no cache, no packs."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING_FACE_", "ADAPTER_SCANNER_"))
    }
    return {
        **kept,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "120",  # a busy machine is no failed request
        "XDG_DATA_HOME": str(home),
        "ADAPTER_SCANNER_CACHE": str(home / "results"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def measured(command: Sequence[str], env: dict[str, str]) -> Run:
    """Runs a command to its end."""
    started = time.perf_counter()
    with subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    scale = 1 if sys.platform == "darwin" else 1024
    return Run(
        process.returncode,
        time.perf_counter() - started,
        usage.ru_maxrss * scale / 1e6,
        output,
    )


class Child:
    """A program that answers each line of its input with a line of JSON.

    Args:
        command: The program.
        env: Its environment.
    """

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self._command = command
        self._env = env

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def answer(self) -> dict[str, Any]:
        """The next line of its output."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._command} ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, word: str) -> dict[str, Any]:
        """Says a line and returns the answer to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self.answer()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


class HubProcess(Child):
    """A hub in a process of its own, so that it is in nobody's memory or interpreter lock.

    It answers ``counts`` with requests and bytes by kind; so it does ``forget``, and then starts
    counting anew.

    Args:
        arguments: Of `benchmarks.hub.hub_process`.
    """

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "benchmarks.hub.hub_process", *arguments]
        super().__init__(command, dict(os.environ))

    def __enter__(self) -> Self:
        super().__enter__()
        self.endpoint: str = self.answer()["endpoint"]
        return self
