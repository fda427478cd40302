"""Find image files: the folder of a split, the class folders, and every image below a folder.

What begins with a dot and what operating systems leave behind (`SYSTEM`) is never a class or an image. Capitals do not
matter in the names of splits and suffixes. A link to a folder is followed, unless it leads back to where it lies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from pixbench.errors import UserError, explain

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
SYSTEM = {"__macosx", "@eadir", "thumbs.db", "lost+found", "$recycle.bin", "system volume information"}
"""Names, in small letters, of what macOS, NAS boxes, file systems and Windows put beside the files of a user."""
NO_CLASSES = {
    *("val", "valid", "validation", "test", "testing", "training"),
    *("images", "imgs", "jpegimages", "masks", "annotations", "labels", "segmentationclass", "segmentationobject"),
    *("imagenet", "voc2007", "voc2012", "coco", "lvis", "cityscapes", "adechallengedata2016"),
}
"""Names, in small letters, of folders that are data sets or parts of data sets, not classes."""


def is_left_out(name: str) -> bool:
    """Return whether a file or folder of this name is hidden or belongs to the system."""
    return name.startswith(".") or name.casefold() in SYSTEM


def split_folder(home: Path, split: str) -> Path | None:
    """Return the folder of ``split`` ("train", "val") in ``home``, in any capitals; None if there is none.

    Raises:
        UserError: There are several, which differ in capitals only.
    """
    try:
        names = sorted(entry.name for entry in _listed(home) if entry.name.casefold() == split and _is_folder(entry))
    except OSError:  # what cannot be listed may still be entered
        names = [split] if os.path.isdir(home / split) else []
    if len(names) > 1:
        raise UserError(
            f"{home} holds {' and '.join(names)}, which differ in capitals only; rename or remove all but one"
        )
    return home / names[0] if names else None


def class_names(root: Path, called: str = "root") -> list[str]:
    """Return the sorted names of the class folders in ``root``, which messages call ``called``.

    Raises:
        UserError: ``root`` cannot be listed.
    """
    try:
        folders = [entry for entry in _listed(root) if _is_folder(entry)]
    except OSError as error:
        raise UserError(f"{called} {root} cannot be listed ({explain(error)})") from error
    here = (os.path.realpath(root),)
    return sorted(entry.name for entry in folders if not _leads_back(entry, here))


def refuse_sets(root: Path, names: list[str]) -> None:
    """Raise UserError if some of the folders ``names`` in ``root`` are data sets or parts of one, not classes."""
    trains = [f"{name}/{word}" for name in names if (word := _train_in(root / name))]
    sets = [path.partition("/")[0] for path in trains]
    parts = {name.casefold(): name for name in names if name.casefold() in NO_CLASSES and name not in sets}
    if not trains and not parts:
        return
    likely = sets if len(sets) == 1 else [parts[word] for word in ("training", "images") if word in parts and not sets]
    meant = (
        f"did you mean {root / likely[0]}?"
        if likely
        else "give the folder that holds train/, or one with class folders only"
    )
    raise UserError(
        f"root {root} has no train/ folder but holds {', '.join([*trains, *parts.values()][:5])}: the run would also "
        f"train on test images or label masks; {meant}"
    )


def image_files(folder: Path) -> Iterator[str]:
    """Yield the image files below ``folder``, relative to it, in an order that does not depend on the file system.

    Raises:
        UserError: A folder cannot be listed.
    """
    yield from _walk(str(folder), "", (os.path.realpath(folder),))


def loose_images(folder: Path) -> list[str]:
    """Return the names of the image files that lie directly in ``folder``."""
    return list(takewhile(lambda name: os.sep not in name, image_files(folder)))


def _walk(folder: str, below: str, reals: tuple[str, ...]) -> Iterator[str]:
    """Yield the images in ``folder``, then those of its folders. ``reals`` are the real paths of it and all above it."""
    try:
        found = sorted(_listed(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"folder {folder} cannot be listed ({error.strerror}); check its permissions") from error
    folders = [entry for entry in found if _is_folder(entry)]
    inside = {entry.name for entry in folders}
    for entry in found:
        if entry.name not in inside and entry.name.lower().endswith(SUFFIXES):
            yield os.path.join(below, entry.name)
    for entry in folders:
        if not _leads_back(entry, reals):
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(reals[-1], entry.name)
            yield from _walk(entry.path, os.path.join(below, entry.name), (*reals, real))


def _listed(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not is_left_out(entry.name)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _leads_back(entry: os.DirEntry[str], reals: tuple[str, ...]) -> bool:
    """Return whether ``entry`` is a link to one of the real paths ``reals`` or to a folder that contains one."""
    if not entry.is_symlink():
        return False
    target = os.path.realpath(entry.path)
    return any(real == target or real.startswith(target.rstrip(os.sep) + os.sep) for real in reals)


def _train_in(folder: Path) -> str | None:
    return next((word for word in ("train", "Train", "TRAIN") if os.path.isdir(folder / word)), None)
