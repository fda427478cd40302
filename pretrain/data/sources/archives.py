"""Images in tar shards or zip files. They stay packed: the index holds where in the archive each image begins.

So every image can be read at any time, in any order, and a run goes on exactly wherever it stopped.
"""

from __future__ import annotations

import glob
import os
import posixpath
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Literal, NamedTuple

import bracex
from fsspec.core import url_to_fs

from pixbench.errors import UserError, printable
from pretrain.data.folders import NO_CLASSES, SUFFIXES, is_left_out
from pretrain.data.index import NO_LABEL, Index, Place
from pretrain.data.sources.builder import Builder
from pretrain.data.sources.class_folder import beside_classes, flat_instead, way_out
from pretrain.data.sources.labels import LONGEST, Labels
from pretrain.data.sources.storage import is_url, open_archive, reason, sample

MOST_SHARDS = 1_000_000
READABLE = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: -1}
"""Methods of compression in a zip that can be read, and the sign of the sizes in the index."""


class Member(NamedTuple):
    """A file in an archive, see `Index` for ``offset`` and ``size``."""

    name: str
    offset: int
    size: int


def expand(pattern: str) -> list[str]:
    """Return the archives that ``pattern`` names: braces ("a-{000..127}.tar", "{a,b}.tar") and wildcards ("a-*.tar").

    Raises:
        UserError: There are none, or one is missing or named twice.
    """
    if os.path.exists(pattern):
        return [pattern]
    try:
        words = [str(word) for word in bracex.expand(pattern, limit=MOST_SHARDS)]
    except bracex.ExpansionLimitException as error:
        raise UserError(f"root {pattern} stands for more than {MOST_SHARDS} files; give fewer") from error
    paths = [path for word in words for path in _matches(word)]
    if missing := [path for path in paths if not is_url(path) and not os.path.isfile(path)]:
        raise UserError(
            f"{len(missing)} of the {len(paths)} archives of root {pattern} are missing ({', '.join(missing[:3])}); give a "
            "pattern of those that are there, or download the others"
        )
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise UserError(f"root {pattern} names {twice} twice; name it once")
    return paths


def _matches(word: str) -> list[str]:
    """Return the sorted files that match the wildcards in ``word``, or ``word`` if there are none."""
    if not glob.has_magic(word):
        return [word]
    if is_url(word):
        try:
            system, path = url_to_fs(word)
            found = [system.unstrip_protocol(match) for match in sorted(system.glob(path))]
        except (ImportError, OSError, ValueError) as error:
            raise UserError(f"root {word} cannot be listed ({reason(error)})") from error
    else:
        found = sorted(glob.glob(word))
    if not found:
        raise UserError(f"root {word} matches no file; check the pattern")
    return found


def short_names(paths: list[str]) -> list[str]:
    """Return the paths without the folders that all have in common: names that stay the same when the archives move."""
    folders = [path.split("/")[:-1] for path in paths]
    differs = (n for n, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1)
    common = next(differs, min(map(len, folders)))
    return ["/".join(path.split("/")[common:]) for path in paths]


def webdataset(pattern: str) -> Index:
    """List tar shards in webdataset's layout: ``KEY.jpg`` (or another image), and ``KEY.cls`` with its label, if there is one.

    The key of a file is its path up to the first dot of its name. Other files of the key are not read. The name of an image is
    that of its shard, a slash, and its path in the shard.

    Raises:
        UserError: A shard is missing, damaged or compressed, holds an image twice, or has a label that is not possible.
    """
    if os.path.isdir(pattern):
        shards = way_out(Path(pattern)) or f"give the tar shards in it, as in '{pattern}/*.tar'"
        raise UserError(f"root {pattern} is a folder; {shards}")
    paths = expand(pattern)
    if other := [path for path in paths if not path.lower().endswith(".tar")]:
        raise UserError(
            f"{other[0]} is not called .tar, so it is not taken for a shard; rename it, or give another pattern"
        )
    builder, labels, places = Builder(), Labels(), []
    for number, (path, short) in enumerate(zip(paths, short_names(paths), strict=True)):
        before = len(builder)
        with open_archive(path) as stream:
            for image, label in _labelled(stream, path, labels):
                builder.add_member(f"{short}/{image.name}", label, number, image.offset, image.size)
            places.append(_place(path, "tar", stream))
        if len(paths) > 1 and len(builder) == before:
            raise UserError(
                f"shard {path} holds no images ({', '.join(SUFFIXES)}); pack it again, or leave it out of the root"
            )
    return labels.numbered(builder.index("webdataset", *places, called=f"root {pattern}"))


def _labelled(stream: IO[bytes], path: str, read: Labels) -> Iterator[tuple[Member, int]]:
    """Yield the images in a shard with their labels."""
    images: dict[str, Member] = {}
    labels: dict[str, int] = {}
    for member in _members(stream, path):
        folder, file = posixpath.split(member.name)
        stem, _, kind = file.partition(".")
        key = posixpath.join(folder, stem)
        if f".{kind.lower()}" in SUFFIXES and not any(map(is_left_out, member.name.split("/"))):
            if key in images:
                raise UserError(
                    f"{path} holds two images of the key {printable(key)} ({printable(images[key].name)}, "
                    f"{printable(member.name)}); pack one image under each key"
                )
            images[key] = member
        elif kind == "cls":
            stream.seek(member.offset)
            text = stream.read(min(member.size, 4 * LONGEST + 1)).decode(errors="surrogateescape")
            labels[key] = read.read(text, f"{printable(member.name)} in {path}")
    for key, image in images.items():
        yield image, labels.get(key, NO_LABEL)


def _members(stream: IO[bytes], path: str) -> Iterator[Member]:
    """Yield the files in a tar file, and after them the links to files in it."""
    spans: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (info := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
                name = _plain(info.name)
                if info.isfile() and not info.issparse():
                    spans[name] = info.offset_data, info.size
                    yield Member(name, *spans[name])
                elif info.islnk():
                    links[name] = _plain(info.linkname)
                elif info.issym():
                    links[name] = _plain(posixpath.join(posixpath.dirname(info.name), info.linkname))
            stream.seek(archive.offset)
            if stream.read(tarfile.BLOCKSIZE).strip(b"\0") or stream.tell() == archive.offset:
                raise tarfile.ReadError("it does not end where a tar file ends")
    except tarfile.TarError as error:
        raise UserError(
            f"{path} cannot be read as a tar file ({error}); it must be complete and not compressed: download it again, or "
            "unpack it with gunzip"
        ) from error
    for name, target in links.items():
        if target in spans:
            yield Member(name, *spans[target])
        elif name.lower().endswith(SUFFIXES):
            raise UserError(
                f"{printable(name)} in {path} is a link to {printable(target)}, which is not in it; pack it again with tar "
                "--dereference"
            )


def _plain(name: str) -> str:
    """Return the path of a file in an archive as below its top: without "./" (`tar -cf x.tar .`), "../" and "/"."""
    return "/".join(part for part in posixpath.normpath(name).split("/") if part not in ("", ".", ".."))


def _place(path: str, kind: Literal["tar", "zip"], stream: IO[bytes]) -> Place:
    size = stream.seek(0, os.SEEK_END)
    return Place(path, kind, size, "" if is_url(path) else sample(stream.fileno(), size))


def zip_file(path: str, layout: str, guessed: bool = False) -> Index:
    """List the images in a zip, in the order and under the names that they have in the unpacked folder.

    With ``class_folder``, the folders in it are those of a class folder; with ``flat``, any. See `class_folder` for ``guessed``.

    Raises:
        UserError: It is damaged or encrypted, or has no class folders.
    """
    with open_archive(path) as stream:
        infos, place = _zip_infos(stream, path), _place(path, "zip", stream)
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
