"""Reading files nobody vouches for: tensors, arrays and plain containers come out, code never runs.

PyTorch files go through ``torch.load(weights_only=True)``, plain pickles through an unpickler that knows the same names
(`transfer.weights.admitted`), safetensors through its own package.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pretrain.errors import UserError
from transfer.weights.admitted import ADMITTED, NotAdmitted, Unpickler, plain, scan
from transfer.weights.format import ABOUT

_ZIP = b"PK\x03\x04"
_LEGACY = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)  # what torch.save wrote before 1.6
_PICKLE = b"\x80"
_TAR = 257, b"ustar"


def read(path: Path) -> Any:
    """Content of a ``.pth``, ``.pkl`` or ``.safetensors``, told apart by its first bytes and not by its name."""
    if not path.exists():
        raise UserError(f"there is no file {path}; check the path")
    if not path.is_file():
        raise UserError(f"{path} is not a file; name the checkpoint itself")
    with path.open("rb") as stream:
        head = stream.read(512)
    try:
        content = _content(path, head)
        _check_fingerprint(content)
        return content
    except UserError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file asked for a place in itself that cannot be
            raise
        raise _damaged(path, error) from error
    except NotAdmitted as error:
        raise UserError(
            f"{path} was refused: it asks for {error}, and only tensors, numpy arrays and plain containers are admitted; "
            "use a file of weights alone"
        ) from error
    except RecursionError as error:
        raise _damaged(path, "containers nested too deep") from error
    except Exception as error:  # what damaged bytes provoke has no common class
        raise _damaged(path, error) from error


def _content(path: Path, head: bytes) -> Any:
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return _read_safetensors(path)
    if head.startswith(_ZIP):
        _check_zip(path)
        return _read_torch(path, mmap=True)
    if head.startswith(_LEGACY):
        with path.open("rb") as stream:
            for _ in range(5):  # magic number, version, system, content, keys of what follows
                scan(stream)
        return _read_torch(path, mmap=False)
    if head.startswith(_PICKLE):
        return _read_pickle(path)
    if head[_TAR[0] :].startswith(_TAR[1]):
        raise UserError(
            f"{path} is a tar archive; unpack it and name the checkpoint (PyTorch's of before 2017: save anew)"
        )
    what = "is neither a PyTorch file nor a pickle nor safetensors" if head else "is empty"
    raise UserError(f"{path} {what}; name a checkpoint (.pth, .pt, .ckpt, .pkl or .safetensors)")


def fingerprint(weights: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """sha256 over names, types, shapes and values and what is said of them, for containers that have no checksums."""
    digest = hashlib.sha256(json.dumps({**about, "sha256": ""}, sort_keys=True).encode())
    for name in sorted(weights):
        tensor = torch.as_tensor(weights[name])
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_fingerprint(content: Any) -> None:
    about = content.get(ABOUT) if isinstance(content, dict) else None
    if about is None and isinstance(content, dict) and content.get("__author__") == "PixBench":
        raise ValueError("what PixBench says of its files is not there")
    if isinstance(about, dict) and "sha256" in about:
        weights = content.get("model", {name: value for name, value in content.items() if name != ABOUT})
        if about["sha256"] != fingerprint(weights, about):
            raise ValueError("the weights are not those that were written")


def _damaged(path: Path, why: object) -> UserError:
    reason = str(why).strip().split("\n", 1)[0] or type(why).__name__
    return UserError(f"{path} is truncated or damaged ({reason}); copy or download it again")


def _check_zip(path: Path) -> None:
    """Every record whole and as its checksum says; a memory map would hand out damaged weights without a word."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in records):
            raise UserError(f"{path} is a compressed archive, as PyTorch never writes; name the checkpoint itself")
        if sum(info.file_size for info in records) > path.stat().st_size:
            raise ValueError("its records claim to be larger than the file")
        if len({info.filename for info in records}) < len(records):
            raise ValueError("two records have the same name")
        if bad := archive.testzip():
            raise ValueError(f"record {bad} does not match its checksum")
        for info in records:
            if info.filename.endswith("data.pkl"):
                scan(io.BytesIO(archive.read(info)))


def _read_torch(path: Path, mmap: bool) -> Any:
    try:
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in ADMITTED.items()]):
            return plain(torch.load(path, map_location="cpu", weights_only=True, mmap=mmap), {})
    except pickle.UnpicklingError as error:
        if names := re.findall(r"GLOBAL ([\w.]+)", str(error)):
            raise NotAdmitted(", ".join(dict.fromkeys(names))) from error
        raise


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as stream:
        scan(stream)
        stream.seek(0)
        return plain(Unpickler(stream, encoding="latin1").load(), {})  # latin1: files pickled by Python 2


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        metadata = file.metadata() or {}
        about = json.loads(metadata.pop(ABOUT, "{}"))
    if any('"sha256"' in text for text in metadata.values()):
        raise ValueError(f"what stands behind {ABOUT!r} elsewhere has another name")
    return weights | ({ABOUT: about} if about else {})
