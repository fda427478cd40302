"""Images in a folder: one folder for each class, or any folders, without labels."""

from __future__ import annotations

import os
from pathlib import Path

from pixbench.errors import UserError
from pretrain.data.folders import class_names, image_files, refuse_sets, split_folder
from pretrain.data.index import Index, Place
from pretrain.data.sources.builder import Builder


def class_folder(root: Path) -> Index:
    """List ``root/train/CLASS/...`` (or ``root/CLASS/...`` if there is no ``train``, in any capitals).

    Raises:
        UserError: There are no class folders, or the folders are data sets or parts of data sets, not classes.
    """
    train = split_folder(root, "train")
    classes = class_names(train or root)
    if not classes:
        raise UserError(
            f"data.root {train or root} has no class folders; for images without classes, use --data.layout flat; "
            "for ImageNet, give the folder that holds train/"
        )
    if train is None:
        refuse_sets(root, classes)
    return classes_in(train or root, classes)


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


def flat(root: Path) -> Index:
    """List every image below ``root``, without labels."""
    builder = Builder()
    for name in image_files(root):
        builder.add(name)
    return builder.index("flat", Place(str(root)))
