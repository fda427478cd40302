"""Colours of classes for label maps: those of the data set, or, where it has none, colours that differ well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import yaml

from pixbench.paths import CONFIGS
from transfer.datasets.classes import Classes, plain, published_classes

UNKNOWN = (0, 0, 0)
"""Colour of ignored pixels where they count as a class."""


def colours_of(classes: Classes, names: Sequence[str] | None = None) -> np.ndarray:
    """Return the colours (K, 3) uint8 of ``classes``: those of the published list, or those of VOC by number.

    Args:
        classes: the classes.
        names: the K names to colour, if a protocol adds some to ``classes``; an added one is black.
    """
    known = dict(zip(map(plain, classes.names), _palette(classes), strict=True))
    return np.array([known.get(plain(name), UNKNOWN) for name in names or classes.names], np.uint8).reshape(-1, 3)


def _palette(classes: Classes) -> list[tuple[int, int, int]]:
    published = yaml.safe_load((CONFIGS / "colours.yaml").read_text(encoding="utf-8"))
    for name, colours in published.items():
        if classes.names == published_classes(f"{name}.txt").names:
            return [(red, green, blue) for red, green, blue in colours]
    first = int(bool(classes.names) and plain(classes.names[0]) != "background")  # 0 is black, for the background
    return [voc_colour(number + first) for number in range(len(classes))]


def voc_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of label ``number`` in the label maps of VOC (VOCcode/VOClabelcolormap.m of its development kit)."""
    colour = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            colour[channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
    return colour[0], colour[1], colour[2]
