"""Check that the data sets below the data root are complete and readable; `configs/data.yaml` lists their parts.

Before a run, only the layout and a sample of the files are checked, in seconds; ``thorough`` also counts the files.
"""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from pixbench.errors import UserError, did_you_mean
from pixbench.file_versions import MINI_WORLD_FILE
from pixbench.files import digest
from pixbench.paths import CONFIGS

SETS: dict[str, dict[str, Any]] = yaml.safe_load((CONFIGS / "data.yaml").read_text(encoding="utf-8"))
SAMPLE = 3  # files of each kind that are opened
SMALL = 64 << 20  # bytes; larger JSON files are not parsed completely
CHUNK = 1 << 20


def check_dataset(data_root: Path, name: str, thorough: bool = False, checksums: bool = False) -> list[str]:
    """Return the problems of data set ``name`` (a key of `SETS`) below ``data_root``, one line each.

    ``thorough`` also compares counts and sizes with the published ones; ``checksums`` also compares checksums, and
    reads whole files for it.
    """
    home, entry, mini = home_of(data_root, name), SETS[name], f"pixbench data mini --root {data_root}"
    real = not (data_root / MINI_WORLD_FILE).is_file()
    try:
        if not data_root.is_dir():
            return [f"the data root {data_root} is not a folder; correct it, or generate a mini world there: {mini}"]
        if not home.is_dir():
            return [
                f"{home} is missing; download it from {entry['page']}, or generate a mini world: pixbench data mini --root DIR"
            ]
        os.listdir(home)
        found = [
            f"{problem}; {_advice(part, name, data_root)}"
            for part in entry["parts"]
            for problem in _part(home, part, thorough and real)
        ]
        if real and (thorough or checksums):
            found += _whole_files(home, entry, checksums)
        return list(dict.fromkeys(found))
    except OSError as error:
        return [f"{error.filename or home} cannot be read ({error.strerror or error}); check its owner and permissions"]


def require_datasets(data_root: Path, names: Iterable[str]) -> None:
    """Raise UserError if the data sets ``names`` below ``data_root`` have problems; the message lists all of them."""
    problems = list(dict.fromkeys(line for name in names for line in check_dataset(data_root, name)))
    if problems:
        raise UserError("; ".join(problems))


def home_of(data_root: Path, name: str) -> Path:
    """Return the folder of data set ``name``; raise UserError if there is no such data set."""
    if name not in SETS:
        raise UserError(f"there is no data set {name!r}{did_you_mean(name, SETS)} (known: {', '.join(SETS)})")
    return data_root / SETS[name].get("home", name)


def _advice(part: dict[str, Any], name: str, data_root: Path) -> str:
    if "unpack" in part:
        return f"unpack {part['unpack']} from {SETS[name]['page']}"
    return f"make it with: pixbench data prepare {name} --root {data_root} --write"


def _part(home: Path, part: dict[str, Any], counted: bool) -> Iterator[str]:
    listing = next(listing for listing in NAMES if listing in part)
    where, files = home / part[listing], list(part.get("files", ()))
    try:
        names = NAMES[listing](home, part[listing])
    except FileNotFoundError:
        yield f"{where} is missing"
        return
    except ValueError as error:
        yield f"{where} {error}"
        return
    if listing == "images":
        before, after = _around(part[listing])
        full = {os.path.dirname(before + name + after) for name in names}
        for folder in sorted(set(glob(os.path.dirname(part[listing]), root_dir=home)) - full):
            if (home / folder).is_dir():
                yield f"{home / folder} holds no images"
        for name in ends(names):
            yield from _unreadable(home / (before + name + after))
    if counted and "count" in part:
        folder = (home / files[0]).parent if listing == "annotations" else where
        number = len(os.listdir(folder)) if folder.is_dir() else len(names)
        if number != part["count"]:
            yield f"{folder} holds {number} images instead of {part['count']}"
    for template in files:
        paths = [home / template.format(name) for name in names]
        missing = [path for path in paths if not path.exists()]
        if missing:
            yield f"{missing[0]} " + (f"and {len(missing) - 1} more are missing" if missing[1:] else "is missing")
        for path in ends([path for path in paths if path not in set(missing)] if missing else paths):
            yield from _unreadable(path)


def _listed(home: Path, path: str) -> list[str]:
    names = (home / path).read_text(encoding="utf-8", errors="replace").split()
    if not names:
        raise ValueError("is empty")
    return names


def _matching(home: Path, pattern: str) -> list[str]:
    """Return for each matching file the part of its path that the stars of ``pattern`` stand for, as one string."""
    before, after = _around(pattern)
    found = sorted(glob(pattern, root_dir=home))
    if not found:
        raise ValueError("matches no file")
    return [path[len(before) : len(path) - len(after)] for path in found]


def _around(pattern: str) -> tuple[str, str]:
    return pattern[: pattern.index("*")], pattern[pattern.rindex("*") + 1 :]


def annotated(home: Path, name: str, field: str = "file_name") -> list[str]:
    """Return the image names in an annotation file of COCO's format: the last two path parts of each ``field``.

    Only the first names of a large file are returned.
    """
    path = home / name
    broken = ValueError("is not a complete annotation file")
    if path.stat().st_size <= SMALL:
        try:
            content = json.loads(path.read_bytes())
            if not content["images"] or not all(
                isinstance(content[key], list) for key in ("annotations", "categories")
            ):
                raise broken
            found = [str(image[field]) for image in content["images"]]
        except (ValueError, KeyError, TypeError):
            raise broken from None
    else:
        with path.open("rb") as stream:
            head = stream.read(CHUNK)
            stream.seek(-64, os.SEEK_END)
            tail = stream.read().rstrip()
        if not head.lstrip().startswith(b"{") or not tail.endswith(b"}"):
            raise broken  # an incomplete download may end anywhere
        found = re.findall(rf'"{field}":\s*"([^"]+)"', head.decode(errors="replace"))[:SAMPLE]
    return ["/".join(name.split("/")[-2:]) for name in found]


NAMES: dict[str, Callable[[Path, str], list[str]]] = {
    "list": _listed,
    "images": _matching,
    "annotations": annotated,
    "addresses": partial(annotated, field="coco_url"),
}


def _unreadable(path: Path) -> Iterator[str]:
    try:
        if path.suffix == ".xml":
            for entry in ET.parse(path).findall("object"):
                float(entry.findtext("bndbox/xmin", ""))
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
        else:
            with Image.open(path) as image:
                image.load()
    except PermissionError:
        raise
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:  # an XML ParseError is a SyntaxError
        wanted = (
            "VOC annotation" if path.suffix == ".xml" else "JSON file" if path.suffix == ".json" else "readable image"
        )
        yield f"{path} is not a {wanted} ({error})"


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
