"""Colours of classes are those of the data sets."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from transfer.datasets.classes import Classes, published_classes
from transfer.datasets.colours import colours_of


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("module", "name", "classes"),
    [
        ("voc", "PascalVOCDataset", "voc_masks.txt"),
        ("cityscapes", "CityscapesDataset", "cityscapes.txt"),
        ("ade", "ADE20KDataset", "ade20k.txt"),
    ],
)
def test_palettes_are_those_of_mmsegmentation(module: str, name: str, classes: str) -> None:
    about = getattr(importlib.import_module(f"mmseg.datasets.{module}"), name).METAINFO
    assert colours_of(published_classes(classes)).tolist() == about["palette"]


def test_own_classes_have_colours_that_differ() -> None:
    own = Classes(tuple(f"class {number}" for number in range(200)), "mine.txt", own=True)
    colours = colours_of(own)
    assert len(np.unique(colours, axis=0)) == 200
    assert colours.any(1).all()  # none is black


def test_classes_that_a_protocol_adds_are_black() -> None:
    published = published_classes("cityscapes.txt")
    found = colours_of(published, ["(ignored)", *published.names])
    assert found[0].tolist() == [0, 0, 0]
    assert found[1:].tolist() == colours_of(published).tolist()
