"""Names that a pickle of weights may use, and the stand-in of ours that each of them becomes.

A name becomes a `Call`, which only `apply` can execute, or a plain constant. `without_stand_ins` turns the stand-ins into
real arrays and containers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

_NUMBER = re.compile(r"[<>=|]?[biuf][1248]")
_MOST_ARGUMENTS = 64


class NotAdmitted(Exception):
    """Raised if a pickle uses a name or feature that is not allowed; the message describes it."""


class Call:
    """Something that a pickle may call."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make


def apply(function: Any, arguments: Any) -> Any:
    """Execute a `Call`; raise `NotAdmitted` for anything else."""
    if type(function) is not Call or not isinstance(arguments, list | tuple) or len(arguments) > _MOST_ARGUMENTS:
        raise NotAdmitted("a call of what is no class or function, or of too much")
    return function.make(*arguments)


class StandIn:
    """Replacement for an object with attributes in a pickle."""

    def set_state(self, state: Any) -> None:
        """Set the pickled attributes."""
        raise NotAdmitted("attributes of what has none")

    def made(self) -> np.ndarray:
        """Return the array that this object stands for."""
        raise NotAdmitted("an array that was never filled")


class Items(dict[Any, Any], StandIn):
    """Stands for ``OrderedDict``. Its attributes are metadata of PyTorch's state dicts, which are not needed."""

    def set_state(self, state: Any) -> None:
        """Ignore the attributes."""
        pass


class _Record(Items):
    """Stands for classes that only hold items or attributes (`_RECORDS`), and becomes a dict."""

    attributes: Any = ()

    def set_state(self, state: Any) -> None:
        self.attributes = state if type(state) is tuple else (state,)  # those of ``__dict__`` and those of slots
        if len(self.attributes) > 2 or not all(isinstance(part, dict | None) for part in self.attributes):
            raise NotAdmitted("attributes that are no names and values")


class NumpyType(StandIn):
    """Stands for ``numpy.dtype``: numbers only, since object arrays could hold anything."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise NotAdmitted(f"arrays of numpy type {code[:20]!r}" if isinstance(code, str) else "arrays of no type")
        self.dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        """Set the byte order."""
        self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray(StandIn):
    """Stands for ``numpy.ndarray``, which does not check sizes and flags when it is unpickled."""

    array: np.ndarray | None = None

    def __init__(self, *size: object) -> None:
        if size:
            raise NotAdmitted("a numpy array of a size without content")

    def set_state(self, state: Any) -> None:
        """Set shape, type and content."""
        _version, shape, kind, fortran_order, data = state
        self.array = filled(data, kind, shape, "F" if fortran_order else "C")

    def made(self) -> np.ndarray:
        """Return the array."""
        return super().made() if self.array is None else self.array


def filled(data: bytes | bytearray, kind: NumpyType, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    """Return the array with the bytes ``data``, which must fill the shape exactly."""
    if not isinstance(data, bytes | bytearray) or type(kind) is not NumpyType:
        raise NotAdmitted("a numpy array without bytes")
    return np.frombuffer(data, kind.dtype).reshape(shape, order=order)


def _complex(*parts: object) -> complex:
    if not all(type(part) in (int, float) for part in parts):
        raise NotAdmitted("a complex number of no numbers")
    return complex(*parts)  # type: ignore[call-overload]


def _attribute(owner: object, name: str) -> None:
    """Stands for ``getattr``, with which old pickles name methods; allowed for stand-ins only."""
    if owner is not _RECORD:
        raise NotAdmitted("builtins.getattr")


_RECORD = Call(lambda *_: _Record())
# Other objects in common checkpoints: arguments, configs, logs, paths.
_RECORDS = """
    argparse.Namespace types.SimpleNamespace collections.defaultdict typing.Any pathlib.PosixPath pathlib.WindowsPath
    pathlib._local.PosixPath pathlib._local.WindowsPath
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
    "numpy.dtype": Call(NumpyType),
    "numpy.ndarray": Call(NumpyArray),
}
WORK = {
    "_codecs.encode": "_bytes",
    "builtins.bytearray": "_bytes",
    "builtins.bytes": "_bytes",
    "builtins.set": "_set",
    "collections.OrderedDict": "_items",
    "collections.Counter": "_items",
}
"""Names whose calls create something as large as their arguments, and so count as work."""
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    # shape, type and content follow as the state
    ADMITTED[f"{_core}.multiarray._reconstruct"] = Call(lambda *_: NumpyArray())
    WORK |= {f"{_core}.multiarray.scalar": "_scalar", f"{_core}.numeric._frombuffer": "_frombuffer"}


def without_stand_ins(value: Any, done: dict[int, Any]) -> Any:
    """Return ``value`` with real arrays in place of the stand-ins, at any depth.

    ``done`` holds the containers seen so far: a shared container is converted once, one that contains itself is refused.
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
        result = {key: without_stand_ins(entry, done) for part in parts for key, entry in part.items()}
    elif isinstance(value, StandIn):
        result = value.made()
    else:
        result = [without_stand_ins(entry, done) for entry in value]
        result = result if isinstance(value, list) else tuple(result)
    done[id(value)] = result
    return result


_OPEN = object()
