"""What a file holds, with shapes in place of numbers: no PyTorch is imported and no number is looked at.

As careful as `transfer.weights.safe`, by the same list of names; only checksums are left out.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pretrain.errors import UserError
from transfer.weights.admitted import NotAdmitted, Unpickler, plain, scan

_BYTES = {"float": 4, "double": 8, "long": 8, "int": 4, "half": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Outline:
    """Of one tensor."""

    shape: tuple[int, ...]
    dtype: str


def read(path: Path) -> Any:
    """Content of a file that `safe.read` would take, tensors as `Outline`, the arrays of a pickle as they are."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path")
    with path.open("rb") as stream:
        try:
            return _read(stream, path.stat().st_size)
        except NotAdmitted as error:
            raise UserError(f"{path} was refused: it asks for {error}; use a file of weights alone") from error
        except Exception as error:  # what damaged bytes provoke has no common class
            why = str(error) or type(error).__name__
            raise UserError(f"{path} is no file of weights that can be read ({why}); download it again") from error


def _read(stream: IO[bytes], size: int) -> Any:
    head = stream.read(9)
    stream.seek(0)
    if head.startswith(b"PK"):
        with zipfile.ZipFile(stream) as archive:
            info = next(info for info in archive.infolist() if info.filename.endswith("data.pkl"))
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError("a compressed archive, as PyTorch never writes")
            with archive.open(info) as record:
                return _unpickle(record, size)
    if head[8:] == b"{":
        return _safetensors(stream, size)
    content = _unpickle(stream, size)
    if isinstance(content, int):  # PyTorch's of before 1.6: magic number, version, system, content
        _unpickle(stream, size), _unpickle(stream, size)
        content = _unpickle(stream, size)
    return content


def _safetensors(stream: IO[bytes], size: int) -> dict[str, Outline]:
    length = int.from_bytes(stream.read(8), "little")
    if length > size:
        raise ValueError("its header claims to be larger than the file")
    header = json.loads(stream.read(length))
    return {
        name: Outline(tuple(entry["shape"]), entry["dtype"]) for name, entry in header.items() if name != "__metadata__"
    }


def _unpickle(stream: IO[bytes], size: int) -> Any:
    """Next pickle in a file of ``size`` bytes."""
    start = stream.tell()
    scan(stream)
    stream.seek(start)
    pickled = _Outliner(stream, encoding="latin1")
    content = plain(pickled.load(), {})
    if sum(pickled.bytes.values()) > size:
        raise ValueError("its tensors claim to be larger than the file; it is truncated or damaged")
    return content


def _tensor(storage: str, _offset: int, shape: tuple[int, ...], *_: object) -> Outline:
    return Outline(tuple(shape), storage)


class _Outliner(Unpickler):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.bytes: dict[str, int] = {}
        """At least so many in each storage."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return name.removesuffix("Storage").lower()
        if module == "torch" and name in ("Size", "device"):
            return tuple if name == "Size" else str
        return name if module == "torch" and name.islower() else super().find_class(module, name)

    def persistent_load(self, pid: Any) -> str:
        _, kind, key, _, numbers = pid[:5]
        self.bytes[key] = numbers * _BYTES.get(kind, 1)
        return kind
