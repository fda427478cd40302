"""Read one pickle from an untrusted file.

Only the objects of `admitted` can be used, attributes are set only on our own stand-ins, and only small objects are hashed.
So a file can neither run code nor use much more time or memory than its size justifies.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from typing import IO, Any, ClassVar, Literal

from transfer.weights.containers.admitted import (
    ADMITTED,
    WORK,
    Call,
    Items,
    NotAdmitted,
    NumpyArray,
    NumpyType,
    StandIn,
    apply,
    filled,
)

_KEYS = str, bytes, int, float, bool, type(None)
_LARGEST_INT = 2**61 - 1
"""All multiples of this number have the same hash."""
_EMPTY = 64
"""Size of an empty container in bytes."""
_MOST_PARTS = 10_000
"""Largest number of elements of a tuple that is hashed, including those of nested tuples."""
_LEAST_WORK, _STEP, _ODD_KEY = 1 << 24, 32, 512
"""Work that any file may cause, in bytes created; work of one step; work of a key that is not a string (only the hashes of
strings cannot be made to collide)."""

_Python: Any = pickle._Unpickler


class Unpickler(_Python):
    """Read one pickle from a file of ``size`` bytes; text of Python 2 is decoded as latin1.

    This extends the Python version of Python's unpickler. In the C version it cannot be controlled which objects are called,
    changed and hashed.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Python.dispatch)

    def __init__(self, stream: IO[bytes], size: int) -> None:
        super().__init__(stream, encoding="latin1")
        self._left = 2 * size + _LEAST_WORK

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name; raise `NotAdmitted` if there is none."""
        full = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if full in WORK:
            return Call(getattr(self, WORK[full]))
        if full not in ADMITTED:
            raise NotAdmitted(f"{module}.{name}")
        return ADMITTED[full]

    def persistent_load(self, pid: object) -> Any:
        """Refuse objects outside the pickle."""
        raise NotAdmitted("an outside object")

    def _charge(self, work: int) -> None:
        self._left -= work
        if self._left < 0:
            raise ValueError("more work than its size warrants")

    def _key(self, key: Any) -> Any:
        """Return ``key`` if it can be hashed and compared quickly."""
        if type(key) is str:
            self._charge(len(key))
            return key
        parts, count, letters = [key], 1, 0
        while parts:
            part = parts.pop()
            if type(part) is tuple and (count := count + len(part)) <= _MOST_PARTS:
                parts += part
            elif type(part) not in _KEYS or (type(part) is int and abs(part) >= _LARGEST_INT):
                raise ValueError("a key that is neither text nor a number nor a short tuple of those")
            letters += len(part) if isinstance(part, str | bytes) else 0
        self._charge(_ODD_KEY + _STEP * count + letters)
        return key

    def _bytes(self, data: Any = b"", *_encoding: Any) -> bytes:
        """Return bytes from their form in pickles of protocol 2."""
        if not isinstance(data, str | bytes | bytearray):
            raise NotAdmitted("a bytearray of a size without content")
        self._charge(len(data))
        return data.encode("latin1") if isinstance(data, str) else bytes(data)

    def _frombuffer(self, data: Any, kind: NumpyType, shape: Any, order: Literal["C", "F"]) -> NumpyArray:
        made = NumpyArray()
        made.set_state((None, shape, kind, order == "F", data))
        return made

    def _scalar(self, kind: NumpyType, data: Any) -> Any:
        return filled(self._bytes(data), kind, (), "C").item()

    def _set(self, members: Any = ()) -> set[Any]:
        self._charge(_STEP * len(members))
        return {self._key(member) for member in members}

    def _items(self, pairs: Any = ()) -> Items:
        items = Items()
        self._charge(_STEP * len(pairs))
        for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
            items[self._key(key)] = value
        return items

    def _instantiate(self, function: Any, arguments: Any) -> None:
        self.append(apply(function, arguments))

    def load_reduce(self) -> None:
        """Handle REDUCE and NEWOBJ: call a stand-in."""
        arguments = self.stack.pop()
        self.stack[-1] = apply(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        """Handle NEWOBJ_EX: call a stand-in; named arguments are refused."""
        if self.stack.pop():
            raise NotAdmitted("a call with named arguments")
        self.load_reduce()

    def load_build(self) -> None:
        """Handle BUILD: set the attributes of a stand-in."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], StandIn):
            raise NotAdmitted("attributes of what has none")
        for part in state if type(state) is tuple and len(state) <= 2 else [state]:
            self._charge(_STEP * len(part) if isinstance(part, dict) else 0)
        if isinstance(self.stack[-1], NumpyArray) and isinstance(state, tuple) and isinstance(state[-1], str):
            state = (*state[:-1], self._bytes(state[-1]))  # bytes of Python 2
        self.stack[-1].set_state(state)

    def _fill(self, container: Any, entries: list[Any]) -> None:
        if not isinstance(container, dict):
            raise NotAdmitted("items of what is no dict")
        for key, value in zip(entries[::2], entries[1::2], strict=True):
            container[self._key(key)] = value

    def load_dict(self) -> None:
        """Handle DICT: create a dict with entries."""
        entries = self.pop_mark()
        self.append({})
        self._fill(self.stack[-1], entries)

    def load_setitem(self) -> None:
        """Handle SETITEM: add one entry to a dict."""
        entries = [self.stack.pop(-2), self.stack.pop()]
        self._fill(self.stack[-1], entries)

    def load_setitems(self) -> None:
        """Handle SETITEMS: add entries to a dict."""
        entries = self.pop_mark()
        self._fill(self.stack[-1], entries)

    def load_additems(self) -> None:
        """Handle ADDITEMS: add members to a set."""
        members = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise NotAdmitted("members of what is no set")
        self.stack[-1].update(map(self._key, members))

    def load_append(self) -> None:
        """Handle APPEND: add one entry to a list."""
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        """Handle APPENDS: add entries to a list."""
        self._extend(self.pop_mark())

    def _extend(self, entries: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise NotAdmitted("entries of what is no list")
        self.stack[-1].extend(entries)

    def load_bytearray8(self) -> None:
        """Handle BYTEARRAY8: read a bytearray."""
        length = int.from_bytes(self.read(8), "little")
        self._charge(length)  # before memory is allocated for bytes that may be missing
        self.append(bytearray(self.read(length)))

    def load_container(self, opcode: bytes) -> None:
        """Handle opcodes of one byte that create an empty container, and count its size as work."""
        self._charge(_EMPTY)
        _Python.dispatch[opcode[0]](self)

    def load_refused(self) -> None:
        """Refuse opcodes that are not allowed."""
        raise NotAdmitted("frozen sets or extensions of pickle")

    dispatch |= dict.fromkeys((op[0] for op in (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.FROZENSET)), load_refused)
    for _opcode in (pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_SET, pickle.MARK):
        dispatch[_opcode[0]] = partial(load_container, opcode=_opcode)
    dispatch |= {
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_reduce,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.BUILD[0]: load_build,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.ADDITEMS[0]: load_additems,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
    }
