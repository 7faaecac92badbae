"""The engine of a Ray cluster: one worker per CPU, wherever the cluster has one.

Packs go into Ray's object store once, and every worker takes them from there. Workers hold
nothing else: a lost one is replaced, and its tasks come back as setbacks. The machines of the
cluster need this package; the hub's address and the token are those of the driver.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scanner.errors import UsageError, say_options_by_flag, says_options_by_flag
from scanner.hub.client import HubClient
from scanner.signatures.manifest import MANIFEST_NAME
from scanner.signatures.pack import Signature, load_signature
from scanner.sweep.records import Outcome, Setback, Task
from scanner.sweep.work import REQUEST_POLICY, Worker

PackFiles = Mapping[str, bytes]

_OBJECT_STORE_BYTES = 128 * 2**20
"""Memory for the objects in transit, in bytes; the packs are added to it."""
_START_ATTEMPTS = 3
"""A busy machine may take longer than the half minute Ray gives it."""


class RemoteWorker:
    """A worker in a process of its own, on whichever machine.

    Args:
        packs: The files of each pack.
        alpha: False-positive rate; None for the default.
        endpoint: The hub.
        token: The user's token, if there is one.
        by_flag: Whether reasons say options as on the command line.
    """

    def __init__(
        self,
        packs: Sequence[PackFiles],
        alpha: float | None,
        endpoint: str,
        token: str | None,
        by_flag: bool,
    ) -> None:
        say_options_by_flag(by_flag)
        if token is not None:
            os.environ["HF_TOKEN"] = token
        signatures = [_loaded(files) for files in packs]
        self._worker = Worker(HubClient(endpoint, REQUEST_POLICY), signatures, alpha)

    def work(self, task: Task) -> Outcome:
        """Runs one task in the worker process."""
        return self._worker(task)

    def process(self) -> int:
        """The id of its process."""
        return os.getpid()


class RayEngine:
    """Does tasks on a Ray cluster.

    Args:
        signatures: The packs.
        alpha: False-positive rate; None for the default.
        endpoint: The hub.
        jobs: Adapters each worker reads at once.
        address: A running cluster; a new one on this machine if not given.
        cpus: CPUs of a new cluster; all of this machine's if not given.

    Raises:
        UsageError: If Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self,
        signatures: Sequence[Signature],
        alpha: float | None,
        *,
        endpoint: str,
        jobs: int,
        address: str | None = None,
        cpus: int | None = None,
    ) -> None:
        from huggingface_hub import get_token

        packs = [_files(signature) for signature in signatures]
        self._ray = _connected(address, cpus, sum(len(f) for pack in packs for f in pack.values()))
        # Ray lets go of an object nobody holds, and a replacement needs the packs too.
        shared = self._ray.put(packs)
        actor = self._ray.remote(RemoteWorker).options(num_cpus=1, max_concurrency=jobs)
        self._start: Callable[[], Any] = partial(
            actor.remote, shared, alpha, endpoint, get_token(), says_options_by_flag()
        )
        count = max(int(self._ray.cluster_resources().get("CPU", 1)), 1)
        self.workers: list[Any] = [self._start() for _ in range(count)]
        self._jobs = jobs
        self._running: dict[Any, tuple[Task, Any]] = {}
        try:
            self._ray.get(self.workers[0].process.remote())
        except self._ray.exceptions.RayError as error:
            self.close()
            raise UsageError(
                f"no worker can be started: {_last_line(error)}",
                where="--engine ray",
                todo="install adapter-scanner on every machine of the cluster",
            ) from None

    @property
    def capacity(self) -> int:
        """Tasks it wants to hold at once."""
        return len(self.workers) * (self._jobs + 2)

    def submit(self, task: Task) -> None:
        """Gives a task to the worker that holds fewest."""
        load = Counter(worker for _, worker in self._running.values())
        worker = min(self.workers, key=load.__getitem__)
        self._running[worker.work.remote(task)] = (task, worker)

    def outcomes(self, timeout: float) -> list[Outcome]:
        """What has been done since the last call; a lost worker's tasks are setbacks."""
        running = list(self._running)
        if not running:
            return []
        ready, rest = self._ray.wait(running, num_returns=1, timeout=timeout)
        if ready and rest:
            more, _ = self._ray.wait(rest, num_returns=len(rest), timeout=0)
            ready += more
        return [self._outcome(reference) for reference in ready]

    def _outcome(self, reference: Any) -> Outcome:
        task, worker = self._running.pop(reference)
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            if worker in self.workers:
                self._ray.kill(worker)
                self.workers[self.workers.index(worker)] = self._start()
            return Setback(task=task, reason=f"its worker was lost ({type(error).__name__})")
        return outcome

    def close(self) -> None:
        """Leaves the cluster; one that was started here stops."""
        for worker in self.workers:
            self._ray.kill(worker)
        self._ray.shutdown()


def _last_line(error: Exception) -> str:
    """The end of a remote traceback, which names the exception."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:200]


def _loaded(files: PackFiles) -> Signature:
    """A pack from its files. They are open when it is loaded, and outlive their names.

    A worker that is killed so leaves nothing behind.
    """
    with tempfile.TemporaryDirectory(prefix="adapter-scanner-") as scratch:
        root = Path(scratch)
        for name, content in files.items():
            (root / name).write_bytes(content)
        return load_signature(root)


def _files(signature: Signature) -> PackFiles:
    names = (MANIFEST_NAME, *signature.manifest.files)
    return {name: (signature.path / name).read_bytes() for name in names}


def _connected(address: str | None, cpus: int | None, packs: int) -> Any:
    """Ray, connected to a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UsageError(
            "sweeping on a Ray cluster needs ray",
            where="--engine ray",
            todo="pip install 'adapter-scanner[ray]'",
        ) from None
    new: dict[str, Any] = {
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES + 2 * packs,
    }
    attempts = 1 if address else _START_ATTEMPTS
    for attempt in range(1, attempts + 1):
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else new),
            )
            break
        except Exception as error:  # Ray raises a bare one when a machine is too busy to start it
            ray.shutdown()
            if attempt == attempts:
                raise UsageError(
                    f"the cluster cannot be reached: {_last_line(error)}",
                    where=address or "--engine ray",
                ) from None
    return ray
