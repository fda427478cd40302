"""Inert stand-ins for everything that a pickle may name, so that reading a file runs nothing of it.

Training scripts leave objects of any class beside the weights: arguments, configurations, partial functions, enums. Each
becomes a `Record` of its arguments and attributes, whatever its class does. Numbers, arrays and plain containers become what
they are. A name that acts on the machine is refused at once, and so is the call of an unknown function.
"""

from __future__ import annotations

import builtins
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

Kind = Literal["object", "dict", "list"]


class NotAdmitted(Exception):
    """Raised if a pickle asks for something that acts on the machine; the message names it."""


class Record:
    """Stands for an object of any class: its arguments, attributes and items, and nothing that can be called."""

    name: ClassVar[str] = ""
    kind: ClassVar[Kind] = "object"
    asked: ClassVar[list[str]]
    """Names of all classes of which a file holds objects, in the order of their first use."""
    entries: dict[Any, Any]

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        """Return a record; for a class that is filled like a dict or a list, one of these."""
        if _is_unknown_function(cls.name):
            raise NotAdmitted(cls.name)
        if cls.name not in cls.asked:
            cls.asked.append(cls.name)
        if cls.kind != "object":
            first = arguments[0] if arguments else None
            return OrderedDict(first if isinstance(first, dict) else {}) if cls.kind == "dict" else []
        made = object.__new__(cls)
        made.entries = {str(i): value for i, value in enumerate(arguments)} | named
        return made

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)  # attributes of ``__dict__``, and those of slots
        for part in parts:
            self.entries.update(part if isinstance(part, dict) else {"state": part} if part is not None else {})

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def extend(self, values: list[Any]) -> None:
        """Take the entries of a class that is filled like a list."""
        self.entries.setdefault("items", []).extend(values)


def entries(value: Any) -> Mapping[Any, Any] | None:
    """Return the entries of a container or a record, or None if ``value`` is neither."""
    return value.entries if isinstance(value, Record) else value if isinstance(value, dict) else None


_MACHINE = frozenset(
    """os posix nt sys subprocess socket ctypes _ctypes code codeop importlib runpy pty shutil multiprocessing threading
    _thread asyncio webbrowser urllib http ftplib smtplib telnetlib pickle _pickle cloudpickle marshal shelve tempfile pdb bdb
    timeit pip signal atexit gc inspect zipimport pkgutil concurrent sched""".split()
)
"""Packages that act on the machine. Nothing of them is ever called here; a file that names them is not an honest one."""
_REFUSED = {f"types.{name}" for name in ("FunctionType", "CodeType", "LambdaType", "MethodType")} | {
    f"builtins.{name}" for name in ("eval", "exec", "compile", "open", "__import__", "breakpoint", "input", "globals")
}
_HARMLESS = """functools.partial datetime.datetime datetime.date datetime.time datetime.timedelta datetime.timezone
    collections.defaultdict collections.deque copyreg._reconstructor copyreg.__newobj__ copyreg.__newobj_ex__ re._compile
    numpy.random.__RandomState_ctor numpy.random._pickle.__randomstate_ctor numpy.random._pickle.__generator_ctor
    numpy.random._pickle.__bit_generator_ctor torch.device torch.finfo torch.iinfo torch.Generator torch._C.Generator
    uuid.UUID types.SimpleNamespace itertools.count itertools.chain itertools.repeat
    operator.attrgetter operator.itemgetter""".split()
_FILLED_LIKE: dict[str, Kind] = dict.fromkeys(
    """collections.defaultdict addict.addict.Dict addict.Dict mmengine.config.config.ConfigDict mmcv.utils.config.ConfigDict
    yacs.config.CfgNode fvcore.common.config.CfgNode detectron2.config.config.CfgNode easydict.EasyDict munch.Munch
    pytorch_lightning.utilities.parsing.AttributeDict lightning_fabric.utilities.data.AttributeDict
    lightning.fabric.utilities.data.AttributeDict transformers.utils.generic.ModelOutput""".split(),
    "dict",
)
_FILLED_LIKE["collections.deque"] = "list"
"""Classes whose objects PyTorch's reader fills like a dict or a list, as far as they are known beforehand."""


def _is_unknown_function(name: str) -> bool:
    """Whether ``name`` is that of a function: classes begin with a capital letter, except for a few known ones."""
    module, _, last = name.rpartition(".")
    if module == "builtins":
        return not isinstance(getattr(builtins, last, None), type)
    is_class = last.lstrip("_")[:1].isupper() or last.startswith("__pyx_unpickle_")
    return not is_class and name not in _HARMLESS


class Array(np.ndarray):
    """Stands for ``numpy.ndarray``: shape, type and content follow as its state."""

    def __new__(cls, *size: Any) -> Any:
        """Refuse a size without content."""
        if size:
            raise NotAdmitted("a numpy array of a size without content")
        return np.ndarray.__new__(cls, (0,), np.int8)


def _reconstruct(kind: Any, *_: Any) -> np.ndarray:
    if not isinstance(kind, type) or not issubclass(kind, Array):
        raise NotAdmitted("an array of another class")
    return kind()


def _dtype(code: Any, *_: Any) -> np.dtype:
    if not isinstance(code, str) or np.dtype(code).kind not in "biufcSUMmO":
        raise NotAdmitted(f"arrays of numpy type {str(code)[:20]!r}")
    return np.dtype(code, copy=True)


def _frombuffer(data: Any, dtype: np.dtype, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _scalar(dtype: np.dtype, data: Any) -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype)[0].item()


def _bytes(text: Any = b"", *_encoding: Any) -> bytes:
    return text.encode("latin1") if isinstance(text, str) else bytes(text)


def _attribute(owner: Any, name: Any) -> Any:
    """Stands for ``getattr``, with which old pickles name inner classes and methods: of stand-ins only."""
    if not isinstance(owner, Record) and not (isinstance(owner, type) and issubclass(owner, Record)):
        raise NotAdmitted("builtins.getattr")
    return stand_in(f"{owner.name}.{name}", owner.asked)


PLAIN: dict[str, Any] = {
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.complex": complex,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.getattr": _attribute,
    "_codecs.encode": _bytes,
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": lambda *pairs: OrderedDict(*pairs),
    "numpy.ndarray": Array,
    "numpy.dtype": _dtype,
}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    PLAIN[f"{_core}.multiarray._reconstruct"] = _reconstruct
    PLAIN[f"{_core}.multiarray.scalar"] = _scalar
    PLAIN[f"{_core}.numeric._frombuffer"] = _frombuffer
NUMPY_TYPES = [(type(np.dtype(code)), f"numpy.dtypes.{code}") for code in "?bhilqBHILQefdgFDGSUMmO"]
"""Types whose state PyTorch's reader may set, with names that no file has."""


def stand_in(name: str, asked: list[str], kind: Kind | None = None) -> Callable[..., Any]:
    """Return what stands for ``name`` ("module.class") in one file.

    Args:
        name: full name as in the pickle.
        asked: list to which the names of created objects are added.
        kind: how objects of the class are filled, if it is known.

    Raises:
        NotAdmitted: if the name is one that acts on the machine.
    """
    if name in PLAIN:  # each file gets its own, because a pickle can set attributes of what it names
        plain = PLAIN[name]
        return type("Array", (Array,), {}) if plain is Array else plain if isinstance(plain, type) else partial(plain)
    if name.partition(".")[0] in _MACHINE or name in _REFUSED:
        raise NotAdmitted(name)
    kind = kind or _FILLED_LIKE.get(name, "object")
    return type(f"<{name}>", (Record,), {"name": name, "kind": kind, "asked": asked})
