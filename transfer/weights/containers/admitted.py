"""The names that pickles of weights may ask for, and the stand-ins of ours that each of them gets instead.

`plain` turns what a pickle made of them into real arrays and plain containers.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from collections import OrderedDict
from typing import IO, Any, Literal

import numpy as np

_NUMBER = re.compile(r"[<>=|]?[biuf][1248]")
_LARGEST_TUPLE = 10_000
"""Parts of a tuple, those of tuples in it included: Python hashes them one within the other, without memory or bound."""


_LONG = 1_000
_MOST_AGAIN = 1 << 26
"""Characters in texts of more than `_LONG` that are used again. From each use something as long could be made."""


class NotAdmitted(Exception):
    """The message says what was asked for."""


class StandIn:
    """Stands for an array until `plain` asks for it."""

    def made(self) -> np.ndarray:
        raise NotImplementedError


class _Record:
    """Stands for classes that are no more than named values (`_RECORDS`): their instances come out as plain dicts."""

    def __new__(cls, *_: object) -> Any:
        return OrderedDict()  # takes what is set as items and, in its ``__dict__``, what is set as attributes


def _attribute(owner: object, name: str) -> None:
    """Stands for ``getattr``, by which old pickles name the methods of a class; only of those that are not real."""
    if owner is not _Record:
        raise NotAdmitted("builtins.getattr")


def _scalar(kind: _Type, data: bytes | str) -> Any:
    """A single number of numpy's."""
    return _frombuffer(data, kind, (), "C").array.item()


class _Type:
    """Stands for ``numpy.dtype``: numbers only, since object arrays could hold anything."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise NotAdmitted(f"arrays of numpy type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(StandIn):
    """Stands for ``numpy.ndarray``, whose own way back from a pickle takes sizes and flags on trust."""

    array: np.ndarray

    def __init__(self, *size: object) -> None:
        if size:
            raise NotAdmitted("a numpy array of a size without content")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, kind, fortran_order, data = state
        self.array = _frombuffer(data, kind, shape, "F" if fortran_order else "C").array

    def made(self) -> np.ndarray:
        return self.array


def _reconstruct(*_: object) -> _Array:
    """What numpy's arrays begin with in a pickle; shape, type and content follow as the state."""
    return _Array()


def _frombuffer(data: bytes | str, kind: _Type, shape: tuple[int, ...], order: Literal["C", "F"]) -> _Array:
    """What they begin and end with in a pickle of protocol 5. The bytes must fill the shape exactly."""
    if isinstance(data, str):  # bytes of Python 2
        data = data.encode("latin1")
    made = _Array()
    made.array = np.frombuffer(data, kind.dtype).reshape(shape, order=order)
    return made


def _encode(text: str, _encoding: str) -> bytes:
    """How bytes are spelt in pickles of protocol 2."""
    return text.encode("latin1")


def _bytes(*data: object) -> bytes:
    """Stands for ``bytearray``, of which a length alone would make one."""
    if len(data) != 1 or not isinstance(data[0], bytes):
        raise NotAdmitted("a bytearray of a size without content")
    return data[0]


# What checkpoints of this field hold beside tensors: arguments, configurations, logs, paths.
_RECORDS = """
    argparse.Namespace types.SimpleNamespace collections.defaultdict typing.Any pathlib.PosixPath pathlib.WindowsPath
    builtins.dict builtins.list builtins.tuple builtins.str builtins.int builtins.float builtins.bool
    yacs.config.CfgNode fvcore.common.config.CfgNode detectron2.config.config.CfgNode addict.addict.Dict
    mmcv.utils.config.ConfigDict mmengine.config.config.ConfigDict mmengine.logging.history_buffer.HistoryBuffer
    omegaconf.dictconfig.DictConfig omegaconf.listconfig.ListConfig omegaconf.nodes.AnyNode omegaconf.base.Metadata
    omegaconf.base.ContainerMetadata pytorch_lightning.utilities.parsing.AttributeDict
    lightning_fabric.utilities.data.AttributeDict lightning.fabric.utilities.data.AttributeDict
    pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint
""".split()

ADMITTED: dict[str, Any] = dict.fromkeys(_RECORDS, _Record) | {
    "builtins.getattr": _attribute,
    "builtins.set": set,
    "builtins.complex": complex,
    "builtins.bytearray": _bytes,
    "collections.Counter": OrderedDict,
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
    "numpy.dtype": _Type,
    "numpy.ndarray": _Array,
}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    ADMITTED[f"{_core}.multiarray._reconstruct"] = _reconstruct
    ADMITTED[f"{_core}.multiarray.scalar"] = _scalar
    ADMITTED[f"{_core}.numeric._frombuffer"] = _frombuffer


class Unpickler(pickle.Unpickler):
    """Reads one pickle; text of Python 2 as latin1."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)
        try:
            return ADMITTED[f"{module}.{name}"]
        except KeyError:
            raise NotAdmitted(f"{module}.{name}") from None

    def persistent_load(self, pid: object) -> Any:
        raise NotAdmitted(f"an outside object ({pid!r})")


def plain(value: Any, done: dict[int, Any]) -> Any:
    """``value`` with real arrays of native byte order in place of the stand-ins, however deep.

    ``done`` holds what was met so far: shared containers are walked once, a container within itself is refused.
    """
    if not isinstance(value, dict | list | tuple | StandIn):
        return None if value is _Record else value
    if id(value) in done:
        if done[id(value)] is _OPEN:
            raise NotAdmitted("a container that holds itself")
        return done[id(value)]
    done[id(value)] = _OPEN
    result: Any
    if isinstance(value, StandIn):
        array = value.made()
        result = array.astype(array.dtype.newbyteorder("="), copy=False)
    elif isinstance(value, dict):
        items = {**getattr(value, "__dict__", {}), **value}
        result = {key: plain(entry, done) for key, entry in items.items()}
    else:
        result = [plain(entry, done) for entry in value]
        result = result if isinstance(value, list) else tuple(result)
    done[id(value)] = result
    return result


_OPEN = object()


def scan(stream: Any) -> None:
    """Walk one pickle without obeying it, and refuse what would eat memory, time or the stack before any name is met."""
    stack: list[tuple[int, int]] = []  # how many parts each object has (all but tuples one), and how long a text it is
    marks: list[int] = []
    memo: dict[Any, tuple[int, int]] = {}
    again = 0
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        name = opcode.name
        if "PUT" in name or name == "MEMOIZE":
            place = len(memo) if argument is None else argument
            if place > number:
                raise ValueError("a memory larger than the content")
            memo[place] = stack[-1]
        elif "GET" in name or name == "DUP":
            stack.append(stack[-1] if name == "DUP" else memo[argument])
            again += stack[-1][1]
            if again > _MOST_AGAIN:
                raise ValueError("the same long text again and again")
        elif name == "MARK":
            marks.append(len(stack))
        else:
            before = opcode.stack_before
            if pickletools.markobject in before:
                start = marks.pop() - before.index(pickletools.markobject)
            else:
                start = len(stack) - len(before)
            taken = stack[start:]
            del stack[start:]
            size = 1 + sum(parts for parts, _ in taken) if "TUPLE" in name else 1
            if size > _LARGEST_TUPLE:
                raise ValueError(f"a tuple of more than {_LARGEST_TUPLE} parts")
            length = len(argument) if isinstance(argument, str | bytes) else 0
            stack += [(size, length if length > _LONG else 0)] * len(opcode.stack_after)
