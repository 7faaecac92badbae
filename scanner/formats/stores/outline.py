"""What a pickle would build, without building it: dicts, lists, plain values, tensors as marks.

A small machine for the opcodes that torch's and Python's picklers write. It calls nothing,
imports nothing, and gives up at whatever it does not know. torch is not needed.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from scanner.errors import HubError
from scanner.formats.stores.archive import ZIP_MAGIC, open_archive

MAX_PICKLED_BYTES = 8 * 2**20
"""Of the pickle alone; tensors lie beside it."""
_MAX_STEPS = 500_000
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class OutlineError(Exception):
    """A pickle that this machine does not understand."""


@dataclass(eq=False)
class TensorMark:
    """Where a tensor would be."""

    storage: str
    """Name of its storage's class, e.g. ``FloatStorage``."""


@dataclass(eq=False)
class Opaque:
    """An object of a class that is not known here, with everything it was made of."""

    made_by: str
    """``module.name`` of its class, or of the function that makes it."""
    parts: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class _Global:
    name: str


_MARK = object()
_CONTAINERS = {"collections.OrderedDict", "collections.defaultdict", "builtins.dict"}
_REBUILDS = (
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_parameter",
    "torch._tensor._rebuild_from_type",
)


def outline(file: BinaryIO) -> Any:
    """The object that `torch.load` or `pickle.load` would make of a file, as an outline.

    Raises:
        OutlineError: If that cannot be told.
    """
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    if start != ZIP_MAGIC:
        return _legacy(file)
    try:
        with open_archive(file, "") as archive:
            (member,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if archive.getinfo(member).file_size > MAX_PICKLED_BYTES:
                raise OutlineError("too large")
            raw = archive.read(member)
    except (OutlineError, HubError):
        raise
    except Exception as error:  # zipfile lets a dozen types escape
        raise OutlineError(str(error)) from None
    return _Machine().run(raw)


def _legacy(file: BinaryIO) -> Any:
    """A plain pickle, or the fourth of those that torch wrote before it wrote archives."""
    raw = file.read(MAX_PICKLED_BYTES)
    machine = _Machine()
    first = machine.run(raw)
    if first != _LEGACY_MAGIC:
        return first
    for _ in range(2):  # the protocol's version, and sizes of this machine's types
        machine = _Machine(machine.end)
        machine.run(raw)
    return _Machine(machine.end).run(raw)


class _Machine:
    """The unpickler's stack and memo, with marks in place of objects."""

    def __init__(self, start: int = 0) -> None:
        self.end = start
        """Where the pickle begins; once it has run, where it ended."""
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, raw: bytes) -> Any:
        begin = self.end
        try:
            for count, (opcode, argument, at) in enumerate(pickletools.genops(raw[begin:])):
                if count > _MAX_STEPS:
                    raise OutlineError("too long")
                if opcode.name == "STOP":
                    self.end = begin + (at or 0) + 1
                    return self._stack.pop()
                self._step(opcode.name, argument)
        except OutlineError:
            raise
        except Exception as error:  # a damaged pickle breaks the stack in a dozen ways
            raise OutlineError(str(error)) from None
        raise OutlineError("it does not end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise OutlineError(name)

    def _since_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
        items = self._stack[at + 1 :]
        del self._stack[at:]
        return items

    def _put(self, argument: Any) -> None:
        self._memo[argument] = self._stack[-1]

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, argument: Any) -> None:
        self._stack.append(self._memo[argument])

    def _global(self, argument: Any) -> None:
        self._stack.append(_Global(str(argument).replace(" ", ".")))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(_Global(f"{module}.{name}"))

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _list(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def _dict(self, _: Any) -> None:
        pairs = self._since_mark()
        self._stack.append({})
        self._fill(pairs)

    def _small_tuple(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._stack.append(items)

    def _append(self, _: Any) -> None:
        item = self._stack.pop()
        _extend(self._stack[-1], [item])

    def _appends(self, _: Any) -> None:
        items = self._since_mark()
        _extend(self._stack[-1], items)

    def _setitem(self, _: Any) -> None:
        pair = [self._stack.pop(), self._stack.pop()][::-1]
        self._fill(pair)

    def _setitems(self, _: Any) -> None:
        self._fill(self._since_mark())

    def _fill(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Opaque):
            target.parts.extend(pairs)
            return
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, (str, int, float, bool, tuple, type(None))):
                raise OutlineError("a key that is no plain value")
            target[key] = value

    def _persistent(self, _: Any) -> None:
        identity = self._stack.pop()
        if not (isinstance(identity, tuple) and identity[0] == "storage"):
            raise OutlineError("a reference to something that is no storage")
        kind = identity[1]
        name = kind.name.rpartition(".")[2] if isinstance(kind, _Global) else str(kind)
        self._stack.append(TensorMark(name))

    def _reduce(self, _: Any) -> None:
        arguments, made_by = self._stack.pop(), self._stack.pop()
        self._stack.append(_made(made_by, arguments))

    def _new_with_keywords(self, _: Any) -> None:
        keywords, arguments, made_by = (self._stack.pop() for _ in range(3))
        self._stack.append(_made(made_by, (*arguments, keywords)))

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Opaque):
            target.parts.append(state)
        elif state and not (isinstance(target, dict) and isinstance(state, dict)):
            raise OutlineError("state for something that has none")
        # Else: attributes of an ordered dict, such as a state dict's `_metadata`; no entries.

    def _pop(self, _: Any) -> None:
        self._stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, Opaque):
        target.parts.extend(items)
    else:
        raise OutlineError("items for something that holds none")


def _made(made_by: Any, arguments: Any) -> Any:
    if not isinstance(made_by, _Global):
        return Opaque("?", [made_by, arguments])
    if made_by.name.startswith(_REBUILDS) and arguments:
        # (storage, ...), (tensor, requires_grad, hooks) or (function, type, arguments, state)
        inner = arguments[2] if made_by.name.endswith("_from_type_v2") else arguments
        if isinstance(inner, tuple) and inner and isinstance(inner[0], TensorMark):
            return inner[0]
    if made_by.name in _CONTAINERS and not arguments:
        return {}
    return Opaque(made_by.name, [arguments])


_LITERALS = frozenset(
    {
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
        "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
        "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    }
)  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: Opaque("builtins.set"),
    "MARK": lambda: _MARK,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine._put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine._get),
    "MEMOIZE": _Machine._memoize,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "TUPLE": _Machine._tuple,
    "TUPLE1": lambda machine, _: machine._small_tuple(1),
    "TUPLE2": lambda machine, _: machine._small_tuple(2),
    "TUPLE3": lambda machine, _: machine._small_tuple(3),
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "ADDITEMS": _Machine._appends,
    "SETITEM": _Machine._setitem,
    "SETITEMS": _Machine._setitems,
    "BINPERSID": _Machine._persistent,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "NEWOBJ_EX": _Machine._new_with_keywords,
    "BUILD": _Machine._build,
    "POP": _Machine._pop,
    "POP_MARK": _Machine._pop_mark,
    "DUP": _Machine._duplicate,
}
