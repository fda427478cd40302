"""Check that the files of the data sets are there: folders, lists, counts and sizes, as `configs/data.yaml` lists them.

`transfer.datasets.check` looks into the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from glob import escape, glob
from pathlib import Path
from typing import Any

import yaml

from pixbench.errors import UserError, did_you_mean
from pixbench.file_versions import MINI_WORLD_FILE
from pixbench.files import digest
from pixbench.paths import CONFIGS
from transfer.datasets.pictures import BROKEN, look_at, reason

SETS: dict[str, dict[str, Any]] = yaml.safe_load((CONFIGS / "data.yaml").read_text(encoding="utf-8"))
OWN = "add it, or take it out of the list"
"""What to do about a missing file of a user's own data."""
NEEDS_CLASSES = "data of your own needs --classes"
SAMPLE = 3
"""Number of pictures that are opened of a part without annotations."""


def check_layout(
    data_root: Path, name: str, thorough: bool = False, checksums: bool = False, own: bool = False
) -> list[str]:
    """Return the problems of data set ``name`` (a key of `SETS`) below ``data_root``, one line each.

    ``thorough`` also compares counts and sizes with the published ones; ``checksums`` also compares checksums, and
    reads whole files for it. With ``own``, the data is a user's own: the advice is not to download it.
    """
    home, entry, mini = home_of(data_root, name), SETS[name], f"pixbench data mini --root {data_root}"
    real = not (data_root / MINI_WORLD_FILE).is_file()
    try:
        if not data_root.is_dir():
            return [f"the data root {data_root} is not a folder; correct it, or generate a mini world there: {mini}"]
        parts = wanted_parts(home, name, own)
        if not parts:
            return []
        if own and not home.is_dir():
            return [f"{home} is missing; put your data there, in the layout of {name} (docs/data.md)"]
        if not home.is_dir():
            return [
                f"{home} is missing; download it from {entry['page']}, or generate a mini world: pixbench data mini --root DIR"
            ]
        os.listdir(home)
        found = [
            f"{problem}; {remedy or (OWN if own else _advice(part, name, data_root))}"
            for part in parts
            for problem, remedy in _part(home, part, thorough and real)
        ]
        if real and (thorough or checksums):
            found += _whole_files(home, entry, checksums)
        return list(dict.fromkeys(found))
    except OSError as error:
        return [f"{error.filename or home} cannot be read ({error.strerror or error}); check its owner and permissions"]


def home_of(data_root: Path, name: str) -> Path:
    """Return the folder of data set ``name``; raise UserError if there is no such data set."""
    if name not in SETS:
        raise UserError(f"there is no data set {name!r}{did_you_mean(name, SETS)} (known: {', '.join(SETS)})")
    return data_root / SETS[name].get("home", name)


def _advice(part: dict[str, Any], name: str, data_root: Path) -> str:
    if "unpack" in part:
        return f"unpack {part['unpack']} from {SETS[name]['page']}"
    return f"make it with: pixbench data prepare {name} --root {data_root} --write"


def wanted_parts(home: Path, name: str, own: bool) -> list[dict[str, Any]]:
    """Return the parts of data set ``name`` that are read. Of a user's own data, optional parts may be missing."""
    return [
        part
        for part in SETS[name]["parts"]
        if not (own and part.get("optional") and not (home / part["list"]).exists())
    ]


Problem = tuple[str, str]
"""What is wrong, and what to do; "" stands for downloading or making the part."""


def _part(home: Path, part: dict[str, Any], counted: bool) -> Iterator[Problem]:
    files = part.get("files", ())
    if listing := part.get("annotations") or part.get("addresses"):
        folder = home / files[0].replace("{}", "") if "annotations" in part else home / "../coco"
        yield from ((f"{path} is missing", "") for path in (home / listing, folder) if not path.exists())
        if counted and "count" in part and folder.is_dir() and (found := _files(folder)) != part["count"]:
            yield f"{folder} holds {found} images instead of {part['count']} ({NEEDS_CLASSES})", ""
        return
    where = home / part["list" if "list" in part else "images"]
    try:
        names = names_of(home, part)
    except FileNotFoundError:
        yield f"{where} is missing", ""
        return
    except ValueError as error:
        what, _, remedy = str(error).partition("; ")
        yield f"{where} {what}", remedy
        return
    if "images" in part:
        yield from _folders(home, part, names)
        if "check" in part:
            yield from _stray(home, part, set(names))
    if counted and "count" in part and len(names) != part["count"]:
        yield f"{where} holds {len(names)} images instead of {part['count']} ({NEEDS_CLASSES})", ""
    for template in files:
        missing = [path for path in (home / template.format(name) for name in names) if not path.exists()]
        if missing:
            more = f"and {len(missing) - 1} more are missing" if missing[1:] else "is missing"
            yield f"{missing[0]} {more}", _hint(missing[0])


def _hint(missing: Path) -> str:
    """Return what to do if something like the missing file is there, or ""."""
    suffix, plain = missing.suffix, missing.with_suffix("")
    if plain.suffix == suffix:
        return f"the names in the list must not end in {suffix}"
    others = [path.name for path in missing.parent.glob(f"{escape(missing.stem)}.*") if path.stem == missing.stem]
    return f"{sorted(others)[0]} is there, but the framework reads {suffix} only: save it so" if others else ""


def _stray(home: Path, part: dict[str, Any], names: set[str]) -> Iterator[Problem]:
    """Yield a problem if there are files that the frameworks list too, or that they pass over although they are pictures.

    MMSegmentation lists all folders below, hidden ones too; Detectron2 lists every file of a city of Cityscapes.
    """
    before, after = picture_of(part).split("{}")
    base, every = home / os.path.dirname(before + "x"), part["check"] == "polygons"
    known = {home / f"{before}{name}{after}" for name in names}
    read: list[Path] = []
    unread: list[Path] = []
    for parent, folders, files in os.walk(base, followlinks=True):
        if os.path.realpath(parent) in map(os.path.realpath, Path(parent).parents):
            folders.clear()  # a link that leads back
        for path in (Path(parent, name) for name in files):
            if path not in known:
                listed = path.name.endswith(after) or (every and Path(parent) != base)
                (read if listed else unread).append(path)
    if read:
        more = f" (nor are {len(read) - 1} more)" if read[1:] else ""
        yield f"{min(read)} is not where {part['images']} says{more}, but would be read", "delete or move it"
    pictures = [path for path in unread if path.suffix.lower() in (".jpg", ".jpeg", ".png") and path.name[0] != "."]
    if pictures:
        of = f"{len(pictures)} pictures" if pictures[1:] else "a picture"
        yield (
            f"{min(pictures)} would not be read ({of}), because it does not end in {after}",
            "rename it so, or take it out",
        )


def _files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _folders(home: Path, part: dict[str, Any], names: list[str]) -> Iterator[Problem]:
    """Yield a problem for each folder without images and, if nothing else reads them, each broken picture of a sample."""
    template = picture_of(part)
    full = {os.path.dirname(template.format(name)) for name in names}
    for folder in sorted(set(glob(os.path.dirname(part["images"]), root_dir=home)) - full):
        if (home / folder).is_dir():
            yield f"{home / folder} holds no images", ""
    for name in ends(names) if "check" not in part else ():
        try:
            look_at(path := home / template.format(name))
        except PermissionError:
            raise
        except BROKEN as error:
            yield f"{path} is not a readable image ({reason(error)})", ""


def names_of(home: Path, part: dict[str, Any]) -> list[str]:
    """Return the names of a part: the lines of its list, or what the stars of its pattern stand for in each matching file.

    Raises:
        FileNotFoundError: there is no such list.
        ValueError: it is empty, or not a list of names; the text goes on after the path.
    """
    if "list" in part:
        return read_list(home / part["list"])
    before, after = part["images"].split("*")[0], part["images"].split("*")[-1]
    found = sorted(glob(part["images"], root_dir=home))
    if not found:
        raise ValueError("matches no file")
    return [path[len(before) : len(path) - len(after)] for path in found]


def picture_of(part: dict[str, Any]) -> str:
    """Return the path of a picture of the part, with {} for the name."""
    if "images" in part:
        return f"{part['images'].split('*')[0]}{{}}{part['images'].split('*')[-1]}"
    return str(part["files"][0])


def read_list(path: Path) -> list[str]:
    """Return the names in an image list, one on each line."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not a text in UTF-8 ({error.reason}); save it again") from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise ValueError("is empty")
    if "\0" in text:
        raise ValueError("is not a list of names, because it has zero bytes; unpack or write it again")
    if text.startswith("\ufeff"):
        raise ValueError("begins with a byte order mark; save it as UTF-8 without it")
    if all(name.split()[-1] in ("-1", "0", "1") and len(name.split()) == 2 for name in names):
        raise ValueError(
            "has a second column of -1, 0 or 1, as the lists of a single class have; give the list of all images"
        )
    seen: set[str] = set()
    if twice := next((name for name in names if name in seen or seen.add(name)), None):  # type: ignore[func-returns-value]
        raise ValueError(f"names {twice!r} twice; delete one of the two lines")
    return names


def _whole_files(home: Path, entry: dict[str, Any], checksums: bool) -> Iterator[str]:
    """Yield a problem for each existing file with a wrong size or, on request, checksum. Archives may be deleted."""
    again = f"download it again from {entry['page']}"
    for name, size in entry.get("bytes", {}).items():
        path = home / name
        if path.is_file() and path.stat().st_size != size:
            yield f"{path} has {path.stat().st_size} bytes instead of {size}; {again}"
    for name, known in entry.get("checksums", {}).items() if checksums else ():
        for path in (home / name, home.parent / name):
            if path.is_file() and (found := digest(path, known.split()[0])) != known.split()[1]:
                yield f"{path} has the {known.split()[0]} {found} instead of {known.split()[1]}; {again}"


def ends(items: list) -> list:
    """Return the first `SAMPLE` items and the last one."""
    return items if len(items) <= SAMPLE else [*items[:SAMPLE], items[-1]]
