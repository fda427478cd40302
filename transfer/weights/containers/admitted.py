"""The names that pickles of weights may ask for, and the stand-ins of ours that each of them gets instead.

The unpickler hands out nothing that could be changed or called behind our back: a name becomes a `Call`, which only
`apply` opens, or a plain constant; attributes are set on our own stand-ins alone; what is hashed is small. So a file can
neither run code nor make Python work or grow beyond what its size warrants. `plain` turns the stand-ins into real arrays and
containers.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import IO, Any, ClassVar, Literal

import numpy as np

_NUMBER = re.compile(r"[<>=|]?[biuf][1248]")
_KEYS = str, bytes, int, float, bool, type(None)
_LARGEST_INT = 2**61 - 1
"""Multiples of it all have one hash."""
_MOST_ARGUMENTS = 64
_EMPTY = 64
"""Bytes of an empty container."""
_MOST_PARTS = 10_000
"""Of a tuple that is hashed, those of tuples in it included."""
_LEAST_WORK, _STEP, _ODD_KEY = 1 << 24, 32, 512
"""Work that any file may ask for, in bytes made; what one step of ours comes to, and a key that is no text: only the hashes of
texts cannot be made to collide."""


class NotAdmitted(Exception):
    """The message says what was asked for."""


class Call:
    """Something that a pickle may call."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make


def apply(function: Any, arguments: Any) -> Any:
    if type(function) is not Call or not isinstance(arguments, list | tuple) or len(arguments) > _MOST_ARGUMENTS:
        raise NotAdmitted("a call of what is no class or function, or of too much")
    return function.make(*arguments)


class StandIn:
    """What a pickle gets in place of an object with attributes."""

    def set_state(self, state: Any) -> None:
        raise NotAdmitted("attributes of what has none")

    def made(self) -> np.ndarray:
        raise NotAdmitted("an array that was never filled")


class Items(dict[Any, Any], StandIn):
    """Stands for ``OrderedDict``, whose attributes are PyTorch's notes on a state dict and of no use here."""

    def set_state(self, state: Any) -> None:
        pass


class _Record(Items):
    """Stands for classes that are no more than named values (`_RECORDS`), items or attributes; comes out as a dict."""

    attributes: Any = ()

    def set_state(self, state: Any) -> None:
        self.attributes = state if type(state) is tuple else (state,)  # those of ``__dict__`` and those of slots
        if len(self.attributes) > 2 or not all(isinstance(part, dict | None) for part in self.attributes):
            raise NotAdmitted("attributes that are no names and values")


class _Type(StandIn):
    """Stands for ``numpy.dtype``: numbers only, since object arrays could hold anything."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise NotAdmitted(f"arrays of numpy type {code[:20]!r}" if isinstance(code, str) else "arrays of no type")
        self.dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(StandIn):
    """Stands for ``numpy.ndarray``, whose own way back from a pickle takes sizes and flags on trust."""

    array: np.ndarray | None = None

    def __init__(self, *size: object) -> None:
        if size:
            raise NotAdmitted("a numpy array of a size without content")

    def set_state(self, state: Any) -> None:
        _version, shape, kind, fortran_order, data = state
        self.array = _filled(data, kind, shape, "F" if fortran_order else "C")

    def made(self) -> np.ndarray:
        return super().made() if self.array is None else self.array


def _filled(data: bytes | bytearray, kind: _Type, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    """The bytes must fill the shape exactly."""
    if not isinstance(data, bytes | bytearray) or type(kind) is not _Type:
        raise NotAdmitted("a numpy array without bytes")
    return np.frombuffer(data, kind.dtype).reshape(shape, order=order)


def _complex(*parts: object) -> complex:
    if not all(type(part) in (int, float) for part in parts):
        raise NotAdmitted("a complex number of no numbers")
    return complex(*parts)  # type: ignore[call-overload]


def _attribute(owner: object, name: str) -> None:
    """Stands for ``getattr``, by which old pickles name the methods of a class; only of those that are not real."""
    if owner is not _RECORD:
        raise NotAdmitted("builtins.getattr")


_RECORD = Call(lambda *_: _Record())
# What checkpoints of this field hold beside tensors: arguments, configurations, logs, paths.
_RECORDS = """
    argparse.Namespace types.SimpleNamespace collections.defaultdict typing.Any pathlib.PosixPath pathlib.WindowsPath
    builtins.dict builtins.list builtins.tuple builtins.str builtins.int builtins.float builtins.bool builtins.unicode
    builtins.long
    yacs.config.CfgNode fvcore.common.config.CfgNode detectron2.config.config.CfgNode addict.addict.Dict
    mmcv.utils.config.ConfigDict mmengine.config.config.ConfigDict mmengine.logging.history_buffer.HistoryBuffer
    omegaconf.dictconfig.DictConfig omegaconf.listconfig.ListConfig omegaconf.nodes.AnyNode omegaconf.base.Metadata
    omegaconf.base.ContainerMetadata pytorch_lightning.utilities.parsing.AttributeDict
    lightning_fabric.utilities.data.AttributeDict lightning.fabric.utilities.data.AttributeDict
    pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint
""".split()

ADMITTED: dict[str, Any] = dict.fromkeys(_RECORDS, _RECORD) | {
    "builtins.getattr": Call(_attribute),
    "builtins.complex": Call(_complex),
    "numpy.dtype": Call(_Type),
    "numpy.ndarray": Call(_Array),
}
_WORK = {
    "_codecs.encode": "_bytes",
    "builtins.bytearray": "_bytes",
    "builtins.bytes": "_bytes",
    "builtins.set": "_set",
    "collections.OrderedDict": "_items",
    "collections.Counter": "_items",
}
"""Names whose calls make something as large as what they are given, and so count as work."""
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    ADMITTED[f"{_core}.multiarray._reconstruct"] = Call(
        lambda *_: _Array()
    )  # shape, type and content follow as the state
    _WORK |= {f"{_core}.multiarray.scalar": "_scalar", f"{_core}.numeric._frombuffer": "_frombuffer"}


_Python: Any = pickle._Unpickler


class Unpickler(_Python):
    """Reads one pickle out of a file of ``size`` bytes; text of Python 2 as latin1.

    Python's own unpickler in Python: the quick one cannot be told which objects may be called, changed and hashed.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Python.dispatch)

    def __init__(self, stream: IO[bytes], size: int) -> None:
        super().__init__(stream, encoding="latin1")
        self._left = 2 * size + _LEAST_WORK

    def find_class(self, module: str, name: str) -> Any:
        full = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if full in _WORK:
            return Call(getattr(self, _WORK[full]))
        if full not in ADMITTED:
            raise NotAdmitted(f"{module}.{name}")
        return ADMITTED[full]

    def persistent_load(self, pid: object) -> Any:
        raise NotAdmitted("an outside object")

    def _charge(self, work: int) -> None:
        self._left -= work
        if self._left < 0:
            raise ValueError("more work than its size warrants")

    def _key(self, key: Any) -> Any:
        """``key``, if it can be hashed and compared in little time."""
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
        """Bytes, as pickles of protocol 2 spell them."""
        if not isinstance(data, str | bytes | bytearray):
            raise NotAdmitted("a bytearray of a size without content")
        self._charge(len(data))
        return data.encode("latin1") if isinstance(data, str) else bytes(data)

    def _frombuffer(self, data: Any, kind: _Type, shape: Any, order: Literal["C", "F"]) -> _Array:
        made = _Array()
        made.set_state((None, shape, kind, order == "F", data))
        return made

    def _scalar(self, kind: _Type, data: Any) -> Any:
        return _filled(self._bytes(data), kind, (), "C").item()

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
        arguments = self.stack.pop()
        self.stack[-1] = apply(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        if self.stack.pop():
            raise NotAdmitted("a call with named arguments")
        self.load_reduce()

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], StandIn):
            raise NotAdmitted("attributes of what has none")
        for part in state if type(state) is tuple and len(state) <= 2 else [state]:
            self._charge(_STEP * len(part) if isinstance(part, dict) else 0)
        if isinstance(self.stack[-1], _Array) and isinstance(state, tuple) and isinstance(state[-1], str):
            state = (*state[:-1], self._bytes(state[-1]))  # bytes of Python 2
        self.stack[-1].set_state(state)

    def _fill(self, container: Any, entries: list[Any]) -> None:
        if not isinstance(container, dict):
            raise NotAdmitted("items of what is no dict")
        for key, value in zip(entries[::2], entries[1::2], strict=True):
            container[self._key(key)] = value

    def load_dict(self) -> None:
        entries = self.pop_mark()
        self.append({})
        self._fill(self.stack[-1], entries)

    def load_setitem(self) -> None:
        entries = [self.stack.pop(-2), self.stack.pop()]
        self._fill(self.stack[-1], entries)

    def load_setitems(self) -> None:
        entries = self.pop_mark()
        self._fill(self.stack[-1], entries)

    def load_additems(self) -> None:
        members = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise NotAdmitted("members of what is no set")
        self.stack[-1].update(map(self._key, members))

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, entries: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise NotAdmitted("entries of what is no list")
        self.stack[-1].extend(entries)

    def load_bytearray8(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        self._charge(length)  # before there is room made for what may not be there
        self.append(bytearray(self.read(length)))

    def load_container(self, opcode: bytes) -> None:
        """Empty ones take the more room, the shorter they are written."""
        self._charge(_EMPTY)
        _Python.dispatch[opcode[0]](self)

    def load_refused(self) -> None:
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


def plain(value: Any, done: dict[int, Any]) -> Any:
    """``value`` with real arrays in place of the stand-ins, however deep.

    ``done`` holds what was met so far: shared containers are walked once, a container within itself is refused.
    """
    if isinstance(value, Call):
        return None
    if not isinstance(value, dict | list | tuple | StandIn):
        return value
    if id(value) in done:
        if done[id(value)] is _OPEN:
            raise NotAdmitted("a container that holds itself")
        return done[id(value)]
    done[id(value)] = _OPEN
    result: Any
    if isinstance(value, dict):
        parts = [*(part or {} for part in value.attributes), value] if isinstance(value, _Record) else [value]
        result = {key: plain(entry, done) for part in parts for key, entry in part.items()}
    elif isinstance(value, StandIn):
        result = value.made()
    else:
        result = [plain(entry, done) for entry in value]
        result = result if isinstance(value, list) else tuple(result)
    done[id(value)] = result
    return result


_OPEN = object()
