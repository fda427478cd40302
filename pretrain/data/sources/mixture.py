"""Several sources as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pixbench.errors import UserError
from pretrain.data.index import NO_LABEL, Index, Place
from pretrain.data.packed import PackedStrings


def joined(indices: Sequence[Index], weights: Sequence[float]) -> Index:
    """Join ``indices``; each image of number i is taken ``weights[i]`` times in an epoch.

    The names of root i begin with "i/". Labels that stand for names of classes are numbered anew, so that classes of the same
    name are one class.

    Raises:
        UserError: Some of the labels stand for names of classes, and others are mere numbers.
    """
    numbered = any(not index.classes and (index.labels != NO_LABEL).any() for index in indices)
    if numbered and any(index.classes for index in indices):
        raise UserError(
            "data.mixture joins roots whose labels are names of classes with others whose labels are numbers; give all of them "
            "in one way"
        )
    classes = tuple(sorted({name for index in indices for name in index.classes}))
    filled = {name for index in indices for name in index.classes if name not in index.empty}
    numbers = {name: number for number, name in enumerate(classes)}
    places: list[Place] = []
    place, labels = [], []
    for number, index in enumerate(indices):
        own = np.zeros(len(index), np.int32) if index.place is None else index.place
        place.append((own + len(places)).astype(np.int32))
        places += [replace(found, prefix=f"{number}/{found.prefix}") for found in index.places]
        new = np.array(
            [*(numbers[name] for name in index.classes), NO_LABEL], np.int32
        )  # the last one is that of `NO_LABEL`
        labels.append(new[index.labels] if index.classes else index.labels)
    return Index(
        names=PackedStrings.pack(f"{number}/{name}" for number, index in enumerate(indices) for name in index.names),
        labels=np.concatenate(labels),
        places=tuple(places),
        layout="mixture",
        place=np.concatenate(place),
        offsets=_joined(indices, "offsets"),
        sizes=_joined(indices, "sizes"),
        classes=classes,
        empty=tuple(name for name in classes if name not in filled),
        notes=tuple(note for index in indices for note in index.notes),
        parts=tuple((len(index), float(weight)) for index, weight in zip(indices, weights, strict=True)),
    )


def _joined(indices: Sequence[Index], name: str) -> np.ndarray | None:
    columns = [getattr(index, name) for index in indices]
    if all(column is None for column in columns):
        return None
    pairs = zip(columns, indices, strict=True)
    return np.concatenate([np.full(len(index), -1, np.int64) if column is None else column for column, index in pairs])
