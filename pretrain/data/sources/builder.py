"""Collect the images of a source one by one, packed from the start."""

from __future__ import annotations

import array
from typing import Any

import numpy as np

from pixbench.errors import UserError, printable
from pretrain.data.index import NO_LABEL, Index, Place
from pretrain.data.packed import PackedStrings


class Builder:
    """An `Index` in the making."""

    def __init__(self) -> None:
        self._text, self._ends, self._labels = bytearray(), array.array("q"), array.array("i")
        self._place, self._offsets, self._sizes = array.array("i"), array.array("q"), array.array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, name: str, label: int = NO_LABEL) -> None:
        """Add an image file of the only folder."""
        self._text += name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._text))
        self._labels.append(label)

    def add_member(self, name: str, label: int, place: int, offset: int, size: int) -> None:
        """Add an image in the archive number ``place``; see `Index` for ``offset`` and ``size``."""
        self.add(name, label)
        self._place.append(place)
        self._offsets.append(offset)
        self._sizes.append(size)

    def index(self, layout: str, *places: Place, called: str = "", **more: Any) -> Index:
        """Return the index. If ``called`` (where the names come from) is given, check that no name occurs twice.

        Raises:
            UserError: A name occurs twice.
        """
        names = PackedStrings(np.frombuffer(self._text, np.uint8), np.frombuffer(self._ends, np.int64))
        if called and (twice := names.first_repeated()) is not None:
            raise UserError(
                f"{called} holds {printable(twice)} twice; each image may be there once: remove one of them"
            )
        columns: dict[str, Any] = {}
        if self._place:
            kinds = {
                "place": (self._place, np.int32),
                "offsets": (self._offsets, np.int64),
                "sizes": (self._sizes, np.int64),
            }
            columns = {name: np.frombuffer(values, kind) for name, (values, kind) in kinds.items()}
        return Index(names, np.frombuffer(self._labels, np.int32), places, layout, **columns, **more)
