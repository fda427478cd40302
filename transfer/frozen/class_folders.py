"""Open the class folders of a data set for classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pixbench.distributed import world_size
from pixbench.errors import UserError
from pixbench.shared_memory import shared_by_machine
from pretrain.data.folders import SUFFIXES, class_names, split_folder
from pretrain.data.index import Index
from pretrain.data.pixel_range import find_range
from pretrain.data.sources import Source, classes_in
from transfer.datasets.layout import SETS
from transfer.frozen.scenes import Labelled

SETS_OF_CLASSES = ("imagenet",)
"""Data sets in class folders."""


def class_folders(home: Path, shared: bool = True) -> tuple[Labelled, Labelled]:
    """Open the class folders ``home``/train and ``home``/val, in any capitals; hidden folders are no classes.

    Images of more than 8 bits are scaled in both by the range that those in train have.

    Args:
        home: folder of the data set.
        shared: whether all processes call this together, so that one of each machine lists the images for the others.

    Raises:
        UserError: One is missing, holds a class without images, or they do not hold the same classes.
    """
    splits = {split: split_folder(home, split) for split in ("train", "val")}
    sources: list[Source] = []
    for split, folder in splits.items():
        if folder is None:
            what = "is missing" if home.is_dir() else f"is missing, as {home} is not a folder"
            raise UserError(
                f"{home / split} {what}; it must hold a folder of images for each class: put them there, or generate a mini "
                "world (pixbench data mini --root DIR)"
            )
        sources.append(Source(_listed(folder, shared)))
    first, second = ({Path(name).parts[0] for name in source.names} for source in sources)
    if differ := sorted(first ^ second):
        capitals = {name.casefold() for name in first} == {name.casefold() for name in second}
        raise UserError(
            f"{splits['train']} and {splits['val']} contain different classes ({', '.join(differ[:5])}); "
            f"{'give them the same capitals' if capitals else 'add the missing ones'}"
        )
    found = find_range(sources[0])
    pixel_range = (found.low, found.high) if found else None
    if len(first) < 2:
        raise UserError(
            f"{sources[0].root} holds one class, {first.pop()}, so there is nothing to tell apart; add a folder of images for at "
            "least one more class, here and in val"
        )
    train, val = (replace(source, pixel_range=pixel_range) for source in sources)
    return Labelled(f"{home.name}, train", train), Labelled(f"{home.name}, test", val)


def other_counts(name: str, splits: Sequence[Labelled]) -> list[str]:
    """Return a sentence if the splits of data set ``name`` have other numbers of pictures than the published ones.

    Class folders of a user's own are read in the same way, so this is no mistake, but a difference to record.
    """
    counts = [part["count"] for part in SETS[name]["parts"]]
    found = [len(split) for split in splits]
    if found == counts:
        return []
    has, should = (" and ".join(f"{count:,}" for count in some) for some in (found, counts))
    return [f"{has} pictures for training and testing instead of the {should} of {name}"]


def _listed(folder: Path, shared: bool) -> Index:
    """List the images in the class folders of ``folder``; if ``shared``, once on each machine."""

    def found() -> Index:
        index = classes_in(folder, class_names(folder, "the folder"))
        if not len(index) or index.empty:
            where = folder / index.empty[0] if index.empty else folder
            raise UserError(
                f"{where} holds no images ({', '.join(SUFFIXES)}); {folder} must hold a folder of images for each class"
            )
        return index

    if world_size() == 1 or not shared:
        return found()
    return shared_by_machine("pixbench-index", lambda stream: found().write(stream), lambda path, _: Index.read(path))
