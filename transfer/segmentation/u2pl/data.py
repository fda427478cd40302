"""Data of semi-supervised segmentation: which training pictures are labelled, and batches of both kinds.

Importing this file registers its classes in MMSegmentation. ``configs/segmentation/lists/DATASET.txt`` has the published lists: a
line for each picture, its name and the fractions in whose lists it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import ConcatDataset, InfiniteSampler
from mmengine.registry import DATA_SAMPLERS
from mmseg.registry import DATASETS, TRANSFORMS

from pixbench.errors import UserError
from transfer.detection.subsets import subset
from transfer.segmentation.u2pl.settings import LISTS


def labelled_names(names: Sequence[str], published: str, fraction: int) -> set[str]:
    """Return the names of the labelled pictures: the published ones, or 1/``fraction`` of ``names`` if ``published`` is "".

    Raises:
        UserError: no such list was published, or one of its pictures is not among ``names``.
    """
    if not published:
        return set(subset(names, 100 / fraction, 0))
    lines = (LISTS / f"{published}.txt").read_text(encoding="ascii").splitlines()
    pairs = [(name, lists.split(",")) for name, lists in (line.split() for line in lines if not line.startswith("#"))]
    chosen = {name for name, lists in pairs if str(fraction) in lists}
    if not chosen:
        known = sorted({int(number) for _, lists in pairs for number in lists})
        raise UserError(
            f"there is no list of 1/{fraction} of the pictures of {published} (train_dataloader.dataset.fraction); choose one of "
            f"{', '.join(map(str, known))}, or draw pictures with --set 'train_dataloader.dataset.published=\"\"'"
        )
    if missing := sorted(chosen - set(names)):
        raise UserError(
            f"{len(missing)} of the {len(chosen)} published labelled pictures of {published} are not among the training pictures "
            f"({missing[0]}, …); restore them, or draw others with --set 'train_dataloader.dataset.published=\"\"'"
        )
    return chosen


@DATASETS.register_module()
class PartlyLabelled(ConcatDataset):
    """Data sets that are trained on together, each a second time without labels.

    Args:
        datasets: configs of the data sets, with the pipeline of labelled pictures.
        unlabelled_pipeline: the pipeline of the others, which reads no label maps.
        published: list of the labelled pictures in `LISTS`; "": draw them.
        fraction: 1/fraction of the pictures is labelled.
        options: those of ConcatDataset.
    """

    labelled: list[int]
    unlabelled: list[int]

    def __init__(
        self, datasets: Sequence[Any], unlabelled_pipeline: list[Any], published: str, fraction: int, **options: Any
    ) -> None:
        again = [{**data, "pipeline": unlabelled_pipeline} for data in datasets]
        super().__init__([*datasets, *again], **options)
        count = sum(len(data) for data in self.datasets[: len(again)])
        names = [self._name(i) for i in range(count)]
        chosen = labelled_names(names, published, fraction)
        self.labelled = [i for i in range(count) if names[i] in chosen]
        self.unlabelled = [count + i for i in range(count) if names[i] not in chosen]
        if not self.unlabelled:
            raise UserError(
                f"all {count} training pictures are labelled; add others, or raise train_dataloader.dataset.fraction"
            )

    def _name(self, index: int) -> str:
        place, _ = self._get_ori_dataset_idx(index)
        return Path(self.get_data_info(index)["img_path"]).name.removesuffix(self.datasets[place].img_suffix)


@DATA_SAMPLERS.register_module()
class InTurns(InfiniteSampler):
    """A labelled and an unlabelled picture of `PartlyLabelled` in turns, for ever; each kind is shuffled by itself."""

    def _indices_of_rank(self) -> Iterator[int]:
        kinds = (
            self._endless(kind, self.seed + n)
            for n, kind in enumerate((self.dataset.labelled, self.dataset.unlabelled))
        )
        for pair in islice(zip(*kinds, strict=True), self.rank, None, self.world_size):
            yield from pair

    def _endless(self, indices: list[int], seed: int) -> Iterator[int]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield from (indices[i] for i in torch.randperm(len(indices), generator=generator).tolist())


@TRANSFORMS.register_module()
class ResizeByFactor(BaseTransform):
    """Resize a picture and its label map by a random factor, which is smaller than 1 in half of the cases.

    Args:
        ratio_range: the smallest and the largest factor.
    """

    def __init__(self, ratio_range: tuple[float, float]) -> None:
        self.ratio_range = ratio_range

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with both resized."""
        smaller, share = torch.rand(2).tolist()
        low, high = (self.ratio_range[0], 1.0) if smaller < 0.5 else (1.0, self.ratio_range[1])
        factor = low + (high - low) * share
        return TRANSFORMS.build({"type": "Resize", "scale_factor": factor, "keep_ratio": True})(results)
