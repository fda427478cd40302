"""Mutations of Cityscapes' polygons and instance ids."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mutations import EXTENTS, Mutation, in_turn, pick, text_files
from mutations_coco import REMOVED, VALUES
from mutations_masks import MASKS

NOT_16_BITS = ("three channels", "grey and alpha", "JPEG", "BMP")
"""What the library cannot write of instance ids, which have 16 bits."""
FOLDERS = {"train": "train", "test": "val"}


def polygons(root: Path, split: str) -> list[Path]:
    return sorted((root / f"cityscapes/gtFine/{FOLDERS[split]}").glob("*/*_polygons.json"))


def fields() -> Iterator[Mutation]:
    """One field × one value × one or all files."""
    number = 0
    for field in ("imgHeight", "imgWidth", "objects", "label", "polygon", "deleted"):
        for how, make in VALUES.items():
            for extent in EXTENTS:
                number += 1
                splits = in_turn(number)

                def change(
                    root: Path, rng: random.Random, field=field, make=make, extent=extent, splits=splits
                ) -> None:
                    for path in pick([path for split in splits for path in polygons(root, split)], extent, rng):
                        content: dict[str, Any] = json.loads(path.read_text())
                        owners = [content] if field in content else pick(content["objects"], extent, rng)
                        for owner in owners:
                            value = make(owner.get(field))
                            if value is REMOVED:
                                owner.pop(field, None)
                            else:
                                owner[field] = value
                        path.write_text(json.dumps(content))

                yield Mutation("instances", f"{field}/{how}/{extent}/{'+'.join(splits)}", "either", change)


def masks() -> Iterator[Mutation]:
    """The instance ids."""
    for number, (how, (make, _)) in enumerate(MASKS.items()):
        if how in NOT_16_BITS:
            continue
        splits, extent = in_turn(number), EXTENTS[number % 2]

        def change(
            root: Path, rng: random.Random, make: Callable[[Path], object] = make, extent=extent, splits=splits
        ) -> None:
            found = [path for split in splits for path in polygons(root, split)]
            for path in pick(found, extent, rng):
                make(path.with_name(path.name.replace("polygons.json", "instanceIds.png")))

        yield Mutation("instances", f"instance ids/{how}/{extent}/{'+'.join(splits)}", "either", change)


def mutations() -> Iterator[Mutation]:
    """Yield all mutations of polygons and instance ids."""
    yield from fields()
    yield from masks()
    yield from text_files("instances", "json", polygons)
