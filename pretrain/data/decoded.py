"""All images of a run, decoded once and kept in memory that all workers and processes of a machine share.

Shapes: n images, (H, W) one of them.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from pixbench.shared_memory import shared_by_machine
from pretrain.data.pixels import BrokenImage

Decode = Callable[[int], np.ndarray]


class DecodedImages:
    """The images that ``decode`` returns for 0, ..., ``images`` - 1, as (H, W, 3) uint8. Broken ones are kept as their errors.

    The processes of a machine must build it together; one of them decodes.
    """

    def __init__(self, images: int, decode: Decode) -> None:
        self._pixels, self._table, self._errors = shared_by_machine(
            "pixbench-images", lambda stream: _write(stream, images, decode), _map
        )

    @property
    def broken(self) -> dict[int, str]:
        """What is wrong with each broken image."""
        return {index: reason for index, (_, reason) in self._errors.items()}

    def __getitem__(self, index: int) -> np.ndarray:
        if (error := self._errors.get(index)) is not None:
            raise BrokenImage(*error)
        start, height, width = self._table[index].tolist()
        return self._pixels[start : start + height * width * 3].reshape(height, width, 3)


Content = tuple[np.ndarray, dict[int, tuple[str, str]]]
"""The table with the start, height and width of each image (n, 3) int64, and the message and reason of each broken image."""


def _write(stream: BinaryIO, images: int, decode: Decode) -> Content:
    table, errors, end = np.zeros((images, 3), np.int64), {}, 0
    for index in range(images):
        try:
            image = np.ascontiguousarray(decode(index))
        except BrokenImage as error:
            errors[index] = (str(error), error.reason)
            continue
        table[index] = end, *image.shape[:2]
        end += stream.write(image.data)
    stream.write(b"\0")  # an empty file cannot be mapped
    return table, errors


def _map(path: str, content: Content) -> tuple[np.ndarray, np.ndarray, dict[int, tuple[str, str]]]:
    with open(path, "rb") as stream:
        pixels = np.frombuffer(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ), np.uint8)
    return pixels, *content
