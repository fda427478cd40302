"""Many strings in two arrays, which processes can share. A list of ten million Python strings takes about 1 GB in each of them.

Shapes: n strings, b bytes of all of them.
"""

from __future__ import annotations

import array
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np

CHUNK = 100_000
"""Number of strings that are unpacked at a time."""


class PackedStrings(Sequence[str]):
    """A sequence of strings, stored in UTF-8 one behind the other.

    Args:
        text: (b,) uint8, the bytes of all strings. Bytes of file names that are not UTF-8 are kept ("surrogateescape").
        ends: (n,) int64, where each string ends in ``text``.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self.text, self.ends = text, ends

    @classmethod
    def pack(cls, strings: Iterable[str]) -> PackedStrings:
        """Pack ``strings`` one by one; they need not be in memory together."""
        text, ends = bytearray(), array.array("q")
        for string in strings:
            text += string.encode("utf-8", "surrogateescape")
            ends.append(len(text))
        return cls(np.frombuffer(text, np.uint8), np.frombuffer(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        return self.text[start : self.ends[index]].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for chunk in self.chunks():
            for string in chunk:
                yield string.decode("utf-8", "surrogateescape")

    def chunks(self) -> Iterator[list[bytes]]:
        """Yield the bytes of all strings, `CHUNK` of them at a time."""
        for first in range(0, len(self), CHUNK):
            ends = self.ends[first : first + CHUNK].tolist()
            start = int(self.ends[first - 1]) if first else 0
            text = self.text[start : ends[-1]].tobytes()
            edges = [0, *(end - start for end in ends)]
            yield [text[a:b] for a, b in pairwise(edges)]

    def take(self, indices: Sequence[int] | np.ndarray) -> PackedStrings:
        """Return the strings ``indices`` in this order."""
        return PackedStrings.pack(self[int(index)] for index in indices)

    def hashes(self) -> np.ndarray:
        """Return a hash of each string: (n,) uint64. Two of ten million strings share one with a probability of 3e-6."""
        found = np.empty(len(self), np.uint64)
        for number, chunk in enumerate(self.chunks()):
            digests = b"".join(hashlib.blake2b(string, digest_size=8).digest() for string in chunk)
            found[number * CHUNK : number * CHUNK + len(chunk)] = np.frombuffer(digests, np.uint64)
        return found

    def first_repeated(self) -> str | None:
        """Return a string that occurs twice, or None."""
        hashes = self.hashes()
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        for place in np.flatnonzero(ordered[1:] == ordered[:-1]):
            one, other = (self[int(order[place + step])] for step in (0, 1))
            if one == other:
                return one
        return None
