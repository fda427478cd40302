"""Images in a folder: one folder for each class, or any folders, without labels."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from pixbench.errors import UserError, printable
from pretrain.data.folders import class_names, image_files, loose_images, refuse_sets, split_folder
from pretrain.data.index import Index, Place
from pretrain.data.sources.builder import Builder


def class_folder(root: Path, guessed: bool = False) -> Index:
    """List ``root/train/CLASS/...`` (or ``root/CLASS/...`` if there is no ``train``, in any capitals).

    Args:
        root: the folder.
        guessed: whether nobody said that it has class folders; then `beside_classes` is an error.

    Raises:
        UserError: There are no class folders, or the folders are data sets or parts of data sets, not classes.
    """
    train = split_folder(root, "train")
    home = train or root
    classes, loose = class_names(home), loose_images(home)
    if not classes:
        meant = way_out(home) or f"{flat_instead(loose)}; for ImageNet, give the folder that holds train/"
        raise UserError(f"root {home} has no class folders; {meant}")
    if train is None:
        refuse_sets(root, classes)
    return beside_classes(classes_in(home, classes), loose, str(home), guessed)


def classes_in(root: Path, classes: list[str]) -> Index:
    """List the images in the folders ``classes`` of ``root``. A label is the position in ``classes``."""
    builder, empty = Builder(), []
    for label, folder in enumerate(classes):
        before = len(builder)
        for name in image_files(root / folder):
            builder.add(os.path.join(folder, name), label)
        if len(builder) == before:
            empty.append(folder)
    return builder.index("class_folder", Place(str(root)), classes=tuple(classes), empty=tuple(empty))


def beside_classes(index: Index, loose: list[str], called: str, guessed: bool) -> Index:
    """Return the ``index`` of class folders, with a note if images, called ``loose``, lie beside them.

    Raises:
        UserError: There are some, and the class folders were only ``guessed``: it is not clear what is meant.
    """
    if not loose:
        return index
    which = f"{_counted(loose)} directly in {called}, outside of its class folders"
    if guessed:
        raise UserError(
            f"{which}: choose the layout flat to use all images without labels, or class_folder to leave out what is outside"
        )
    return replace(index, notes=(*index.notes, f"{which}, and not used; the layout flat would use all images"))


def flat_instead(loose: list[str]) -> str:
    """Say how images without classes, called ``loose``, are read."""
    there = f"{_counted(loose)} directly in it: " if loose else ""
    return f"{there}for images without classes, choose the layout flat"


def _counted(loose: list[str]) -> str:
    example = f"(for example {printable(loose[0])})"
    return f"1 image {example} lies" if len(loose) == 1 else f"{len(loose)} images {example} lie"


def flat(root: Path) -> Index:
    """List every image below ``root``, without labels."""
    builder = Builder()
    for name in image_files(root):
        builder.add(name)
    return builder.index("flat", Place(str(root)))


def way_out(folder: Path) -> str:
    """Say what to give instead of ``folder`` if it holds archives; "" if it holds none."""
    for below in ("", "*/"):
        if next(folder.glob(f"{below}*.tar"), None):
            return f"it holds tar shards: give '{folder}/{below}*.tar', in quotes"
        if (found := next(folder.glob(f"{below}*.zip"), None)) is not None:
            return f"it holds zips, for example {found}; give one of them, or unpack them"
        if (found := next(folder.glob(f"{below}*.t*gz"), next(folder.glob(f"{below}*.tar.*"), None))) is not None:
            return f"it holds archives that are compressed as a whole, for example {found}; unpack them"
    return ""
