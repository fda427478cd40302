"""Read untrusted files into arrays and plain containers, without running code and without importing PyTorch.

PyTorch's files (`torch_reader`) and plain pickles are read by one `unpickler` that allows a short list of names (`admitted`);
safetensors are checked by their own package. Arrays are on a private memory map of the file, except those of plain pickles.
"""

from __future__ import annotations

import errno
import json
import mmap
from pathlib import Path
from typing import IO, Any

import numpy as np

from pixbench.errors import UserError
from pixbench.file_versions import WEIGHTS_KEY
from transfer.weights.containers import torch_reader
from transfer.weights.containers.admitted import NotAdmitted, without_stand_ins
from transfer.weights.containers.arrays import dtype_of, fingerprint, is_brief
from transfer.weights.containers.unpickler import Unpickler

_ZIP = b"PK\x03\x04"
_LEGACY = 0x1950A86A20F9469CFC6C  # torch.save's magic number of before 1.6
_PICKLE = b"\x80"
_TAR = 257, b"ustar"
_SAFETENSORS = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{
        f"{letter}{bits}": f"{kind}{bits}" for letter, kind in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
    },
    **{"BOOL": "bool", "BF16": "bfloat16", "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
}


def read(path: Path, checked: bool = True) -> Any:
    """Return the content of a ``.pth``, ``.pkl`` or ``.safetensors`` file, recognised by its first bytes.

    Args:
        path: The file.
        checked: Whether to compare all checksums. If False, no numbers are read, which is enough for names, types and shapes.
    """
    if not path.exists():
        raise UserError(f"there is no file {path}; check the path")
    if not path.is_file():
        raise UserError(f"{path} is not a file; name the checkpoint itself")
    try:
        with path.open("rb") as stream:
            content = _content(path, stream, checked)
        if checked:
            _check_fingerprint(content, path.stat().st_size)
        return content
    except UserError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file declared an impossible position in itself
            raise
        raise _damaged(path, error) from error
    except NotAdmitted as error:
        raise UserError(
            f"{path} was refused: it asks for {error}, and only tensors, numpy arrays and plain containers are admitted; "
            "use a file of weights alone"
        ) from error
    except RecursionError as error:
        raise _damaged(path, "containers nested too deep") from error
    except Exception as error:  # damaged bytes can cause any error
        raise _damaged(path, error) from error


def _content(path: Path, stream: IO[bytes], checked: bool) -> Any:
    head, size = stream.read(512), path.stat().st_size
    stream.seek(0)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return _read_safetensors(path, _map(stream))
    if head.startswith(_ZIP):
        return torch_reader.read_zip(stream, _map(stream), checked)
    if head.startswith(_PICKLE):
        content = Unpickler(stream, size).load()
        if type(content) is int and content == _LEGACY:
            return torch_reader.read_legacy(stream, _map(stream))
        return without_stand_ins(content, {})
    if head[_TAR[0] :].startswith(_TAR[1]):
        raise UserError(
            f"{path} is a tar archive; unpack it and name the checkpoint (PyTorch's of before 2017: save anew)"
        )
    what = "is neither a PyTorch file nor a pickle nor safetensors" if head else "is empty"
    raise UserError(f"{path} {what}; name a checkpoint (.pth, .pt, .ckpt, .pkl or .safetensors)")


def _map(stream: IO[bytes]) -> memoryview:
    """Map the file into memory: pages are loaded when used, and changes are never written to the file."""
    return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY))


def _check_fingerprint(content: Any, size: int) -> None:
    about, author = (content.get(key) if isinstance(content, dict) else None for key in (WEIGHTS_KEY, "__author__"))
    if about is None and isinstance(author, str) and author == "PixBench":
        raise ValueError("what PixBench says of its files is not there")
    if isinstance(about, dict) and "sha256" in about:
        weights = content.get("model", {name: value for name, value in content.items() if name != WEIGHTS_KEY})
        sound = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
        if not sound or not all(isinstance(value, np.ndarray) for value in weights.values()):
            raise ValueError("there is more beside its weights than PixBench writes")
        if sum(value.nbytes for value in weights.values()) > size or not is_brief(about):
            raise ValueError("it claims to hold more than it can")
        if about["sha256"] != fingerprint(weights, about):
            raise ValueError("the weights are not those that were written")


def _damaged(path: Path, why: object) -> UserError:
    reason = str(why).strip().split("\n", 1)[0] or type(why).__name__
    return UserError(f"{path} is truncated or damaged ({reason}); copy or download it again")


def _read_safetensors(path: Path, whole: memoryview) -> dict[str, Any]:
    """Read the arrays ourselves, because the package lacks numpy types for some numbers; it checks the header first."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
    start = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(bytes(whole[8:start]))
    content: dict[str, Any] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _SAFETENSORS:
            raise NotAdmitted(f"numbers of type {entry['dtype']}")
        dtype = dtype_of(_SAFETENSORS[entry["dtype"]]).newbyteorder("<")
        content[name] = np.ndarray(entry["shape"], dtype, whole, start + entry["data_offsets"][0])
    about = json.loads(metadata.pop(WEIGHTS_KEY, "{}"))
    if any('"sha256"' in text for text in metadata.values()):
        raise ValueError(f"what stands behind {WEIGHTS_KEY!r} elsewhere has another name")
    return content | ({WEIGHTS_KEY: about} if about else {})
