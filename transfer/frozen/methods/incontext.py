"""Segment by retrieval ("in-context", Hummingbird): each patch gets the labels of the nearest patches in a labelled memory.

Balažević et al., "Towards In-context Scene Understanding", arXiv 2306.01667. Its code is not public; the re-implementation that
papers use is vpariza/open-hummingbird-eval. `Settings` expresses both. docs/protocols/incontext.md lists the differences.

Shapes: K classes, m patches of test pictures, n patches in the memory; a map has h × w patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from pixbench.errors import UserError
from transfer.datasets.mask_numbers import IGNORED
from transfer.frozen.crops import Crops, CropSettings
from transfer.frozen.matching import matched
from transfer.frozen.method import Measured, Run, Split
from transfer.frozen.patch_labels import class_counts, rarest
from transfer.frozen.published_lists import own_list, published_list
from transfer.frozen.scoring import Confusion, ScoreAt, labels_to_score, predicted
from transfer.frozen.search import Backend, nearest
from transfer.frozen.views import Views

SPLITS = ("train", "test")
QUERIES = 2**14
"""Number of test patches, at least, that are searched at a time: the memory is read once for them."""


@dataclass(frozen=True)
class Settings:
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
    ignored: Literal["left_out", "class_0"] = "left_out"
    """Ignored pixels in the memory: do not count (a patch without others is left out), or count as class 0, which is a class
    of its own in front of the others where files number their classes from 1 (ADE20K)."""
    masks: Literal["centre", "corner"] = "centre"
    """Pixel of a label map that a smaller one takes: see `resized_labels`."""
    matching: bool = False
    """Whether predicted classes are matched with the true ones (Hungarian method) before they are scored."""
    absent_counts: bool = False
    """Whether a class that is neither labelled nor predicted has an IoU of 0 instead of none."""
    score_at: ScoreAt = "full"
    search: Backend = "torch"


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
        UserError: a list of training pictures does not exist or does not fit the data set.
    """
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


@dataclass(frozen=True)
class Memory:
    """The labelled patches of the training views."""

    features: Tensor
    """(N, C) of all patches."""
    rows: Tensor
    """(n,) of the patches that are remembered, in ascending order."""
    shares: csr_matrix
    """(n, K) share of each class among the pixels of a patch. Most patches show one class or two."""
    unlabelled: int
    """Number of patches that were left out because all of their pixels are ignored."""


def evaluate(splits: dict[str, Split], settings: Settings, run: Run) -> Measured:
    """Return mIoU and aAcc in per cent, as the settings say and, under "mIoU_paper", as the paper's definition says."""
    train, test = (splits[name] for name in SPLITS)
    ways = {"these settings": settings}
    for name, step in STEPS.items():
        ways[name] = replace([*ways.values()][-1], **step)
    counts: dict[Any, Confusion] = {}
    facts: dict[str, Any] = {"scored at": settings.score_at}
    for labelling in {(way.ignored, way.masks): way for way in ways.values()}.values():
        memory = fill(train, labelling, run.seed)
        if labelling.ignored == settings.ignored:
            facts |= {"memory patches": len(memory.rows), "patches left out, unlabelled": memory.unlabelled}
        resolutions = {_counted(way): way for way in ways.values() if _counted(way)[:2] == _counted(labelling)[:2]}
        counts |= {key: Confusion(classes(test, way)) for key, way in resolutions.items()}
        for index, shares in retrieved(memory, test, settings, run.device):
            for key, way in resolutions.items():
                truth = numbers(truth_of(test.views, index, way), test, way, IGNORED)
                counts[key].add(truth, label_map(shares, truth.shape))
    found = {name: metrics(counts[_counted(way)], way) for name, way in ways.items()}
    steps = {name: metric["mIoU"] for name, metric in found.items()}
    *_, paper = steps.values()
    facts["class IoU"] = scored(counts[_counted(settings)], settings).iou().tolist()
    if len({*ways.values()}) > 1:
        facts["mIoU on the way to the paper's definition, same features"] = steps
        print("; ".join(f"{name}: mIoU {value:.2f}" for name, value in steps.items()))
    return Measured(found["these settings"] | {"mIoU_paper": paper}, facts)


def _counted(way: Settings) -> tuple[Any, ...]:
    """Return what decides the counted pixels; all else is done with their sums."""
    return way.ignored, way.masks, way.score_at


def fill(train: Split, settings: Settings, seed: int) -> Memory:
    """Return the memory of the training views.

    Raises:
        UserError: no pixel has a label.
    """
    count, stride = classes(train, settings), train.features.stride
    most = None if settings.memory_size is None else max(1, settings.memory_size // max(1, len(train)))
    rows, shares, unlabelled = [], [], 0
    for index, cells in enumerate(train.features.shapes):
        labels = train.views.labels(index, settings.masks == "corner")
        counts = class_counts(numbers(labels, train, settings, 0), cells, stride, count)
        kept = np.arange(len(counts)) if most is None else rarest(counts, most, np.random.default_rng((seed, index)))
        labelled = counts[kept].any(1)
        unlabelled += int((~labelled).sum())
        kept = kept[labelled]
        rows.append(train.features.starts[index] + kept)
        shares.append(csr_matrix(counts[kept] / counts[kept].sum(1, keepdims=True)))
    places = torch.from_numpy(np.concatenate(rows))
    if not len(places):
        raise UserError(f"{train.views.pictures.name} has no labelled pixel; look at its label maps")
    return Memory(train.features.cells, places, vstack(shares, format="csr"), unlabelled)


def retrieved(memory: Memory, test: Split, settings: Settings, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Yield each test picture and the class shares (h, w, K) of its patches, which its neighbours vote for."""
    features = test.features
    rows = None if len(memory.rows) == len(memory.features) else memory.rows
    for first, last in blocks(features.starts):
        queries = features.cells[features.starts[first] : features.starts[last]].to(device)
        found = nearest(queries, memory.features, settings.neighbours, "cosine", rows, settings.search)
        weights = (found.values / settings.temperature).softmax(1).cpu().numpy()
        ends = np.arange(len(weights) + 1) * settings.neighbours
        votes = csr_matrix(
            (weights.ravel(), found.patches.cpu().numpy().ravel(), ends), (len(weights), memory.shares.shape[0])
        )
        shares = torch.from_numpy((votes @ memory.shares).toarray())
        for index, some in zip(
            range(first, last), shares.split([h * w for h, w in features.shapes[first:last]]), strict=True
        ):
            yield index, some.view(*features.shapes[index], -1)


def blocks(starts: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield ranges of pictures of at least `QUERIES` patches, of which the first begin at ``starts``."""
    first = 0
    for last in range(1, len(starts)):
        if starts[last] - starts[first] >= QUERIES or last == len(starts) - 1:
            yield first, last
            first = last


def label_map(shares: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the predicted classes (H, W) of a picture: class shares (h, w, K) interpolated, the largest taken."""
    shown = shares.flatten(0, 1).any(0).nonzero().flatten()  # only these can win, and K planes of a picture are large
    return shown[predicted(shares[..., shown], (shape[0], shape[1]))]


def classes(split: Split, settings: Settings) -> int:
    """Return K. Where class 0 is one of its own, it counts."""
    return len(split.views.scenes.classes) + int(shifted(split, settings))


def shifted(split: Split, settings: Settings) -> bool:
    """Return whether ignored pixels are a class 0 in front of the others."""
    numbering = split.views.scenes.numbering
    return settings.ignored == "class_0" and numbering is not None and numbering.zero_ignored


def numbers(labels: np.ndarray, split: Split, settings: Settings, ignored: int) -> np.ndarray:
    """Return a label map with the class numbers of ``settings``, where ``ignored`` stands for what counts as class 0 or not."""
    if settings.ignored == "left_out":
        return labels
    return np.where(labels == IGNORED, ignored, labels + int(shifted(split, settings))).astype(np.uint8)


def truth_of(views: Views, index: int, settings: Settings) -> np.ndarray:
    """Return the label map that a prediction is compared with."""
    if settings.score_at == "input":
        return views.labels(index, settings.masks == "corner")
    return labels_to_score(views, index, settings.score_at)


def scored(confusion: Confusion, settings: Settings) -> Confusion:
    """Return the confusion matrix that is scored: after matching, if the settings say so."""
    return matched(confusion) if settings.matching else confusion


def metrics(confusion: Confusion, settings: Settings) -> dict[str, float]:
    """Return "mIoU" and "aAcc" in per cent.

    Raises:
        UserError: no test pixel has a label.
    """
    if not confusion.counts.any():
        raise UserError("the test pictures have no labelled pixel; look at their label maps")
    return scored(confusion, settings).metrics(settings.absent_counts)
