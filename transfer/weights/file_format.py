"""What formats of files there are: one YAML file of `formats/` each, described by `Format`. Needs no PyTorch.

A format is one YAML file of `formats/`, described by `Format`. A key of a file is of the backbone, or left out for a reason
that the format names, or unknown, which is an error; so nothing is ever lost without a word.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from transfer.weights.naming import NAMINGS, Naming

FOLDER = Path(__file__).with_name("formats")


@dataclass(frozen=True)
class Pixels:
    """What a backbone takes: images as they are on disk (0 to 255), their channels in ``order``, minus mean, over std."""

    order: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """In that order, as ``std``."""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __str__(self) -> str:
        return f"{self.order}, mean {', '.join(map(str, self.mean))}, std {', '.join(map(str, self.std))}"


@dataclass(frozen=True)
class Format:
    """One kind of file; each field is a key of its YAML."""

    title: str
    source: str
    """Repository and file that the names were read in."""
    checked: Literal["generated file", "real file", "published file"]
    """What the reader was tried on: a file of that framework from our tests, one that the software itself wrote, or one that
    its authors offer for download."""
    naming: str = "torchvision"
    """How the names read once the branch's prefix is off: a key of `naming.NAMINGS`."""
    container: tuple[str, ...] = ("",)
    """Where in the file the weights may lie, "a/b" being b in a; the first that fits. A file may also be that table alone."""
    branches: dict[str, str] = field(default_factory=lambda: {"student": ""})
    """Backbones it may hold: name -> prefix. The first is the one read unless told otherwise."""
    required: tuple[str, ...] = ()
    """Patterns of keys; each must match at least one, beside the stem of a branch, which is always looked for."""
    forbidden: tuple[str, ...] = ()
    """Patterns of which no key may match any."""
    beside: dict[str, str] = field(default_factory=dict)
    """What stands beside the container: key -> pattern found in the text of its value."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Keys left out on purpose: reason -> pattern of the whole key."""
    extras: dict[str, str] = field(default_factory=dict)
    """Pyramid and head that are carried along: branch -> pattern of the whole key; its group, if any, is their name."""
    rename: dict[str, str] = field(default_factory=dict)
    """Pattern -> replacement, done in each key before anything else."""
    backbone: dict[str, Any] = field(default_factory=dict)
    """Fields of the backbone's spec that the weights do not tell."""
    pixels: Pixels = field(default_factory=Pixels)

    @property
    def names(self) -> Naming:
        """The table of names that `naming` refers to."""
        return NAMINGS[self.naming]

    @property
    def conditions(self) -> int:
        """How much had to be true of a file of this kind: the more, the more specific it is."""
        return len(self.required) + len(self.forbidden) + len(self.beside)


@cache
def formats() -> dict[str, Format]:
    """All there are, by name."""
    return {path.stem: parse(path) for path in sorted(FOLDER.glob("*.yaml"))}


def parse(path: Path) -> Format:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entry: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), loader)
    for name in ("container", "required", "forbidden"):
        if name in entry:
            entry[name] = (entry[name],) if isinstance(entry[name], str) else tuple(entry[name])
    if "pixels" in entry:
        order, mean, std = (entry["pixels"][name] for name in ("order", "mean", "std"))
        entry["pixels"] = Pixels(order, tuple(mean), tuple(std))
    return Format(**entry)
