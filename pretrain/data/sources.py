"""Find and read images: in a folder with one subfolder per class, or in any folder, without labels.

A source is a list of file names with labels. `Source.load` reads an image; `decode` converts the bytes of a file to RGB.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from PIL import Image

from pixbench.errors import UserError, explain

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
Layout = Literal["class_folder", "flat"]
"""How images lie in a folder, see `open_source`."""
NO_LABEL = -1
NO_CLASSES = {
    *("val", "validation", "test"),
    *("imagenet", "VOC2007", "VOC2012", "coco", "lvis", "cityscapes", "ADEChallengeData2016"),
}
"""Names of folders that are data sets or parts of data sets, not classes. Inside a train/ folder, every name is accepted."""


@dataclass(frozen=True)
class Source:
    """Images below ``root``: their sorted names relative to ``root``, and one label per image."""

    root: Path
    names: list[str]
    labels: list[int]

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
        except OSError as error:
            raise UserError(f"image {path} cannot be read ({explain(error)})") from error
        return decode(data, str(path))

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
        return Source(self.root, [self.names[i] for i in keep], [self.labels[i] for i in keep])


def open_source(root: str | os.PathLike[str], layout: str = "class_folder") -> Source:
    """List the images below ``root``.

    ``class_folder``: ``root/train/CLASS/...`` (or ``root/CLASS/...`` if there is no ``train``); a label is the index of the
    class in sorted order. ``flat``: every image below ``root``; all labels are -1.

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
        source = _flat(root)
    elif layout == "class_folder":
        train = root / "train"
        source = _class_folder(train) if train.is_dir() else _class_folder(root, refused=NO_CLASSES)
    else:
        raise UserError(f"data.layout {layout!r} is not known; choose one of {', '.join(get_args(Layout))}")
    if not source:
        raise UserError(f"data.root {root} holds no images ({', '.join(SUFFIXES)}); check that it is the right folder")
    return source


def decode(data: bytes, name: str) -> Image.Image:
    """Decode the bytes of an image file to RGB.

    Raises:
        UserError: The bytes are not a valid image. The message contains ``name``.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise many types of errors for broken files
        reason = "it is empty" if not data else str(error).replace("\n", " ").partition(" <_io.")[0] or repr(error)
        raise UserError(f"image {name} is broken ({reason}); replace it or delete it, then start again") from error


def _flat(root: Path) -> Source:
    names = [os.path.relpath(path, root) for path in _images(root)]
    return Source(root, names, [NO_LABEL] * len(names))


def _class_folder(root: Path, refused: Collection[str] = ()) -> Source:
    """List the images of the class folders in ``root``.

    If there are ``refused`` names, folders that contain a train/ folder are refused too: ``root`` is one level too high.
    """
    try:
        classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except OSError as error:
        raise UserError(f"data.root {root} cannot be listed ({explain(error)})") from error
    if not classes:
        raise UserError(
            f"data.root {root} has no class folders; for images without classes, use --data.layout flat; "
            "for ImageNet, give the folder that holds train/"
        )
    sets = [name for name in classes if os.path.isdir(root / name / "train")] if refused else []
    if wrong := [f"{name}/train" for name in sets] + [name for name in classes if name in refused and name not in sets]:
        meant = (
            f"did you mean {root / sets[0]}?"
            if len(sets) == 1
            else "give the folder that holds train/, or one with class folders only"
        )
        raise UserError(
            f"data.root {root} has no train/ folder but holds {', '.join(wrong[:5])}: the run would also train on test images "
            f"and label masks; {meant}"
        )
    names: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(classes):
        found = [os.path.relpath(path, root) for path in _images(root / folder)]
        names += found
        labels += [label] * len(found)
    return Source(root, names, labels)


def _images(folder: Path) -> Iterator[str]:
    """Yield the paths of the image files below ``folder``, in an order that does not depend on the file system."""

    def refuse(error: OSError) -> None:
        raise UserError(f"folder {error.filename} cannot be listed ({error.strerror}); check its permissions")

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders.sort()
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(parent, name)
