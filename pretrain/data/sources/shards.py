"""Images in tar shards, in webdataset's layout."""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pixbench.errors import UserError, printable
from pretrain.data.folders import SUFFIXES, is_left_out
from pretrain.data.index import NO_LABEL, Index
from pretrain.data.sources.archives import Member, expand, place_of, short_names
from pretrain.data.sources.builder import Builder
from pretrain.data.sources.class_folder import way_out
from pretrain.data.sources.labels import LONGEST, Labels
from pretrain.data.sources.storage import open_archive


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
            places.append(place_of(path, "tar", stream))
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
