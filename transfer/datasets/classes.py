"""Lists of classes: those of the published data sets (`configs/classes/`), and a user's own (`--classes FILE`).

A list is a text file with one name a line, or a JSON file with the "categories" of COCO's format: any annotation file will do.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from pixbench.errors import UserError
from pixbench.paths import CONFIGS

PUBLISHED = CONFIGS / "classes"


def plain(name: str) -> str:
    """Return ``name`` in small letters and one Unicode form, without blanks, - and _: names that mean the same."""
    text = unicodedata.normalize("NFKC", name)
    return "".join(text.replace("_", " ").replace("-", " ").split()).casefold()


@dataclass(frozen=True)
class Classes:
    """The classes of a data set in the order of the model's outputs."""

    names: tuple[str, ...]
    source: str
    """The file that they come from."""
    ids: tuple[int, ...] = ()
    """Category ids of COCO's format, one for each name; empty if the source is a text file."""
    own: bool = False
    """Whether they are a user's own and not those of the published data set."""

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def places(self) -> dict[str, int]:
        """Number of each class by its `plain` name."""
        return {plain(name): number for number, name in enumerate(self.names)}

    def find(self, name: str) -> int | None:
        """Return the number of the class ``name``; capitals and blanks do not matter. None if there is no such class."""
        return self.places.get(plain(name))

    def near(self, name: str) -> str:
        """Return "; did you mean X?" for an unknown ``name``, or ""."""
        close = difflib.get_close_matches(plain(name), self.places, n=1)
        return f"; did you mean {self.names[self.places[close[0]]]}?" if close else ""

    @property
    def brief(self) -> str:
        """The number of classes and the first names."""
        listed = ", ".join(self.names[:4]) + (", …" if len(self.names) > 4 else "")
        return f"{len(self.names)} classes ({listed})" if len(self.names) > 1 else f"1 class ({listed})"


def published_classes(name: str) -> Classes:
    """Return the list ``name``, a file of `configs/classes/`."""
    found = read_classes(PUBLISHED / name)
    return Classes(found.names, f"the published list (configs/classes/{name})", found.ids)


def read_classes(path: Path) -> Classes:
    """Return a user's own list of classes.

    Raises:
        UserError: the file cannot be read, is empty, or names a class twice.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"the list of classes {path} cannot be read ({error.strerror or error})") from error
    if data.lstrip().startswith((b"{", b"[")):
        names, ids = _from_json(data, path)
    else:
        names, ids = names_in(data, path), ()
    if not names:
        raise UserError(f"the list of classes {path} is empty; write one name a line")
    if twice := _twice(map(plain, names)):
        same = " and ".join(repr(name) for name in names if plain(name) == twice)
        raise UserError(
            f"the list of classes {path} has {same}, which are the same (capitals, blanks, - and _ do not count)"
        )
    return Classes(names, str(path), ids, own=True)


def names_in(data: bytes, path: Path) -> tuple[str, ...]:
    """Return the names in the text ``data`` of the file ``path``, one a line; raise `UserError` if one cannot be a name."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(
            f"the list of classes {path} is not a text in UTF-8 ({error.reason}); write one name a line"
        ) from error
    names = tuple(" ".join(line.split()) for line in lines if line.strip())
    if strange := next((name for name in names if not name.isprintable()), None):
        raise UserError(f"the list of classes {path} has unprintable characters ({strange!r}); write one name a line")
    if strange := next((name for name in names if name.startswith(("#", "- ")) or name.endswith(":")), None):
        raise UserError(f"the list of classes {path} has the line {strange!r}; write nothing but one name a line")
    return names


def _from_json(data: bytes, path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    try:
        found = msgspec.json.decode(data, type=_Categories).categories
    except (msgspec.MsgspecError, ValueError) as error:
        raise UserError(
            f'{path} has no "categories" with id and name as in COCO\'s format ({error}); give an annotation file, or a text '
            "file with one name a line"
        ) from error
    if twice := _twice(category.id for category in found):
        raise UserError(f"{path} has two categories with id {twice}; give each its own id")
    found = sorted(found, key=lambda category: category.id)
    return tuple(category.name for category in found), tuple(category.id for category in found)


class _Category(msgspec.Struct):
    id: int
    name: str


class _Categories(msgspec.Struct):
    categories: list[_Category]


def _twice(items: Iterable[object]) -> object:
    seen: set[object] = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None
