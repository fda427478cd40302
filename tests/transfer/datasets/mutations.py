"""Faults that users' data sets have, made systematically: what is changed × how × in one place or all × in which split.

Each `Mutation` changes a copy of the mini world and says what must come of it:

- ``refused``: the check must have a problem.
- ``same``: it must be read, and training records and evaluation are those of the unchanged data.
- ``same or refused``: one of the two.
- ``either``: refused, or read so that training and evaluation use the same objects.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Change = Callable[[Path, random.Random], None]
SPLITS: tuple[tuple[str, ...], ...] = (("train",), ("test",), ("train", "test"))
EXTENTS = ("one", "all")


@dataclass(frozen=True)
class Kind:
    """A data set in the mini world, and a protocol that reads it."""

    parts: tuple[str, ...]
    """Folders that a copy needs."""
    data_set: str
    protocol: str


KINDS = {
    "voc": Kind(("VOC2007",), "VOC2007", "voc_c4"),
    "coco": Kind(("coco",), "coco", "coco_fpn_1x"),
    "boxes": Kind(("coco",), "coco", "coco_retinanet_1x"),
    "keypoints": Kind(("coco",), "coco_keypoints", "coco_keypoint_fpn"),
    "lvis": Kind(("coco", "lvis"), "lvis", "lvis_fpn"),
    "cityscapes": Kind(("cityscapes",), "cityscapes", "cityscapes_fcn16s"),
    "ade20k": Kind(("ADEChallengeData2016",), "ADEChallengeData2016", "ade20k_fcn_80k"),
    "instances": Kind(("cityscapes",), "cityscapes_instances", "cityscapes_instance"),
    "voc_masks": Kind(("VOC2012",), "VOC2012aug", "voc12aug_fcn16s"),
}


@dataclass(frozen=True)
class Mutation:
    """One fault."""

    kind: str
    """A key of `KINDS`."""
    name: str
    """What is changed, how, where."""
    expect: str
    change: Change
    """Makes the fault in the copied world at this path."""

    @property
    def id(self) -> str:
        """Its name in the tests."""
        return f"{self.kind}-{self.name}".replace(" ", "_")

    def apply(self, root: Path) -> None:
        """Make the fault in the world ``root``, the same every time."""
        self.change(root, random.Random(zlib.crc32(self.id.encode())))


def in_turn(number: int) -> tuple[str, ...]:
    """Return the splits of mutation ``number``: all three choices come equally often."""
    return SPLITS[number % len(SPLITS)]


def pick(items: list, extent: str, rng: random.Random) -> list:
    """Return one of ``items``, or all of them."""
    return [rng.choice(items)] if extent == "one" and items else items


def spread(mutations: list[Mutation], number: int) -> list[Mutation]:
    """Return about ``number`` of ``mutations``, evenly from each kind in the order in which they were made."""
    kinds: dict[str, list[Mutation]] = {}
    for mutation in mutations:
        kinds.setdefault(mutation.kind, []).append(mutation)
    share = number / len(mutations)
    chosen = []
    for members in kinds.values():
        wanted = max(2, round(len(members) * share))
        chosen += [members[round((k + 0.5) * len(members) / wanted - 0.5)] for k in range(wanted)]
    return chosen


# --- files of text -------------------------------------------------------------------------------------------------------

TEXT_FILES: dict[str, tuple[Callable[[bytes], bytes | None], str]] = {
    "removed": (lambda data: None, "refused"),
    "empty": (lambda data: b"", "refused"),
    "truncated": (lambda data: data[: len(data) // 2], "refused"),
    "garbage behind": (lambda data: data.rstrip() + b"\nxyz}>", "refused"),
    "zero bytes": (lambda data: bytes(len(data)), "refused"),
    "UTF-16": (lambda data: data.decode().encode("utf-16"), "same or refused"),
    "byte order mark": (lambda data: b"\xef\xbb\xbf" + data, "same or refused"),
    "Windows line ends": (lambda data: data.replace(b"\n", b"\r\n"), "same"),
    "blank lines": (lambda data: data + b"\n\n", "same"),
    "wrong encoding": (lambda data: data.replace(b"PixBench", "Künstlich".encode("latin-1")), "either"),
}


def rewrite(path: Path, how: Callable[[bytes], bytes | None]) -> None:
    """Replace the bytes of a file, or remove it."""
    data = how(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)


def text_files(
    kind: str, what: str, find: Callable[[Path, str], Iterable[Path]], **otherwise: str
) -> Iterator[Mutation]:
    """Yield faults of whole text files; ``find`` gives those of a split. Some may have another result than most files."""
    for number, (how, (make, usual)) in enumerate(TEXT_FILES.items()):
        expect = otherwise.get(how.replace(" ", "_"), usual)
        for extent in EXTENTS:
            splits = in_turn(number + (extent == "all"))

            def change(root: Path, rng: random.Random, make=make, extent=extent, splits=splits) -> None:
                for split in splits:
                    for path in pick(sorted(find(root, split)), extent, rng):
                        rewrite(path, make)

            yield Mutation(kind, f"{what}/{how}/{extent}/{'+'.join(splits)}", expect, change)


def every_mutation() -> list[Mutation]:
    """Return all mutations of all kinds."""
    import mutations_coco
    import mutations_instances
    import mutations_masks
    import mutations_pictures
    import mutations_voc

    makers = (mutations_voc, mutations_coco, mutations_pictures, mutations_masks, mutations_instances)
    return [mutation for maker in makers for mutation in maker.mutations()]
