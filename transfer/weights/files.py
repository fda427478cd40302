"""Read weight files into tensors and plain containers, without running anything of the file.

PyTorch's files are read by ``torch.load(weights_only=True)`` and mapped into memory, so that only tensors in use are loaded;
safetensors by their own package; other pickles by Python's unpickler with a `find_class` that admits what `stand_ins` admits.
"""

from __future__ import annotations

import errno
import io
import json
import pickle
import pickletools
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch.serialization import safe_globals

from pixbench.errors import UserError
from pixbench.file_versions import WEIGHTS_KEY
from transfer.weights.sources import Source
from transfer.weights.stand_ins import NUMPY_TYPES, PLAIN, Kind, NotAdmitted, stand_in
from transfer.weights.tensors import as_tensor, fingerprint, is_brief

_ZIP = b"PK\x03\x04"
_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2)[2:]
"""Magic number of the files that ``torch.save`` wrote before version 1.6, after the two bytes of the protocol."""
_LEGACY_PICKLES = 5
"""Number, version, system, content, and the keys of the storages."""
_TAR = 257, b"ustar"


class Content(NamedTuple):
    """What a file holds."""

    value: Any
    asked: list[str]
    """Names of the classes of which it holds objects. They were read as plain data; nothing of them was run."""


def read_source(source: Source, checked: bool = True) -> Content:
    """Return the content of all files of a source together; see `read`.

    Raises:
        UserError: A file cannot be read, or the shards are not those of their index.
    """
    if source.index is None:
        return read(source.files[0], checked)
    merged: dict[Any, Any] = {}
    asked: list[str] = []
    for file in source.files:
        content = read(file, checked)
        wanted = {name for name, shard in source.index.items() if Path(shard).name == file.name}
        held = content.value if isinstance(content.value, dict) else {}
        if missing := sorted(wanted - held.keys()):
            raise UserError(
                f"{file} lacks {missing[0]}, which the index of {source.name} names there; download it again"
            )
        merged |= {name: held[name] for name in wanted}
        asked += content.asked
    return Content(merged, asked)


def read(path: Path, checked: bool = True) -> Content:
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
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch about types of storages
            content = _content(path, stream, checked)
        if checked:
            _check_fingerprint(content.value)
        return content
    except UserError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file declared an impossible position in itself
            raise
        raise _damaged(path, error) from error
    except NotAdmitted as error:
        raise UserError(
            f"{path} was refused: it asks for {error}, and only tensors, arrays and plain data are read; "
            "use a file of weights alone: torch.save(model.state_dict(), ...) in the program that made it"
        ) from error
    except Exception as error:  # damaged bytes can cause any error
        raise _damaged(path, error) from error


def _content(path: Path, stream: IO[bytes], checked: bool) -> Content:
    head = stream.read(512)
    stream.seek(0)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return Content(_read_safetensors(path), [])
    if head.startswith(_ZIP):
        pickled = _check_zip(stream, checked)
        return _read_torch(path, pickled, 1, mmap=True)
    if head[2:].startswith(_LEGACY):
        return _read_torch(path, stream, _LEGACY_PICKLES, mmap=False)
    if head.startswith(b"\x80"):
        return _read_pickle(stream)
    if head[_TAR[0] :].startswith(_TAR[1]):
        raise UserError(
            f"{path} is a tar archive; unpack it and name the checkpoint (PyTorch's of before 2017: save anew)"
        )
    what = "is neither a PyTorch file nor a pickle nor safetensors" if head else "is empty"
    raise UserError(f"{path} {what}; name a checkpoint (.pth, .pt, .ckpt, .pkl or .safetensors)")


def _damaged(path: Path, why: BaseException) -> UserError:
    if isinstance(why, pickle.UnpicklingError) and why.__context__ is not None:
        why = why.__context__  # without PyTorch's advice to trust the file
    reason = str(why).strip().split("\n", 1)[0] or type(why).__name__
    other = ", or save its weights alone where it was made" if isinstance(why, pickle.UnpicklingError) else ""
    return UserError(f"{path} is truncated or damaged ({reason}); copy or download it again{other}")


def _check_zip(stream: IO[bytes], checked: bool) -> IO[bytes]:
    """Check what PyTorch takes on trust, and return the pickle: PyTorch compares no checksums of a mapped file."""
    with zipfile.ZipFile(stream) as archive:
        records = archive.infolist()
        names = [info.filename for info in records]
        if any("/code/" in f"/{name}" for name in names):
            raise NotAdmitted("TorchScript's code")
        if any(info.compress_type != zipfile.ZIP_STORED for info in records):
            raise ValueError("a compressed archive, as PyTorch never writes")
        if len(set(names)) < len(names):
            raise ValueError("two records have the same name")
        if checked and (bad := archive.testzip()):
            raise ValueError(f"record {bad} does not match its checksum")
        pickles = [name for name in names if name.endswith("data.pkl")]
        if not pickles:
            raise ValueError("a zip archive without PyTorch's data.pkl")
        return io.BytesIO(archive.read(pickles[0]))


def _read_torch(path: Path, pickled: IO[bytes], pickles: int, mmap: bool) -> Content:
    """Read with PyTorch; what a class is filled like shows only when PyTorch refuses to fill its stand-in."""
    names, asked = _names(path, pickled, pickles), list[str]()
    kinds: dict[str, Kind] = {}
    while True:
        made = {name: stand_in(name, asked, kinds.get(name)) for name in names}
        admitted: list[Any] = [*NUMPY_TYPES, *((made[name], name) for name in names)]
        asked.clear()
        try:
            with safe_globals(admitted):
                return Content(torch.load(path, map_location="cpu", weights_only=True, mmap=mmap), asked)
        except pickle.UnpicklingError as error:
            if "Only persistent_load of storage" in str(error):
                raise NotAdmitted("a network that was saved whole, with its source, as before PyTorch 1.6") from error
            wrong = [name for name in names if f"<{name}>" in str(error) and name not in kinds and name not in PLAIN]
            if len(wrong) != 1:
                raise
            kinds[wrong[0]] = "dict" if "SETITEM" in str(error) else "list"


def _names(path: Path, pickled: IO[bytes], pickles: int) -> list[str]:
    """Return the full names of all classes and functions that the pickles name."""
    names: dict[str, None] = {}
    for _ in range(pickles):
        for opcode, argument, _position in pickletools.genops(pickled):
            if opcode.name == "PROTO" and argument != 2:
                raise UserError(
                    f"{path} was saved with pickle protocol {argument}, which PyTorch's reader of weights does not read; "
                    "load it where it was made and save its weights with torch.save(weights, file)"
                )
            if opcode.name == "GLOBAL":
                module, name = str(argument).split(" ", 1)
                module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
                names[f"{module}.{name}"] = None
    return list(names)


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="latin1")  # of Python 2
        self.asked: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        return partial(_TENSORS[full]) if full in _TENSORS else stand_in(full, self.asked)


def _read_pickle(stream: IO[bytes]) -> Content:
    places = [argument or 0 for opcode, argument, _ in pickletools.genops(stream) if opcode.name in _PUTS]
    if max(places, default=0) > stream.tell():  # the unpickler would reserve memory for all places before it
        raise ValueError("a place in its memory beyond the length of the file")
    stream.seek(0)
    unpickler = _Unpickler(stream)
    return Content(unpickler.load(), unpickler.asked)


_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_TENSORS: dict[str, Any] = {
    # tensors that were written by pickle itself: each holds its storage as a file of torch.save
    "torch.storage._load_from_bytes": lambda data: torch.load(io.BytesIO(data), weights_only=True),
    "torch._utils._rebuild_tensor_v2": lambda *parts: torch._utils._rebuild_tensor_v2(*parts),
    "torch._utils._rebuild_parameter": lambda data, *_: data,
}


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        content: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    about = json.loads(metadata.pop(WEIGHTS_KEY, "{}"))
    if any('"sha256"' in text for text in metadata.values()):
        raise ValueError(f"what stands behind {WEIGHTS_KEY!r} elsewhere has another name")
    return content | ({WEIGHTS_KEY: about} if about else {})


def _check_fingerprint(content: Any) -> None:
    about, author = (content.get(key) if isinstance(content, dict) else None for key in (WEIGHTS_KEY, "__author__"))
    if about is None and isinstance(author, str) and author == "PixBench":
        raise ValueError("what PixBench says of its files is not there")
    if isinstance(about, dict) and "sha256" in about:
        weights = content.get("model", {name: value for name, value in content.items() if name != WEIGHTS_KEY})
        tensors = (
            {name: as_tensor(value) for name, value in weights.items()} if isinstance(weights, dict) else {"": None}
        )
        sound = {name: tensor for name, tensor in tensors.items() if tensor is not None and isinstance(name, str)}
        if len(sound) < len(tensors) or not is_brief(about):
            raise ValueError("there is more beside its weights than PixBench writes")
        if about["sha256"] != fingerprint(sound, about):
            raise ValueError("the weights are not those that were written")
