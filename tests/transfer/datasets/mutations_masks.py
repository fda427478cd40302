"""Mutations of masks for semantic segmentation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from mutations import EXTENTS, Mutation, in_turn, pick, text_files
from PIL import Image

PLACES = {
    "cityscapes": {
        "train": "cityscapes/gtFine/train/*/*_labelTrainIds.png",
        "test": "cityscapes/gtFine/val/*/*_labelTrainIds.png",
    },
    "ade20k": {
        "train": "ADEChallengeData2016/annotations/training/*.png",
        "test": "ADEChallengeData2016/annotations/validation/*.png",
    },
    "voc_masks": {"train": "VOC2012/SegmentationClassAug/*.png", "test": "VOC2012/SegmentationClass/*.png"},
}
Array = np.ndarray


def values(make: Callable[[Array], Array], ending: str = "PNG") -> Callable[[Path], None]:
    """Change the values of a mask."""

    def change(path: Path) -> None:
        with Image.open(path) as image:
            found = np.array(image)
        Image.fromarray(make(found)).save(path, ending)

    return change


def painted(mode: str) -> Callable[[Path], None]:
    """Save a mask in the colours of its palette."""

    def change(path: Path) -> None:
        with Image.open(path) as image:
            found = image.convert("P") if image.mode != "P" else image.copy()
        found.putpalette([(37 * k) % 256 for k in range(768)])
        (found if mode == "P" else found.convert(mode)).save(path)

    return change


def keep(make: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Apply ``make`` to all labels but 255."""
    return lambda found: np.where(found == 255, 255, make(found.astype(int))).astype(np.uint8)


def label_ids(path: Path) -> None:
    other = Path(str(path).replace("labelTrainIds", "labelIds"))
    if other != path:
        path.write_bytes(other.read_bytes())


def one_value(found: Array) -> Array:
    found = found.copy()
    found[3, 3] = 200
    return found


MASKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (Path.unlink, "refused"),
    "empty": (lambda path: path.write_bytes(b""), "refused"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "refused"),
    "text": (lambda path: path.write_text("not a mask"), "refused"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "refused"),
    "shifted up": (values(keep(lambda found: found + 1)), "either"),
    "shifted down": (values(keep(lambda found: np.maximum(found - 1, 0))), "either"),
    "times 12": (values(keep(lambda found: found * 12 % 256)), "either"),
    "a label too large": (values(one_value), "refused"),
    "0 and 255": (values(lambda found: np.where(found > 0, 255, 0).astype(np.uint8)), "either"),
    "0 and 1": (values(lambda found: (found > 0).astype(np.uint8)), "either"),
    "all ignored": (values(lambda found: np.full_like(found, 255)), "either"),
    "all 0": (values(np.zeros_like), "either"),
    "three channels": (values(lambda found: np.stack([found] * 3, -1)), "refused"),
    "in colours": (painted("RGB"), "refused"),
    "in colours with alpha": (painted("RGBA"), "refused"),
    "a palette": (painted("P"), "same"),
    "grey and alpha": (values(lambda found: np.stack([found] * 2, -1)), "refused"),
    "16 bits": (values(lambda found: found.astype(np.uint16)), "same or refused"),
    "32 bits": (values(lambda found: found.astype(np.int32), "TIFF"), "same or refused"),
    "black and white": (values(lambda found: found > 0), "either"),
    "half the size": (values(lambda found: found[::2, ::2]), "refused"),
    "one pixel less": (values(lambda found: found[:-1, :-1]), "refused"),
    "turned": (values(np.rot90), "either"),
    "mirrored": (values(lambda found: found[:, ::-1]), "either"),
    "JPEG": (values(lambda found: found, "JPEG"), "either"),
    "BMP": (values(lambda found: found, "BMP"), "same or refused"),
    "label ids": (label_ids, "either"),
}


def lists(root: Path, split: str) -> list[Path]:
    return [root / f"VOC2012/ImageSets/Segmentation/{'aug' if split == 'train' else 'val'}.txt"]


def mutations() -> Iterator[Mutation]:
    """Yield all mutations of masks."""
    number = 0
    for kind, places in PLACES.items():
        for how, (make, expect) in MASKS.items():
            for extent in EXTENTS:
                number += 1
                splits = in_turn(number)

                def change(
                    root: Path, rng: random.Random, places=places, make=make, extent=extent, splits=splits
                ) -> None:
                    for split in splits:
                        for path in pick(sorted(root.glob(places[split])), extent, rng):
                            make(path)

                yield Mutation(kind, f"mask/{how}/{extent}/{'+'.join(splits)}", expect, change)
    yield from text_files("voc_masks", "list", lists, truncated="either")
