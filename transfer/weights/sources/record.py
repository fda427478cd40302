"""What `locate` returns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixbench.files import sha256
from transfer.weights.file_format import Pixels


@dataclass(frozen=True)
class Source:
    """Files that together hold one checkpoint."""

    name: str
    """What the user gave, for messages and records: a path, "hf:org/name@revision:file", "timm:name"."""
    files: tuple[Path, ...]
    """Files on this machine: one, or several shards."""
    index: Mapping[str, str] | None = None
    """For shards: the name of each tensor and the name of its file, relative to the folder of the index."""
    architecture: str | None = None
    """What config.json or timm calls the network: "resnet50d", "ResNetForImageClassification"."""
    revision: str | None = None
    """Commit of a repository of the hub."""
    pixels: Pixels | None = None
    """How the network's images are prepared, if it is declared beside the weights."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What `transformers` declares of the network in config.json."""
    backbone: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the backbone's spec that are declared beside the weights."""
    other_network: str | None = None
    """What is declared of the network that our networks have not."""

    @property
    def size(self) -> int:
        """Number of bytes of all files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def sha256(self) -> str:
        """The sha256 of the file; of several files, that of the list of their names and sha256."""
        if len(self.files) == 1:
            return sha256(self.files[0])
        lines = "".join(f"{sha256(file)}  {file.name}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()
