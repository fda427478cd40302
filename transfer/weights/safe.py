"""Reading files nobody vouches for: tensors, arrays and plain containers come out, code never runs.

PyTorch files go through ``torch.load(weights_only=True)``, plain pickles through an unpickler that knows a handful of
names.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pretrain.errors import UserError

_ZIP = b"PK\x03\x04"
_LEGACY = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)  # what torch.save wrote before 1.6
_PICKLE = b"\x80"
_NUMBER = re.compile(r"[<>=|]?[biuf][1248]")


def read(path: Path) -> Any:
    """Content of a ``.pth``, ``.pt``, checkpoint or ``.pkl``, told apart by its first bytes and not by its name."""
    if not path.exists():
        raise UserError(f"there is no file {path}; check the path")
    if not path.is_file():
        raise UserError(f"{path} is not a file; name the checkpoint itself")
    with path.open("rb") as stream:
        head = stream.read(32)
    if head.startswith(_ZIP):
        _check_zip(path)
        return _read_torch(path, mmap=True)
    if head.startswith(_LEGACY):
        return _read_torch(path, mmap=False)
    if head.startswith(_PICKLE):
        return _read_pickle(path)
    what = "is neither a PyTorch file nor a pickle" if head else "is empty"
    raise UserError(f"{path} {what}; name a checkpoint (.pth, .pt, .ckpt or .pkl)")


def _damaged(path: Path, why: object) -> UserError:
    reason = str(why).strip().split("\n", 1)[0] or type(why).__name__
    return UserError(f"{path} is truncated or damaged ({reason}); copy or download it again")


def _refused(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} was refused: it asks for {what}, and only tensors, numpy arrays and plain containers are admitted; "
        "use a file of weights alone"
    )


def _check_zip(path: Path) -> None:
    """Every record whole and as its checksum says; a memory map would hand out damaged weights without a word."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
            bad = None if packed else archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error
    if packed:
        raise UserError(f"{path} is a compressed archive, as PyTorch never writes; name the checkpoint itself")
    if bad:
        raise _damaged(path, f"record {bad} does not match its checksum")


def _read_torch(path: Path, mmap: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except OSError:
        raise
    except Exception as error:  # what a damaged file provokes in torch has no common class
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and names:
            raise _refused(path, ", ".join(dict.fromkeys(names))) from error
        raise _damaged(path, error) from error


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as stream:
        try:
            return _plain(_Unpickler(stream, encoding="latin1").load(), {})  # latin1: files pickled by Python 2
        except _NotAdmitted as error:
            raise _refused(path, str(error)) from error
        except OSError:
            raise
        except Exception as error:  # as above: any exception at all can come out of damaged bytes
            raise _damaged(path, error) from error


class _NotAdmitted(Exception):
    """The message says what was asked for."""


class _Type:
    """Stands for ``numpy.dtype``: numbers only, since object arrays could hold anything."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise _NotAdmitted(f"arrays of numpy type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for ``numpy.ndarray``, whose own way back from a pickle takes sizes and flags on trust."""

    array: np.ndarray

    def __init__(self, *size: object) -> None:
        if size:
            raise _NotAdmitted("a numpy array of a size without content")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, kind, fortran_order, data = state
        self.array = _frombuffer(data, kind, shape, "F" if fortran_order else "C").array


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


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _frombuffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _NotAdmitted(f"{module}.{name}") from None

    def persistent_load(self, pid: object) -> Any:
        raise _NotAdmitted(f"an outside object ({pid!r})")


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """``value`` with real, writable arrays of native byte order in place of the stand-ins, however deep.

    ``done`` holds what was met so far: shared containers are walked once, a container within itself is refused.
    """
    if not isinstance(value, dict | list | tuple | _Array):
        return value
    if id(value) in done:
        if done[id(value)] is _OPEN:
            raise _NotAdmitted("a container that holds itself")
        return done[id(value)]
    done[id(value)] = _OPEN
    result: Any
    if isinstance(value, _Array):
        result = value.array.astype(value.array.dtype.newbyteorder("="))
    elif isinstance(value, dict):
        result = {key: _plain(entry, done) for key, entry in value.items()}
    else:
        result = type(value)(_plain(entry, done) for entry in value)
    done[id(value)] = result
    return result


_OPEN = object()
