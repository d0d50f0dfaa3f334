"""One pickle followed opcode by opcode on a symbolic stack; nothing is imported or called.

Python has two readers of pickles, one in C and one in Python, and they accept more than `pickletools` does: integers in
hexadecimal, names outside ASCII, text that is not quoted as the protocol wants. This reader takes whatever either of
them takes, so that a pickle cannot end here and go on there. Strings, numbers, tuples, small tables and imports keep
their value on the stack, everything else is opaque.

joblib puts the bytes of an array into the stream, behind the object that describes it: they are measured and passed
over, and what follows is read.

Sources: ``pickletools`` and ``Modules/_pickle.c`` of CPython 3.11; joblib, ``numpy_pickle.py``.
"""

from __future__ import annotations

import codecs
import io
import math
import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from vestige.core.bounded import LimitReached, Window
from vestige.core.models.pickle_imports import COMPUTED

CALLS = frozenset({"REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"})
_LINES = frozenset({"INT", "LONG", "FLOAT", "STRING", "UNICODE", "PERSID", "GET", "PUT", "GLOBAL", "INST"})
_OPCODES = {op.code: op for op in pickletools.opcodes}
_JOBLIB_ARRAY = "joblib.numpy_pickle.NumpyArrayWrapper"
_MARK, OPAQUE = object(), object()
_KEPT_ITEMS = 64
_KEPT_TEXT = 4096
_KEPT_TABLES = 100_000
_MAX_LINE = 2**20
_SMALL_MEMO = 2**16
#: Opcodes whose argument follows its length, and the bytes of that length.
_SIZED = {
    "BINUNICODE": 4, "SHORT_BINUNICODE": 1, "BINUNICODE8": 8, "BINSTRING": 4, "SHORT_BINSTRING": 1, "BINBYTES": 4,
    "SHORT_BINBYTES": 1, "BINBYTES8": 8, "BYTEARRAY8": 8, "LONG1": 1, "LONG4": 4,
}  # fmt: skip


class Import(str):
    """The class or function that a pickle imported, as "module.name"."""

    __slots__ = ()


@dataclass(slots=True, eq=False)
class Made:
    """What a call made: of which function, with which arguments, and the state it was given afterwards."""

    function: Any
    arguments: Any
    state: Any = None


@dataclass
class Bounds:
    """Opcodes read so far in the whole scan, and those bounds of `pickle_scan.ScanLimits` that are used here."""

    max_opcodes: int
    max_stack: int
    max_kept: int
    opcodes: int = 0
    calls: int = 0


class Machine:
    """Follows one pickle to its STOP.

    imported(module, name), nested(begin, size), problem(text): called for each import, each bytes object, each oddity.
    object_array(reader), array(begin, size): called for a pickle of its own inside the stream, and for the bytes of an
    array, of which a plain reader would go on reading as opcodes.
    """

    def __init__(self, reader: io.BytesIO | Window, size: int, bounds: Bounds, place: str,
                 imported: Callable[[str, str], None], nested: Callable[[int, int], None],
                 problem: Callable[[str], None], object_array: Callable[[Any], None],
                 array: Callable[[int, int], None]) -> None:  # fmt: skip
        self.reader, self.size, self.bounds, self.place = reader, size, bounds, place
        self.on_import, self.on_nested, self.on_problem = imported, nested, problem
        self.on_object_array, self.on_array = object_array, array
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.kept, self.protocol, self.frame_end = 0, 0, 0
        self.open_arrays = self.tables = 0

    def run(self) -> Any:
        """Read to STOP; the value on top of the stack. Raises what a reader raises on bytes that are no pickle."""
        bounds = self.bounds
        while True:
            code = self.reader.read(1)
            if not code:
                raise ValueError("it ends before its STOP")
            op = _OPCODES.get(code.decode("latin-1"))
            if op is None:
                raise ValueError(f"opcode {code!r} unknown")
            bounds.opcodes += 1
            bounds.calls += op.name in CALLS
            if bounds.opcodes > bounds.max_opcodes:
                raise LimitReached(f"{self.place} has more opcodes than the limit of {bounds.max_opcodes}")
            if max(len(self.stack), len(self.memo)) > bounds.max_stack:
                raise LimitReached(f"{self.place} needs a stack or memo above the limit of {bounds.max_stack}")
            argument: Any = None
            if op.name in _LINES:
                argument = self._line()
            elif op.name in _SIZED:
                argument = self._sized(op.name)
            elif op.arg is not None:
                argument = op.arg.reader(cast(Any, self.reader))
            if op.name == "STOP":
                if self.open_arrays:
                    self.on_problem(f"{self.place} uses joblib's arrays in a way that joblib does not")
                return self.stack[-1] if self.stack else None
            self._step(op.name, argument)

    def _sized(self, name: str) -> Any:
        """A string, bytes or an integer behind its length; long ones are passed over, not read."""
        width = _SIZED[name]
        size = int.from_bytes(self.reader.read(width), "little", signed=name in ("BINSTRING", "LONG4"))
        begin = self.reader.tell()
        if not 0 <= size <= self.size - begin:
            raise ValueError("an item is longer than the file")
        if "BYTES" in name or name == "BYTEARRAY8":
            if size > 4:
                self.on_nested(begin, size)
        elif size <= (16 if "LONG" in name else _KEPT_TEXT):
            data = self.reader.read(size)
            if "LONG" in name:
                return int.from_bytes(data, "little", signed=True)
            return data.decode("latin-1") if "STRING" in name else data.decode("utf-8", "surrogatepass")
        self.reader.seek(begin + size)
        return OPAQUE

    def _line(self) -> bytes:
        line = self.reader.readline(_MAX_LINE)
        if len(line) == _MAX_LINE:
            raise LimitReached(f"{self.place} has a line above the limit of {_MAX_LINE / 2**20:.0f} MiB")
        if not line.endswith(b"\n"):
            raise ValueError("a line has no end")
        return line[:-1]

    def _step(self, name: str, arg: Any) -> None:
        step = getattr(self, f"_{name.lower()}", None)
        if step is not None:
            step(arg)
        elif name in _PUSHED:
            self.stack.append(_PUSHED[name])
        else:
            self.stack.append(self._value(name, arg))

    def _value(self, name: str, arg: Any) -> Any:
        if name in ("INT", "LONG"):
            return _number(arg)
        if name in ("STRING", "UNICODE"):
            text = codecs.escape_decode(arg.strip()[1:-1])[0].decode("latin-1") if name == "STRING" else ""
            arg = text if name == "STRING" else arg.decode("raw-unicode-escape", "replace")
        if isinstance(arg, str):
            if len(arg) > _KEPT_TEXT:
                return OPAQUE
            self.kept += arg.__sizeof__()
            if self.kept > self.bounds.max_kept:
                raise LimitReached(
                    f"{self.place} has more text than the limit of {self.bounds.max_kept / 2**20:.0f} MiB"
                )
            return arg
        return arg if isinstance(arg, int) and arg.bit_length() < 128 else OPAQUE

    # the stack and the memo

    def _take(self) -> Any:
        return self.stack.pop() if self.stack else OPAQUE

    def _take_mark(self) -> list[Any]:
        items: list[Any] = []
        while self.stack:
            item = self.stack.pop()
            if item is _MARK:
                break
            items.append(item)
        return items[::-1]

    def _pop(self, _: Any) -> None:
        self._take()

    _append = _pop

    def _pop_mark(self, _: Any) -> None:
        self._take_mark()

    _appends = _additems = _pop_mark

    def _mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def _dup(self, _: Any) -> None:
        self._again(self.stack[-1] if self.stack else OPAQUE)

    def _again(self, value: Any) -> None:
        self.open_arrays += value.__class__ is Import and value == _JOBLIB_ARRAY
        self.stack.append(value)

    def _proto(self, arg: Any) -> None:
        self.protocol = arg

    def _readonly_buffer(self, _: Any) -> None:
        """The top of the stack stays as it is."""

    def _frame(self, arg: Any) -> None:
        self.frame_end = self.reader.tell() + arg

    def _get(self, arg: Any) -> None:
        self._again(self.memo.get(_key(arg), OPAQUE))

    _binget = _long_binget = _get

    def _put(self, arg: Any) -> None:
        key = _key(arg)
        if key > max(self.size, _SMALL_MEMO):
            self.on_problem(
                f"{self.place} numbers what it remembers up to {min(key, 2**63)}, for which a reader takes memory"
            )
        self.memo[key] = self.stack[-1] if self.stack else OPAQUE

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1] if self.stack else OPAQUE

    # containers

    def _tuple(self, _: Any) -> None:
        items = self._take_mark()
        self.stack.append(tuple(items) if len(items) <= _KEPT_ITEMS else OPAQUE)

    def _tuple1(self, _: Any) -> None:
        self.stack.append((self._take(),))

    def _tuple2(self, _: Any) -> None:
        last, first = self._take(), self._take()
        self.stack.append((first, last))

    def _tuple3(self, _: Any) -> None:
        last, middle, first = self._take(), self._take(), self._take()
        self.stack.append((first, middle, last))

    def _empty_tuple(self, _: Any) -> None:
        self.stack.append(())

    def _empty_dict(self, _: Any) -> None:
        self.tables += 1
        self.stack.append({} if self.tables <= _KEPT_TABLES else OPAQUE)

    def _list(self, _: Any) -> None:
        self._take_mark()
        self.stack.append(OPAQUE)

    _frozenset = _list

    def _dict(self, _: Any) -> None:
        items = self._take_mark()
        self._empty_dict(None)
        self._store(items)

    def _setitem(self, _: Any) -> None:
        value, key = self._take(), self._take()
        self._store([key, value])

    def _setitems(self, _: Any) -> None:
        self._store(self._take_mark())

    def _store(self, items: list[Any]) -> None:
        table = self.stack[-1] if self.stack else None
        if isinstance(table, dict):
            for key, value in zip(items[::2], items[1::2], strict=False):
                if isinstance(key, str) and (key in table or len(table) < _KEPT_ITEMS):
                    table[key] = value
                else:
                    table[OPAQUE] = None  # it holds more than is kept here

    # imports and calls

    def _global(self, arg: bytes) -> None:
        self._again(self._imported(arg.decode("utf-8", "replace"), self._line().decode("utf-8", "replace")))

    def _stack_global(self, _: Any) -> None:
        name, module = self._take(), self._take()
        self._again(self._imported(module, name))

    def _inst(self, arg: bytes) -> None:
        made = self._imported(arg.decode("utf-8", "replace"), self._line().decode("utf-8", "replace"))
        self.stack.append(Made(made, tuple(self._take_mark()[:_KEPT_ITEMS])))  # joblib never writes its arrays so
        self.open_arrays += made == _JOBLIB_ARRAY

    def _ext1(self, arg: Any) -> None:
        self.stack.append(self._imported("copyreg", f"extension code {arg}"))

    _ext2 = _ext4 = _ext1

    def _imported(self, module: Any, name: Any) -> Import:
        """Record an import; anything but two strings read from the file is a name computed at load time."""
        module = module if isinstance(module, str) else COMPUTED
        name = name if isinstance(name, str) else COMPUTED
        if self.protocol < 3:  # these protocols spell Python 2's names, which Python 3 translates
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.on_import(module, name)
        return Import(f"{module}.{name}")

    def _reduce(self, _: Any) -> None:
        arguments, function = self._take(), self._take()
        self._made(function, arguments)

    _newobj = _reduce

    def _made(self, function: Any, arguments: Any) -> None:
        self.open_arrays -= function.__class__ is Import and function == _JOBLIB_ARRAY
        self.stack.append(Made(function, arguments))

    def _newobj_ex(self, _: Any) -> None:
        self._take()
        self._reduce(None)

    def _obj(self, _: Any) -> None:
        items = self._take_mark()
        self._made(items[0] if items else OPAQUE, tuple(items[1:_KEPT_ITEMS]))

    def _binpersid(self, _: Any) -> None:
        self._take()
        self.stack.append(OPAQUE)

    def _build(self, _: Any) -> None:
        state, target = self._take(), self.stack[-1] if self.stack else OPAQUE
        if isinstance(target, Import):
            self.on_problem(f"{self.place} changes {target} itself, not an object of it")
        if isinstance(target, Made):
            if target.function == _JOBLIB_ARRAY:
                before = target.state if isinstance(target.state, dict) else {}
                state = before | state if isinstance(state, dict) else OPAQUE
                self.stack[-1] = OPAQUE  # joblib puts the array there
                self._array(state)
            target.state = state

    def _array(self, state: Any) -> None:
        """Pass over the bytes of an array that joblib wrote behind its description."""
        table = state if isinstance(state, dict) else {}
        kind, shape = table.get("dtype"), table.get("shape")
        if OPAQUE in table or self.reader.tell() < self.frame_end:
            raise ValueError("an array is described in a way that joblib does not use")
        size = item_size(kind)
        if size is None or not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("the size of an array is not written in the file")
        if size == 0:
            self.on_object_array(self.reader)
            return
        begin = self.reader.tell()
        padding = b""
        if table.get("numpy_array_alignment_bytes") is not None:
            padding = self.reader.read(1)
        count = math.prod(shape) * size + len(padding) + (padding[0] if padding else 0)
        if count > self.size - begin:
            raise ValueError("an array is longer than the file")
        self.on_array(begin, count)
        self.reader.seek(begin + count)


_PUSHED: dict[str, Any] = {
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET", "PERSID", "NEXT_BUFFER"), OPAQUE), "NONE": None,
    "NEWTRUE": True, "NEWFALSE": False, "BINFLOAT": OPAQUE, "FLOAT": OPAQUE,
}  # fmt: skip


def _number(line: bytes) -> Any:
    """An integer as the C reader takes it: in base 8, 10 or 16, up to a zero byte; opaque where it is none."""
    try:
        return int(line.split(b"\0")[0].rstrip(b"L"), 0) if len(line) < 40 else OPAQUE
    except ValueError:
        return OPAQUE


def _key(arg: Any) -> int:
    return arg if isinstance(arg, int) else int(arg.split(b"\0")[0])


def item_size(kind: Any) -> int | None:
    """Bytes of one element of a numpy dtype on the symbolic stack; 0 for objects, None where it cannot be told."""
    if not (isinstance(kind, Made) and kind.function == "numpy.dtype" and isinstance(kind.arguments, tuple)):
        return None
    code = kind.arguments[0] if kind.arguments else None
    found = re.fullmatch(r"([biufcUSVMmO])(\d{0,9})", code) if isinstance(code, str) else None
    if found is None:
        return None
    state = kind.state if isinstance(kind.state, tuple) else ()
    flags = state[7] if len(state) > 7 else 0
    if type(flags) is not int:
        return None
    if found[1] == "O" or flags & 1:
        return 0
    size = int(found[2] or 0) * (4 if found[1] == "U" else 1)
    if found[1] in "USV" and len(state) > 5 and type(state[5]) is int and state[5] > 0:
        size = state[5]
    return size or None
