"""Segment by retrieval ("in-context", Hummingbird): each patch gets the labels of the nearest patches in a labelled memory.

Balažević et al., "Towards In-context Scene Understanding", arXiv 2306.01667. Its code is not public; the re-implementation that
papers use is vpariza/open-hummingbird-eval. `Settings` expresses both; docs/protocols/voc12aug_incontext.md compares them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixbench.errors import UserError
from transfer.boundaries import near_boundaries
from transfer.frozen.crops import Crops, CropSettings
from transfer.frozen.limits import need, need_order
from transfer.frozen.matching import matched, new_numbers
from transfer.frozen.memory import Labelling, fill, label_map, retrieved
from transfer.frozen.method import Measured, Run, Split
from transfer.frozen.patches import IGNORED_CLASS
from transfer.frozen.published_lists import own_list, published_list
from transfer.frozen.samples import keep_labels
from transfer.frozen.scoring import Confusion, ScoreAt, labels_to_score, need_score_at
from transfer.frozen.search import Backend, package
from transfer.frozen.views import Images, Views
from transfer.kept import Kept
from transfer.samples import chosen

SPLITS = ("train", "test")
WHOLE_CELLS = True


@dataclass(frozen=True)
class Settings(Labelling):
    """What decides the metrics besides the features."""

    neighbours: int = 30
    temperature: float = 0.02
    """The cosine of a neighbour is divided by it before the softmax."""
    memory_size: int | None = None
    """Most patches in the memory, an equal number of each training view; None to keep all."""
    passes: int = 0
    """Number of random crops of each training picture that fill the memory; 0 for the whole pictures."""
    crop_scale: tuple[float, float] = (0.5, 2.0)
    """Range of a crop's share of the picture's area; shares that do not fit are drawn again."""
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    jitter: float = 0.1
    """Most by which brightness, contrast, saturation and hue of a crop change."""
    jitter_probability: float = 0.5
    train_list: str | None = None
    """Text file with the names of the training pictures to use, one a line; None for all."""
    fraction: int = 1
    """8, 64 or 128: use a published list of 1/8, 1/64 or 1/128 of the training pictures."""
    list_seed: int = 42
    """Seed that the published list was drawn with."""
    matching: bool = False
    """Whether predicted classes are matched with the true ones (Hungarian method) before they are scored."""
    absent_counts: bool = False
    """Whether a class that is neither labelled nor predicted has an IoU of 0 instead of none."""
    score_at: ScoreAt = "full"
    search: Backend = "torch"

    def __post_init__(self) -> None:
        need(self, "neighbours", "temperature", "memory_size", "crop_scale", "crop_ratio", above=0)
        need_order(self, "crop_scale", "crop_ratio")
        need(self, "passes", least=0)
        need(self, "jitter", least=0, most=0.5)  # a hue cannot change by more
        need(self, "jitter_probability", least=0, most=1)
        need_score_at(self)


STEPS: dict[str, dict[str, Any]] = {
    "absent classes left out": {"absent_counts": False},
    "no matching": {"matching": False},
    "scored at full size": {"score_at": "full"},
    "ignored pixels left out of the memory, masks resized from pixel centres": {
        "ignored": "left_out",
        "masks": "centre",
    },
}
"""What the paper's definition says about labels and scores. Runs with other settings are also scored with one step after the
other, from the same features."""


def views(split: str, views: Views, settings: Settings, seed: int) -> Views:
    """Return the views that fill the memory or ask it.

    Raises:
        UserError: a list of training pictures does not exist or does not fit the data set, or a package is missing.
    """
    package(settings.search)
    if split != "train":
        return views
    if settings.train_list and settings.fraction != 1:
        raise UserError("settings.train_list and settings.fraction both choose training pictures; set one of them")
    scenes = views.scenes
    if settings.train_list:
        scenes = scenes.take(own_list(Path(settings.train_list)))
    elif settings.fraction != 1:
        scenes = scenes.take(published_list(scenes.name.partition(",")[0], settings.fraction, settings.list_seed))
    if not settings.passes:
        return replace(views, pictures=scenes)
    drawn = (settings.crop_scale, settings.crop_ratio, settings.jitter, settings.jitter_probability)
    return Crops(scenes, views.images, CropSettings(settings.passes, *drawn, seed))


def without_effect(images: Images, settings: Settings) -> dict[str, str]:
    """Return the keys of a config that have no effect beside the others, each with the reason. Crops are always resized."""
    crops = ("crop_scale", "crop_ratio", "jitter", "jitter_probability")
    found = {}
    if not settings.passes:
        found = images.without_effect() | {
            f"settings.{name}": "settings.passes is 0: there are no crops" for name in crops
        }
    elif not settings.jitter:
        found["settings.jitter_probability"] = "settings.jitter is 0"
    elif not settings.jitter_probability:
        found["settings.jitter"] = "settings.jitter_probability is 0"
    return found if settings.fraction != 1 else {**found, "settings.list_seed": "settings.fraction is 1"}


def evaluate(splits: dict[str, Split], settings: Settings, run: Run) -> Measured:
    """Return mIoU and aAcc in per cent, as the settings say and, under "mIoU_paper", as the paper's definition says.

    Raises:
        UserError: no pixel is labelled, or there are more neighbours than patches in the memory.
    """
    train, test = (splits[name] for name in SPLITS)
    ways = {"these settings": settings}
    for name, step in STEPS.items():
        ways[name] = replace([*ways.values()][-1], **step)
    counts: dict[Any, Confusion] = {}
    near = Confusion(_counted(settings)[0].classes(test.views.scenes))
    maps: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    shown = {*chosen(test.views.scenes.names)}
    facts: dict[str, Any] = {"score_at": settings.score_at}
    for labelling in dict.fromkeys(Labelling(way.ignored, way.masks) for way in ways.values()):
        memory = fill(train, labelling, settings.memory_size, run.seed)
        if labelling == Labelling(settings.ignored, settings.masks):
            facts |= {"memory_patches": len(memory.rows), "unlabelled_patches": memory.unlabelled}
        scenes, sizes = test.views.scenes, {way.score_at for way in ways.values() if _counted(way)[0] == labelling}
        counts |= {(labelling, size): Confusion(labelling.classes(scenes)) for size in sizes}
        for index, shares in retrieved(
            memory, test, settings.neighbours, settings.temperature, run.device, settings.search
        ):
            for size in sizes:
                truth = labelling.numbers(_truth(test.views, index, size, labelling), scenes, False)
                guess = label_map(shares, truth.shape)
                counts[labelling, size].add(truth, guess)
                if (labelling, size) != _counted(settings):
                    continue
                near.add(near_boundaries(truth), guess)
                if index in shown:
                    maps[index] = truth, guess.cpu().numpy()
    found = {name: metrics(counts[_counted(way)], way) for name, way in ways.items()}
    steps = {name: metric["mIoU"] for name, metric in found.items()}
    *_, paper = steps.values()
    final = scored(counts[_counted(settings)], settings)
    facts["iou"] = final.iou().tolist()
    if len({*ways.values()}) > 1:
        facts["mIoU_steps_to_paper"] = steps
        print("; ".join(f"{name}: mIoU {value:.2f}" for name, value in steps.items()))
    deviations = ("crops are rounded to whole grey levels before they are normalised",) if settings.passes else ()
    names = [IGNORED_CLASS] * settings.shift(test.views.scenes) + [*test.views.scenes.classes.names]
    kept = Kept()
    kept.add_areas(("mIoU", "aAcc"), test.views.scenes.names, names, final.areas(), settings.absent_counts)
    kept.add_confusion(final.counts.numpy(), names, settings.absent_counts)
    if settings.matching:
        numbers = new_numbers(counts[_counted(settings)]).numpy()
        maps = {index: (truth, numbers[guess]) for index, (truth, guess) in maps.items()}
    keep_labels(kept, test.views.scenes, names, maps)
    measured = found["these settings"] | {"mIoU_paper": paper}
    if not settings.matching:
        kept.add_areas(("boundary_mIoU",), test.views.scenes.names, names, near.areas(), file="boundaries")
        measured["boundary_mIoU"] = near.iou().nanmean().item()
    return Measured(measured, facts, deviations, kept)


def _counted(way: Settings) -> tuple[Labelling, ScoreAt]:
    """Return what decides the counted pixels; all else is done with their sums."""
    return Labelling(way.ignored, way.masks), way.score_at


def _truth(views: Views, index: int, size: ScoreAt, labelling: Labelling) -> np.ndarray:
    """Return the label map that a prediction is compared with."""
    if size == "input":
        return views.labels(index, labelling.masks == "corner")
    return labels_to_score(views, index, size)


def scored(confusion: Confusion, settings: Settings) -> Confusion:
    """Return the confusion matrix that is scored: after matching, if the settings say so."""
    return matched(confusion) if settings.matching else confusion


def metrics(confusion: Confusion, settings: Settings) -> dict[str, float]:
    """Return "mIoU" and "aAcc" in per cent."""
    return scored(confusion, settings).metrics(settings.absent_counts)
