"""Sources of images: a folder with one subfolder per class, or any folder, without labels.

A source is a list of file names with labels. `Source.load` reads an image.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from PIL import Image

from pixbench.errors import UserError, explain
from pretrain.data.folders import SUFFIXES, class_names, image_files, refuse_sets, split_folder
from pretrain.data.pixels import PixelRange, decode

Layout = Literal["class_folder", "flat"]
"""How images lie in a folder, see `open_source`."""
NO_LABEL = -1


@dataclass(frozen=True)
class Source:
    """Images below ``root``: their sorted names relative to ``root``, and one label per image."""

    root: Path
    names: list[str]
    labels: list[int]
    pixel_range: PixelRange | None = None
    """Range of values of images with more than 8 bits, see `pretrain.data.pixels`."""
    stand_ins: Mapping[int, int] = field(default_factory=dict)
    """Index of each image whose file is gone -> index of the image that is taken for it."""
    empty: tuple[str, ...] = ()
    """Class folders without images; their labels belong to no image."""

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """Return the path of image ``index``."""
        return self.root / self.names[index]

    def load(self, index: int) -> Image.Image:
        """Read image ``index`` in RGB.

        Raises:
            UserError: The image cannot be read. The message names the file.
        """
        path = self.path(index)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            if path.is_symlink():
                raise UserError(
                    f"image {path} is a link to a file that does not exist; mend or delete it, then start again"
                ) from error
            raise UserError(f"image {path} is gone; start the same command again to go on without it") from error
        except OSError as error:
            raise UserError(f"image {path} cannot be read ({explain(error)})") from error
        return decode(data, str(path), self.pixel_range)

    def present(self, index: int) -> int:
        """Return ``index``, or its stand-in if its file is gone."""
        return self.stand_ins.get(index, index)

    def fingerprint(self) -> str:
        """Return the SHA-256 digest of the names and labels. It does not depend on the path of ``root``."""
        lines = (f"{name}\t{label}\n" for name, label in zip(self.names, self.labels, strict=True))
        digest = hashlib.sha256()
        for line in lines:
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def thinned(self, limit: int) -> Source:
        """Return a source with at most ``limit`` images (0: all), spread evenly over the sorted list and so over the classes."""
        if limit == 0 or limit >= len(self):
            return self
        keep = [i * len(self) // limit for i in range(limit)]
        return replace(self, names=[self.names[i] for i in keep], labels=[self.labels[i] for i in keep])


def open_source(root: str | os.PathLike[str], layout: str = "class_folder") -> Source:
    """List the images below ``root``.

    ``class_folder``: ``root/train/CLASS/...`` (or ``root/CLASS/...`` if there is no ``train``, in any capitals); a label is
    the index of the class in sorted order. ``flat``: every image below ``root``; all labels are -1.

    Raises:
        UserError: There are no images, or the folders below ``root`` are data sets or parts of data sets, not classes.
    """
    if not str(root):
        raise UserError("data.root is not set; give the folder that holds the images, for example --data.root DIR")
    root = Path(root).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.root {root} {what}; give the folder that holds the images")
    if layout == "flat":
        names = list(image_files(root))
        source = Source(root, names, [NO_LABEL] * len(names))
    elif layout == "class_folder":
        train = split_folder(root, "train")
        classes = class_names(train or root)
        if not classes:
            raise UserError(
                f"data.root {train or root} has no class folders; for images without classes, use --data.layout flat; "
                "for ImageNet, give the folder that holds train/"
            )
        if train is None:
            refuse_sets(root, classes)
        source = open_classes(train or root, classes)
    else:
        raise UserError(f"data.layout {layout!r} is not known; choose one of {', '.join(get_args(Layout))}")
    if not source:
        raise UserError(f"data.root {root} holds no images ({', '.join(SUFFIXES)}); check that it is the right folder")
    return source


def open_classes(root: Path, classes: list[str]) -> Source:
    """List the images in the folders ``classes`` of ``root``. A label is the index in ``classes``."""
    names: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    for label, folder in enumerate(classes):
        found = [os.path.join(folder, name) for name in image_files(root / folder)]
        names += found
        labels += [label] * len(found)
        empty += [] if found else [folder]
    return Source(root, names, labels, empty=tuple(empty))
