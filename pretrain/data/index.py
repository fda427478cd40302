"""The index of a source: the name and the label of every image and where its bytes are, in arrays that processes share.

Shapes: n images.

An index can be kept in a file (`pixbench data index`), which is mapped into memory: all processes of a machine share it, and
opening it takes no time. The content of the file is written and read by PyTorch: plain containers and one tensor for each array.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch

from pixbench.checkpoints import damage
from pixbench.errors import UserError
from pixbench.file_versions import INDEX_FORMAT, INDEX_VERSION
from pretrain.data.packed import CHUNK, PackedStrings

NO_LABEL = -1
HIGHEST_LABEL = 2**31 - 1


@dataclass(frozen=True)
class Place:
    """A folder with image files, or an archive with images in it."""

    path: str
    """Path, or URL of an archive."""
    kind: Literal["folder", "tar", "zip"] = "folder"
    size: int = -1
    """Size of the archive in bytes; -1 for a folder, or where it is not known."""
    sample: str = ""
    """Digest of a few of its bytes (`pretrain.data.sources.storage.sample`); "" for a folder, or where it is not known."""
    prefix: str = ""
    """What the names of its images begin with in the index only, not in the place."""


@dataclass(frozen=True)
class Index:
    """All images of a source.

    Args:
        names: n names; none occurs twice.
        labels: (n,) int32, `NO_LABEL` for none.
        places: folders and archives that hold the images.
        layout: the layout that was read (`pretrain.data.sources.Layout`).
        place: (n,) int32, index in ``places`` of each image; None if all are in the first.
        offsets: (n,) int64, where an image begins in its archive (in a zip: its local header); None without archives.
        sizes: (n,) int64, its number of bytes there; negative if they are compressed (deflate).
        classes: names of the classes, if the labels are their positions.
        empty: those of them without images.
        parts: for each root of a mixture: its number of images, and how often each of them is taken in an epoch.
        notes: what the user should know about the images, a sentence each.
    """

    names: PackedStrings
    labels: np.ndarray
    places: tuple[Place, ...]
    layout: str
    place: np.ndarray | None = None
    offsets: np.ndarray | None = None
    sizes: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    parts: tuple[tuple[int, float], ...] = ()
    notes: tuple[str, ...] = ()
    digest: str = field(default="", compare=False)
    """The fingerprint, if it is known already."""

    def __len__(self) -> int:
        return len(self.names)

    def place_of(self, index: int) -> Place:
        """Return the folder or archive that holds image ``index``."""
        return self.places[0 if self.place is None else int(self.place[index])]

    def span_of(self, index: int) -> tuple[int, int]:
        """Return the offset and the size of image ``index`` in its archive."""
        if self.offsets is None or self.sizes is None:
            raise ValueError("an index of image files has no offsets")
        return int(self.offsets[index]), int(self.sizes[index])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 digest of the names and labels (and of the parts of a mixture). It does not depend on where they are."""
        if self.digest:
            return self.digest
        return hashlib.sha256(f"{self.lines} {self.parts}".encode()).hexdigest() if self.parts else self.lines

    @cached_property
    def lines(self) -> str:
        """SHA-256 digest of the lines "name, tab, label" alone."""
        if self.digest and not self.parts:
            return self.digest
        found = hashlib.sha256()
        for lines in label_lines(self.names.chunks(), self.labels):
            found.update(lines)
        return found.hexdigest()

    def take(self, indices: Sequence[int] | np.ndarray) -> Index:
        """Return an index of the images ``indices`` in this order. A mixture's parts are lost, so take from its roots."""
        chosen = np.asarray(indices, np.int64)

        def part(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[chosen]

        return replace(
            self,
            names=self.names.take(chosen),
            labels=self.labels[chosen],
            place=part(self.place),
            offsets=part(self.offsets),
            sizes=part(self.sizes),
            parts=(),
            digest="",
        )

    def write(self, target: str | PathLike[str] | BinaryIO) -> None:
        """Write the index to ``target``, so that `read` can map it into memory."""
        arrays = {"text": self.names.text, "ends": self.names.ends, "labels": self.labels}
        arrays |= {name: getattr(self, name) for name in COLUMNS if getattr(self, name) is not None}
        tensors = {
            name: torch.from_numpy(array if array.flags.writeable else array.copy()) for name, array in arrays.items()
        }
        plain = {
            "layout": self.layout,
            "places": [asdict(place) for place in self.places],
            "classes": list(self.classes),
            "empty": list(self.empty),
            "parts": [list(part) for part in self.parts],
            "notes": list(self.notes),
            "fingerprint": self.fingerprint,
        }
        torch.save({"format": INDEX_FORMAT, "version": INDEX_VERSION, **plain, **tensors}, target)

    @staticmethod
    def read(path: str | PathLike[str], verify: bool = False) -> Index:
        """Map the index in the file ``path`` into memory. With ``verify``, compare its checksums first, which reads it once.

        Raises:
            UserError: It is not an index, is damaged, or has an unknown version.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch.load raises many types of errors for broken files
            raise UserError(
                f"{path} cannot be read as an index of images, it may be truncated; make it again with pixbench data index"
            ) from error
        if not isinstance(content, dict) or content.get("format") != INDEX_FORMAT:
            raise UserError(f"{path} is not an index of images; make one with pixbench data index")
        if content["version"] != INDEX_VERSION:
            raise UserError(
                f"{path} has index version {content['version']}, but this PixBench reads version {INDEX_VERSION}; make it again "
                "with pixbench data index"
            )
        if verify and (reason := damage(Path(path))):
            raise UserError(f"{path} is damaged ({reason}); make it again with pixbench data index")
        try:
            return _from_content(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error!r}); make it again with pixbench data index") from error


COLUMNS = ("place", "offsets", "sizes")
"""Arrays of an index that not every index has."""


def _from_content(content: dict[str, Any]) -> Index:
    arrays = {name: content[name].numpy() for name in ("text", "ends", "labels", *COLUMNS) if name in content}
    names = PackedStrings(arrays.pop("text"), arrays.pop("ends"))
    if not len(names) or any(len(array) != len(names) for array in arrays.values()) or names.ends[-1] > len(names.text):
        raise ValueError("its columns are not of one length")
    return Index(
        names=names,
        **arrays,
        places=tuple(Place(**place) for place in content["places"]),
        layout=content["layout"],
        classes=tuple(content["classes"]),
        empty=tuple(content["empty"]),
        parts=tuple((int(count), float(weight)) for count, weight in content["parts"]),
        notes=tuple(content.get("notes", ())),  # an older index has none
        digest=content["fingerprint"],
    )


def label_lines(names: Iterable[list[bytes]], labels: np.ndarray) -> Iterator[bytes]:
    """Yield the lines "name, tab, label" of each chunk of ``names``, which are chunks of `PackedStrings`."""
    for number, chunk in enumerate(names):
        numbers = labels[number * CHUNK : number * CHUNK + len(chunk)].tolist()
        yield b"".join(b"%b\t%d\n" % pair for pair in zip(chunk, numbers, strict=True))
