"""Where weights come from: a file, a folder, the zoo, a repository of the Hugging Face hub, or a pretrained model of timm.

`locate` returns files on this machine and reads no weights. Files of the hub are kept in its own local cache, which is also
enough without network.
"""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from pixbench.errors import UserError
from transfer.weights.sources.folders import WEIGHTS, exists, from_file, in_folder
from transfer.weights.sources.hub import HUB, from_hub
from transfer.weights.sources.record import Source
from transfer.weights.sources.timm_models import from_timm
from transfer.weights.sources.zoo import from_zoo

SCHEMES = ("hf:", "timm:", "zoo:")
"""What begins a source that is no path."""


def locate(source: str | PathLike[str]) -> Source:
    """Return the files that ``source`` names; files of the hub or of timm are downloaded if they are not in a cache.

    Args:
        source: A file, an index of shards, a folder with one checkpoint, "hf:org/name[@revision][:file]", "timm:name" or
            "zoo:name". Something that exists under this path is never taken for one of the latter.

    Raises:
        UserError: There is no such file, the choice is ambiguous, or a file cannot be fetched.
    """
    name = os.fspath(source)
    path = _expanded(name)
    if name and exists(path):
        return in_folder(name, path) if path.is_dir() else from_file(name, path)
    if name.startswith("hf:"):
        return from_hub(name)
    if name.startswith("timm:"):
        return from_timm(name)
    if name.startswith("zoo:"):
        return from_zoo(name)
    text = name.removeprefix("https://huggingface.co/")
    found = HUB.fullmatch(f"hf:{text}")
    hint = ""
    if found and not found[1].endswith(WEIGHTS) and not exists(path.parent):
        hint = f", or write hf:{text} for a repository of the Hugging Face hub"
    raise UserError(f"there is no file {name or repr(name)}; check the path{hint}")


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # "~name" of nobody
        return Path(name)


__all__ = ["SCHEMES", "Source", "locate"]
