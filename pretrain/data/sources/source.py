"""A source: images that can be read one by one, in any order.

`Source.read` reads the bytes of an image, `Source.load` also decodes them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from pretrain.data.index import Index
from pretrain.data.packed import PackedStrings
from pretrain.data.pixels import BrokenImage, PixelRange, decode
from pretrain.data.sources.storage import read_member, reason


@dataclass(frozen=True)
class Source:
    """The images of ``index``. Copies share its arrays."""

    index: Index
    pixel_range: PixelRange | None = None
    """Range of values of images with more than 8 bits, see `pretrain.data.pixels`."""
    stand_ins: Mapping[int, int] = field(default_factory=dict)
    """Index of each image whose file is gone -> index of the image that is taken for it."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def names(self) -> PackedStrings:
        """Names of all images. Each is unpacked when it is asked for."""
        return self.index.names

    @property
    def labels(self) -> np.ndarray:
        """Labels of all images: (n,) int32, -1 for none."""
        return self.index.labels

    @property
    def root(self) -> Path:
        """The folder (or the first folder or archive) that holds the images."""
        return Path(self.index.places[0].path)

    def label(self, index: int) -> int:
        """Return the label of image ``index``."""
        return int(self.labels[index])

    def where(self, index: int) -> str:
        """Return where image ``index`` is, for messages: its path, or its archive and its name."""
        place, name = self.index.place_of(index), self.names[index].removeprefix(self.index.place_of(index).prefix)
        return os.path.join(place.path, name) if place.kind == "folder" else f"{name} in {place.path}"

    def read(self, index: int) -> bytes:
        """Read the bytes of image ``index``.

        Raises:
            BrokenImage: They cannot be read. The message says where the image is.
        """
        place, where = self.index.place_of(index), self.where(index)
        try:
            if place.kind == "folder":
                with open(where, "rb", buffering=0) as stream:
                    return stream.readall()
            return read_member(place, *self.index.span_of(index))
        except FileNotFoundError as error:
            if os.path.islink(where):
                raise BrokenImage(
                    f"image {where} is a link to a file that does not exist; mend or delete it, then start again",
                    "a link to a file that does not exist",
                ) from error
            raise BrokenImage(
                f"image {where} is gone; start the same command again to go on without it", "gone"
            ) from error
        except OSError as error:
            said = reason(error)
            raise BrokenImage(f"image {where} cannot be read ({said})", f"it cannot be read: {said}") from error

    def load(self, index: int) -> Image.Image:
        """Read image ``index`` in RGB.

        Raises:
            BrokenImage: The image cannot be read or decoded. The message says where it is.
            UserError: It needs a range of pixel values that is not known.
        """
        return decode(self.read(index), self.where(index), self.pixel_range)

    def present(self, index: int) -> int:
        """Return ``index``, or its stand-in if its file is gone."""
        return self.stand_ins.get(index, index)

    def fingerprint(self) -> str:
        """Return the SHA-256 digest of the names and labels. It does not depend on where the images are."""
        return self.index.fingerprint

    def thinned(self, limit: int) -> Source:
        """Return a source with at most ``limit`` images (0: all), spread evenly over the list and so over the classes."""
        if limit == 0 or limit >= len(self):
            return self
        return replace(self, index=self.index.take([i * len(self) // limit for i in range(limit)]))
