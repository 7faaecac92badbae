"""Everything that can go wrong, as one small tree.

Each error says what happened, where, and what to do about it, in one line. A
`TargetError` becomes the verdict ``error`` of one target and never stops the others; a
`UsageError` stops the command with exit status 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

DEBUG_VARIABLE = "ADAPTER_SCANNER_DEBUG"
"""Environment variable: set, an unexpected exception shows its traceback."""


_BY_FLAG = False


@contextmanager
def options_by_flag() -> Iterator[None]:
    """Makes this process, all of its threads, say options as on the command line meanwhile.

    For the program, not the library.
    """
    global _BY_FLAG
    before, _BY_FLAG = _BY_FLAG, True
    try:
        yield
    finally:
        _BY_FLAG = before


def says_options_by_flag() -> bool:
    """Whether this process says options as on the command line."""
    return _BY_FLAG


def say_options_by_flag(by_flag: bool) -> None:
    """Settles it for good, in a process that works for another and says things as that one does."""
    global _BY_FLAG
    _BY_FLAG = by_flag


def option(name: str, value: str | int | None = None) -> str:
    """An option as whoever reads the message gives it.

    Args:
        name: The parameter's name in Python, `first_index`.
        value: A value for it.

    Returns:
        ``--first-index block0`` on the command line, ``first_index='block0'`` in Python.
    """
    if _BY_FLAG:
        flag = f"--{name.replace('_', '-')}"
        return flag if value is None else f"{flag} {value}"
    return name if value is None else f"{name}={value!r}"


class AdapterScannerError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        what: What happened, as a short sentence without a final full stop.
        where: The file, tensor or option it happened at.
        todo: What the reader can do about it; the class's `remedy` if not given.
    """

    remedy = ""
    """What helps with most errors of the class."""

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        self.what = what
        self.where = where
        self.todo = todo or self.remedy
        self.reason = f"{what}; {todo}" if todo else what
        """Why one tensor of a sound file is not judged, in a list that names the tensor."""
        super().__init__(self.line())

    def line(self) -> str:
        """Returns the whole error as one line: where, what, what to do."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.todo}" if self.todo else text


def first_line(error: BaseException, most: int = 300) -> str:
    """What a foreign error says, as one line for a message of one's own.

    Args:
        error: Any exception; libraries put whole pages into theirs.
        most: Characters it may have.

    Returns:
        Its first line that is not empty; the name of its class if it says nothing.
    """
    lines = str(error).strip().splitlines()
    return lines[0].strip()[:most] if lines else type(error).__name__


class UsageError(AdapterScannerError):
    """The command, the configuration or an option asks for something that cannot be done."""


class AlphaUnsupportedError(UsageError):
    """The false-positive rate asked for is below what the calibration can support."""


class SignatureError(UsageError):
    """A signature pack or a recipe is missing, damaged or not what it says it is."""


class AdapterMissingError(SignatureError):
    """An adapter that a recipe names is not there to be had: withdrawn, gated, or never there."""


class AttestationError(UsageError):
    """A signed record or a key is missing, malformed, or not to be trusted."""


class TargetError(AdapterScannerError):
    """One target could not be read; its verdict is ``error``."""


class UnreadableFileError(TargetError):
    """A file is missing, truncated or refuses to open."""

    remedy = "check that it is there and can be read"


class LfsPointerError(TargetError):
    """A git-lfs pointer stands where the weights should be."""


class MalformedFileError(TargetError):
    """A file breaks the rules of its own format."""

    remedy = "fetch it again, or ask for a sound copy"


class LimitExceededError(TargetError):
    """A file is larger or deeper than the limits that keep the scanner safe."""

    remedy = "do not load it"


class MissingConfigError(TargetError):
    """The adapter's configuration is missing or invalid."""

    remedy = "mend the file"


class NothingToScanError(TargetError):
    """A target holds no adapter at all."""


class RegistryError(TargetError):
    """A registry or a hub refused, could not be reached, or does not have what was asked for."""


class MissingExtraError(TargetError):
    """Reading this target needs an optional dependency that is not installed."""


class HubError(TargetError):
    """The hub did not give what was asked for, which says nothing about the adapter."""

    transient = False
    """Whether the same request may succeed later."""


class AccessDeniedError(HubError):
    """A gated or private repository, and the token does not open it (401, 403)."""


class NotOnHubError(HubError):
    """No such repository, revision, folder or file (404)."""


class HubAnswerError(HubError):
    """An answer that breaks the rules: another range, another file, too large, no JSON."""


class HubUnavailableError(HubError):
    """Offline, rate-limited, failing or cut off; trying again later may help.

    Args:
        what: As for every error.
        where: As for every error.
        todo: As for every error.
        retry_after: Seconds the hub asked to wait, if it did.
    """

    transient = True

    def __init__(
        self, what: str, *, where: str = "", todo: str = "", retry_after: float | None = None
    ) -> None:
        self.retry_after = retry_after
        super().__init__(what, where=where, todo=todo)


class SweepStoppedError(HubError):
    """The hub stopped answering in the middle of a sweep; what was done is in the ledger."""


def unforeseen(error: Exception) -> str:
    """One line about an exception that this package does not raise on purpose."""
    if isinstance(error, MemoryError):
        return "this takes more memory than there is; do not load it"
    if isinstance(error, RecursionError):
        return "nested too deeply to be read; do not load it"
    return (
        f"internal error: {type(error).__name__}: {first_line(error)}; "
        f"set {DEBUG_VARIABLE}=1 for the traceback, and report this defect of adapter-scanner"
    )
