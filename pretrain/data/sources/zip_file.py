"""Images in zip files, under the names and labels that they have in the unpacked folder."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from pixbench.errors import UserError, printable
from pretrain.data.folders import NO_CLASSES, SUFFIXES, is_left_out
from pretrain.data.index import NO_LABEL, Index
from pretrain.data.sources.archives import Member, place_of
from pretrain.data.sources.builder import Builder
from pretrain.data.sources.class_folder import beside_classes, flat_instead
from pretrain.data.sources.storage import open_archive

READABLE = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: -1}
"""Methods of compression in a zip that can be read, and the sign of the sizes in the index."""


def zip_file(path: str, layout: str, guessed: bool = False) -> Index:
    """List the images in a zip, in the order and under the names that they have in the unpacked folder.

    With ``class_folder``, the folders in it are those of a class folder; with ``flat``, any. See `class_folder` for ``guessed``.

    Raises:
        UserError: It is damaged or encrypted, or has no class folders.
    """
    with open_archive(path) as stream:
        infos, place = _zip_infos(stream, path), place_of(path, "zip", stream)
    members = list(_zip_members(infos, path))
    classes, filled, loose = list[str](), set[str](), list[str]()
    if layout == "class_folder" and members:
        top = _class_top([member.name for member in members], path)
        members = [member._replace(name=member.name[len(top) :]) for member in members if member.name.startswith(top)]
        loose = sorted(member.name for member in members if "/" not in member.name)
        members = [member for member in members if "/" in member.name]
        filled = {member.name.partition("/")[0] for member in members}
        classes = sorted(filled | _folders(infos, top))
        if not filled:
            raise UserError(f"root {path} has no class folders; {flat_instead(loose)}")
    labels = {name: label for label, name in enumerate(classes)}
    builder = Builder()
    for member in sorted(members, key=_walk_order):
        label = labels[member.name.partition("/")[0]] if labels else NO_LABEL
        builder.add_member(member.name, label, 0, member.offset, member.size)
    index = builder.index(layout, place, called=f"root {path}", classes=tuple(classes))
    index = replace(index, empty=tuple(name for name in classes if name not in filled))
    return beside_classes(index, loose, path, guessed)


def _walk_order(member: Member) -> list[tuple[bool, str]]:
    """Return a key that sorts as `pretrain.data.folders.image_files` does: the files of a folder, then its folders."""
    *folders, file = member.name.split("/")
    return [*((True, folder) for folder in folders), (False, file)]


def _zip_infos(stream: IO[bytes], path: str) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(stream) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(
            f"{path} cannot be read as a zip file ({error}); it must be complete: download it again"
        ) from error


def _folders(infos: list[zipfile.ZipInfo], top: str) -> set[str]:
    """Return the names of the folders in ``top`` that a zip lists, also of empty ones: they are classes too."""
    below = [info.filename[len(top) :] for info in infos if info.is_dir() and info.filename.startswith(top)]
    names = {name.partition("/")[0] for name in below} - {""}
    return {name for name in names if not is_left_out(name) and name.casefold() not in NO_CLASSES}


def _zip_members(infos: list[zipfile.ZipInfo], path: str) -> Iterator[Member]:
    for info in infos:
        if not info.filename.lower().endswith(SUFFIXES) or any(map(is_left_out, info.filename.split("/"))):
            continue
        if info.flag_bits & 1:
            raise UserError(f"{path} is encrypted; unpack it, and pack it without a password")
        if info.compress_type not in READABLE:
            raise UserError(
                f"{printable(info.filename)} in {path} is compressed by method {info.compress_type}; pack it again with zip -0"
            )
        yield Member(info.filename, info.header_offset, info.compress_size * READABLE[info.compress_type])


def _class_top(names: list[str], path: str) -> str:
    """Return what comes before the class folders in the ``names`` of a zip, with its slash."""
    folders = [name.split("/")[:-1] for name in names]
    train = {
        "/".join([*parts[:depth], ""])
        for parts in folders
        for depth in (1, 2)
        if len(parts) >= depth and parts[depth - 1].casefold() == "train"
    }
    if len(train) == 1:
        return train.pop()
    if len(train) > 1:
        raise UserError(f"{path} holds {' and '.join(sorted(train))}; pack one of them alone")
    top = ""
    if len({parts[0] for parts in folders if parts}) == 1 and all(len(parts) > 1 for parts in folders):
        top, folders = f"{folders[0][0]}/", [parts[1:] for parts in folders]
    if parts := sorted({parts[0] for parts in folders if parts and parts[0].casefold() in NO_CLASSES}):
        raise UserError(
            f"{path} has no train/ folder but holds {', '.join(parts[:5])}: the run would also train on test images or label "
            "masks; pack the class folders alone"
        )
    return top
