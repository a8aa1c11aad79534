"""The pickled part of a checkpoint, read without executing code and within limits.

Pickles can call any function. This reader knows only what checkpoints consist of: numbers, texts, lists, tuples,
dictionaries, NumPy scalars (the original implementation stored metrics as such) and dense tensors. It supports
pickle protocol 2, with which `torch.save` writes.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import torch

from mlperf.training.checkpoint_values import (
    GLOBALS,
    OTHER_TENSORS,
    DamagedPickle,
    Global,
    NumpyType,
    UnsafePickle,
    set_item,
)
from mlperf.util.printable import shown_name

# Far beyond any checkpoint (a benchmark model needs 4,000 operations), and few enough for any machine.
_MAX_OPERATIONS = 1_000_000
_MAX_VALUES = 1_000_000
_MAX_DEPTH = 30
MAX_PICKLE_BYTES = 64 << 20
# What Python and PyTorch raise when operations have other operands than they need.
_DAMAGE = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError, struct.error)


class Storages(Protocol):
    """Source of the elements of tensors."""

    def __call__(self, key: str, dtype: torch.dtype, elements: int) -> torch.Tensor:
        """Return the elements that are stored as `key`, one-dimensional. DamagedPickle if there are others."""
        ...


def read_pickle(content: memoryview, storages: Storages) -> tuple[Any, int]:
    """Return the object that is pickled at the start of `content`, and the number of bytes of its pickle.

    UnsafePickle if it refers to anything but the types of a checkpoint; DamagedPickle if it is damaged or exceeds
    the limits.
    """
    reader = _Reader(content, storages)
    try:
        value = reader.read()
        _check_extent(value)
    except _DAMAGE as error:
        raise DamagedPickle(f"its pickle is damaged: {type(error).__name__}") from None
    return value, reader.position


class _Reader:
    """Machine that executes the operations of a pickle. Its stack consists of parts that begin at marks."""

    def __init__(self, content: memoryview, storages: Storages) -> None:
        self._content = content
        self._storages = storages
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self.position = 0

    def read(self) -> Any:
        for _ in range(_MAX_OPERATIONS):
            operation = self._take(1)
            if operation == b".":
                if len(self._stack) != 1 or self._marked:
                    raise DamagedPickle("its pickle is damaged: the stack is not empty at the end")
                return self._stack.pop()
            if operation in _CONSTANTS:
                self._stack.append(_CONSTANTS[operation]())
            elif operation in _NUMBERS:
                (number,) = self._unpack(_NUMBERS[operation])
                self._stack.append(number)
            elif operation in _OPERATIONS:
                _OPERATIONS[operation](self)
            else:
                raise DamagedPickle(f"its pickle has the operation {operation!r}, which torch.save does not write")
        raise DamagedPickle(f"its pickle has more than {_MAX_OPERATIONS} operations")

    def _take(self, size: int) -> bytes:
        if size > len(self._content) - self.position:
            raise DamagedPickle("its pickle is truncated")
        self.position += size
        return bytes(self._content[self.position - size : self.position])

    def _unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self._take(layout.size))

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _protocol(self) -> None:
        if self._take(1) != b"\2":
            raise DamagedPickle("its pickle has another protocol than 2")

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _global(self) -> None:
        names = []
        for _ in range(2):
            line = bytes(self._content[self.position : self.position + 200])
            name, newline, _ = line.partition(b"\n")
            if not newline:
                raise DamagedPickle("its pickle is damaged: a name does not end")
            self.position += len(name) + 1
            names.append(name.decode("utf-8", "replace"))
        full = ".".join(names)
        if full not in GLOBALS:
            other = OTHER_TENSORS.get(full)
            raise UnsafePickle(
                f"it contains {other}; only dense tensors are allowed"
                if other
                else f"it references {shown_name(full)}, which could execute code when loaded"
            )
        self._stack.append(GLOBALS[full])

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Global) or function.call is None or type(arguments) is not tuple:
            raise DamagedPickle("its pickle is damaged: a call of something that is not a function")
        self._stack.append(function.call(*arguments))

    def _build(self) -> None:
        state, instance = self._stack.pop(), self._stack[-1]
        if isinstance(instance, NumpyType):
            if state[1] not in ("<", "|", "="):
                raise DamagedPickle("a NumPy scalar has another byte order")
        elif not isinstance(instance, OrderedDict):  # its attributes are not used
            raise DamagedPickle(f"its pickle is damaged: attributes of {type(instance).__name__}")

    def _persistent(self) -> None:
        kind, storage_type, key, location, elements, *view = self._stack.pop()
        if kind != "storage" or type(key) is not str or type(elements) is not int or any(view):
            raise DamagedPickle("the storage of a tensor is damaged")
        if not isinstance(storage_type, Global) or storage_type.value is None or type(location) is not str:
            raise DamagedPickle("the storage of a tensor is damaged")
        if location == "meta":
            raise UnsafePickle(
                "it contains a tensor without elements (device meta); only dense tensors are allowed"
            )
        self._stack.append(self._storages(key, storage_type.value, elements))

    def _append(self) -> None:
        value = self._stack.pop()
        self._list().append(value)

    def _appends(self) -> None:
        values = self._pop_mark()
        self._list().extend(values)

    def _list(self) -> list[Any]:
        found = self._stack[-1]
        if type(found) is not list:
            raise DamagedPickle("its pickle is damaged: an item of something that is not a list")
        return found

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        set_item(self._stack[-1], key, value)

    def _set_items(self) -> None:
        items = self._pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            set_item(self._stack[-1], key, value)

    def _tuple(self) -> None:
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def _tuple_of(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        if len(items) != count:
            raise DamagedPickle("its pickle is damaged: a tuple is too short")
        self._stack[-count:] = [items]

    def _text(self) -> None:
        (size,) = self._unpack(struct.Struct("<I"))
        self._stack.append(str(self._take(size), "utf-8", "surrogatepass"))

    def _short_bytes(self) -> None:  # text of Python 2
        self._stack.append(self._take(self._take(1)[0]).decode())

    def _long(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))

    def _get(self, layout: struct.Struct) -> None:
        (index,) = self._unpack(layout)
        self._stack.append(self._memo[index])

    def _put(self, layout: struct.Struct) -> None:
        (index,) = self._unpack(layout)
        self._memo[index] = self._stack[-1]


_CONSTANTS: dict[bytes, Callable[[], Any]] = {
    b"N": lambda: None,
    b"\x88": lambda: True,
    b"\x89": lambda: False,
    b")": tuple,
    b"]": list,
    b"}": dict,
}
_BYTE, _INDEX = struct.Struct("<B"), struct.Struct("<I")
_NUMBERS = {b"J": struct.Struct("<i"), b"K": _BYTE, b"M": struct.Struct("<H"), b"G": struct.Struct(">d")}
_OPERATIONS: dict[bytes, Callable[[_Reader], None]] = {
    b"\x80": _Reader._protocol,
    b"(": _Reader._mark,
    b"c": _Reader._global,
    b"R": _Reader._reduce,
    b"b": _Reader._build,
    b"Q": _Reader._persistent,
    b"a": _Reader._append,
    b"e": _Reader._appends,
    b"s": _Reader._set_item,
    b"u": _Reader._set_items,
    b"t": _Reader._tuple,
    b"\x85": lambda reader: reader._tuple_of(1),
    b"\x86": lambda reader: reader._tuple_of(2),
    b"\x87": lambda reader: reader._tuple_of(3),
    b"X": _Reader._text,
    b"U": _Reader._short_bytes,
    b"\x8a": _Reader._long,
    b"h": lambda reader: reader._get(_BYTE),
    b"j": lambda reader: reader._get(_INDEX),
    b"q": lambda reader: reader._put(_BYTE),
    b"r": lambda reader: reader._put(_INDEX),
}


def _check_extent(root: Any) -> None:
    """Raise DamagedPickle if containers contain themselves, are nested deeply, or share too many values.

    The extent of a value is the number of values in it, where a shared value counts each time.
    """
    depth: dict[int, int] = {}
    extent: dict[int, int] = {}
    open_values: set[int] = set()
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        value, complete = stack.pop()
        children = _children(value)
        if isinstance(value, Global | NumpyType):
            raise DamagedPickle("its pickle is damaged: a type instead of a value")
        if complete:
            open_values.discard(id(value))
            depth[id(value)] = 1 + max((depth[id(child)] for child in children), default=0)
            extent[id(value)] = 1 + sum(extent[id(child)] for child in children)
            if depth[id(value)] > _MAX_DEPTH:
                raise DamagedPickle(f"its values are nested more than {_MAX_DEPTH} deep")
            if extent[id(value)] > _MAX_VALUES:
                raise DamagedPickle(f"it has more than {_MAX_VALUES} values")
        elif id(value) in open_values:
            raise DamagedPickle("its pickle is damaged: a value contains itself")
        elif id(value) not in depth:
            open_values.add(id(value))
            stack.append((value, True))
            stack += [(child, False) for child in children]


def _children(value: Any) -> list[Any]:
    """Return the values in a container."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple) else []
