"""Labels as people write them. Whole numbers stay as they are; names of classes are numbered in alphabetical order."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from pixbench.errors import UserError, printable
from pretrain.data.index import HIGHEST_LABEL, NO_LABEL, Index

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
"""What is no name of a class."""
LONGEST = 1000
"""Number of characters that the name of a class may have."""
NAME, WHOLE = "a name", "a number"


class Labels:
    """The labels of one source: all of them numbers, or all of them names. `NO_LABEL` may stand beside both."""

    def __init__(self) -> None:
        self._kind, self._first = "", ""
        self._names: dict[str, int] = {}

    def read(self, text: str, where: str) -> int:
        """Return the number for the label ``text``, which is at ``where``. That of a name is final after `numbered` only.

        Raises:
            UserError: It is empty, not possible, or a name beside numbers.
        """
        try:
            number = int(text)
        except ValueError:
            return self._named(text.strip(), where)
        if not NO_LABEL <= number <= HIGHEST_LABEL:
            raise _impossible(text, where)
        if number != NO_LABEL and self._kind != WHOLE:
            self._check_kind(WHOLE, text, where)
        return number

    def numbered(self, index: Index) -> Index:
        """Return ``index``, whose labels are those that `read` returned, with the final numbers and the names of the classes."""
        if not self._names:
            return index
        classes = sorted(self._names)
        final = np.full(len(classes) + 1, NO_LABEL, np.int32)  # the last one is that of `NO_LABEL`
        final[[self._names[name] for name in classes]] = np.arange(len(classes))
        return replace(index, labels=final[index.labels], classes=tuple(classes))

    def _named(self, text: str, where: str) -> int:
        if not text:
            raise UserError(f"{where}: there is no label; write {NO_LABEL} for an image without one")
        if NUMBER.fullmatch(text) or len(text) > LONGEST or any(character < " " for character in text):
            raise _impossible(text, where)
        if self._kind != NAME:
            self._check_kind(NAME, text, where)
        return self._names.setdefault(text, len(self._names))

    def _check_kind(self, kind: str, text: str, where: str) -> None:
        if self._kind:
            raise UserError(
                f"{where}: label {printable(text.strip())!r} is {kind}, but {self._first} is {self._kind}; write all labels as "
                "names or all as whole numbers"
            )
        self._kind, self._first = kind, f"label {printable(text.strip())!r} ({where})"


def _impossible(text: str, where: str) -> UserError:
    return UserError(
        f"{where}: label {printable(text.strip()[:30])!r} is not a whole number from 0 to {HIGHEST_LABEL}, and no name"
    )
