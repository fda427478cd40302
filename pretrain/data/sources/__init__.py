"""Sources of images: what people have, as one list of images that can be read one by one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from pixbench.errors import UserError, did_you_mean
from pretrain.data.folders import SUFFIXES
from pretrain.data.index import Index, Place
from pretrain.data.sources.class_folder import class_folder, classes_in, flat, way_out
from pretrain.data.sources.coco import coco
from pretrain.data.sources.list_file import list_file
from pretrain.data.sources.list_rows import TABLES
from pretrain.data.sources.shards import webdataset
from pretrain.data.sources.source import Source
from pretrain.data.sources.storage import is_url
from pretrain.data.sources.zip_file import zip_file

Layout = Literal["auto", "class_folder", "flat", "list", "webdataset", "coco"]
"""How images lie in what `data.root` names, see docs/data.md."""
INDEX_SUFFIX = ".index"
"""Suffix of a prepared index."""


def open_source(root: str | os.PathLike[str], layout: str = "auto", folder: str = "", *, begun: bool = False) -> Source:
    """List the images of ``root``. With the layout "auto", it is what ``root`` looks like.

    Messages call the arguments "root", "layout" and "folder": they are read by users of several commands, each of which has
    options of its own for them.

    Args:
        root: folder, zip, list, annotation file, shards (a pattern, also URLs), or a prepared index of one of them.
        layout: one of `Layout`.
        folder: folder to which the paths in a list or annotation file are relative.
        begun: whether a run on these images has begun: then images beside class folders do not stop it.

    Raises:
        UserError: There are no images, or ``root`` is not what ``layout`` says, or it is not clear what is meant.
    """
    root = os.path.expanduser(root)
    if not root:
        raise UserError("the root of the images is not set; give the folder that holds them")
    if layout not in get_args(Layout):
        raise UserError(
            f"layout {layout!r} is not known; choose one of {', '.join(get_args(Layout))}"
            f"{did_you_mean(layout, get_args(Layout))}"
        )
    if is_index(root):
        return Source(_prepared(root, layout, folder))
    asks = layout == "auto" and not begun
    layout = guessed(root) if layout == "auto" else layout
    if folder and layout not in ("list", "coco"):
        raise UserError(
            f"the option folder is for lists and annotation files, but root {root} is read as {layout}; leave it out"
        )
    index = _listed(root, layout, folder, asks)
    if not len(index):
        instead = (os.path.isdir(root) and way_out(Path(root))) or "check that it is the right one"
        raise UserError(f"root {root} holds no images ({', '.join(SUFFIXES)}); {instead}")
    return Source(index)


def is_index(root: str) -> bool:
    """Return whether ``root`` is called like a prepared index."""
    return root.lower().endswith(INDEX_SUFFIX) and not os.path.isdir(root)


def guessed(root: str) -> str:
    """Return the layout that ``root`` looks like."""
    suffix = os.path.splitext(root)[1].lower()
    if os.path.isdir(root) or suffix == ".zip":
        return "class_folder"
    if suffix == ".tar":
        return "webdataset"
    if suffix == ".txt" or suffix in TABLES:
        return "list"
    if suffix == ".json":
        return "coco"
    if suffix in (".tgz", ".gz", ".bz2", ".xz", ".zst"):
        raise UserError(
            f"root {root} is compressed as a whole, so no image in it can be read alone; unpack it, and give the "
            "folder or the tar file"
        )
    if is_url(root):
        raise UserError(f"root {root} is a URL, but not of .tar or .zip files; give those, or a local path")
    if not os.path.exists(root):
        raise UserError(f"root {root} does not exist; give the folder that holds the images")
    raise UserError(
        f"root {root} is not a folder, and not one of .tar, .zip, .txt, .csv, .tsv, .json and {INDEX_SUFFIX}; give one of these "
        "(docs/data.md)"
    )


def _listed(root: str, layout: str, folder: str, asks: bool) -> Index:
    if layout == "webdataset":
        return webdataset(root)
    if layout in ("class_folder", "flat") and root.lower().endswith(".zip") and not os.path.isdir(root):
        return zip_file(root, layout, asks)
    wanted, there = ("file", os.path.isfile) if layout in ("list", "coco") else ("folder", os.path.isdir)
    if not there(root):
        what = f"is not a {wanted}" if os.path.exists(root) else "does not exist"
        raise UserError(f"root {root} {what}; the layout {layout} needs the {wanted} that holds the images")
    if layout == "list":
        return list_file(Path(root), folder)
    if layout == "coco":
        return coco(Path(root), folder)
    return flat(Path(root)) if layout == "flat" else class_folder(Path(root), asks)


def _prepared(root: str, layout: str, folder: str) -> Index:
    if not os.path.exists(root):
        raise UserError(f"root {root} does not exist; make it with pixbench data index")
    index = Index.read(root, verify=True)
    if layout not in ("auto", index.layout):
        raise UserError(f"root {root} is an index of the layout {index.layout}, not {layout}; leave the layout out")
    if folder:
        if len(index.places) > 1 or index.places[0].kind != "folder":
            raise UserError(
                f"the option folder is for an index of image files, but {root} is one of archives; leave it out"
            )
        index = replace(index, places=(Place(str(Path(folder).expanduser())),))
    for place in index.places:
        there = os.path.isdir if place.kind == "folder" else os.path.isfile
        if not is_url(place.path) and not there(place.path):
            moved = "; if the folder has moved, give it with the option folder" if place.kind == "folder" else ""
            raise UserError(f"{place.path}, of which {root} is the index, is missing{moved}")
    return index


__all__ = ["INDEX_SUFFIX", "Layout", "Source", "classes_in", "guessed", "is_index", "open_source"]
