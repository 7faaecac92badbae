"""The loaders that a reading is held against: libraries that run, and models of programs."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from tests.differential import loader_models
from tests.differential.merging import Changes, merged_by_peft, merged_by_transformers

ROOT = Path(__file__).parents[2]


class Loader(Protocol):
    """One way of loading an adapter."""

    @property
    def name(self) -> str:
        """As reports of disagreements call it."""

    def load(self, directory: Path, base: str) -> Changes | None:
        """What it adds to each module; None if it raises an error instead."""


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Loaders warn of what they ignore; here that is what is looked for."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


@dataclass(frozen=True)
class InProcess:
    """A library of this environment."""

    name: str
    merged: Callable[[Path, str], Changes]

    def load(self, directory: Path, base: str) -> Changes | None:
        """As `Loader.load`."""
        try:
            with _silence():
                return self.merged(directory, base)
        except Exception:
            return None


@dataclass(frozen=True)
class Modelled:
    """A program that is not run: its rules, on the tiny Llama."""

    name: str
    rules: Callable[[Path], Changes]

    def load(self, directory: Path, base: str) -> Changes | None:
        """As `Loader.load`."""
        if base != "llama":
            return None
        try:
            return self.rules(directory)
        except Exception:
            return None


@dataclass
class OtherPeft:
    """Another version of PEFT, in a long-lived process of its own environment."""

    name: str
    python: Path
    _process: subprocess.Popen[str] | None = field(default=None, init=False)

    def load(self, directory: Path, base: str) -> Changes | None:
        """As `Loader.load`."""
        if base == "mixtral":
            return None  # its transformers builds the experts as other modules
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "changes.npz"
            request = {"directory": str(directory), "base": base, "result": str(result)}
            print(json.dumps(request), file=process.stdin, flush=True)
            answer = json.loads(process.stdout.readline())
            if answer["error"]:
                return None
            with np.load(result) as arrays:
                return {name.removeprefix("="): arrays[name] for name in arrays.files}

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [str(self.python), "-m", "tests.differential.merging"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        return self._process

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@functools.cache
def here() -> tuple[Loader, ...]:
    """Those that need no other environment, the cheap ones first."""
    return (
        Modelled("vLLM", loader_models.vllm),
        Modelled("SGLang", loader_models.sglang),
        Modelled("llama.cpp", loader_models.llama_cpp),
        Modelled("mlx-lm", loader_models.mlx_lm),
        Modelled("mlx-lm 0.32", loader_models.mlx_lm_strict),
        InProcess("PEFT", merged_by_peft),
        InProcess("transformers", merged_by_transformers),
    )
