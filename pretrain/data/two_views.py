"""Samples: two views of an image, with all that was drawn for them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from torch.utils.data import Dataset

from pixbench.distributed import rank
from pixbench.errors import UserError, printable
from pretrain.data import opencv, pil
from pretrain.data.augment import LOCAL, RECIPES, Changes, Recipe
from pretrain.data.decoded import DecodedImages
from pretrain.data.pixels import BrokenImage
from pretrain.data.sources import Source
from pretrain.data.views import NO_LOCAL_CROPS, Box, LocalCrops, draw_local, draw_views
from pretrain.log.screen import tell

Backend = Literal["opencv", "pil"]
"""Names of the backends, which make the same views with other libraries."""
BACKENDS = {"opencv": opencv, "pil": pil}
SHOWN = 10
"""Number of broken images that are named after all are decoded."""
SampleId = tuple[int, int]
"""(epoch, number): a sample depends on these two numbers (and on the seed); the image is that of `EpochOrder`."""


@dataclass(frozen=True)
class Sample:
    """Two views (S, S, 3) uint8 of one image, the two boxes, the label and index of the image, and its local crops."""

    view1: np.ndarray
    view2: np.ndarray
    box1: Box
    box2: Box
    label: int
    index: int
    changes: tuple[Changes, ...] | None = None
    """Changes of colour of both views and of the local crops that are still to be applied; None if they have been."""
    local: tuple[np.ndarray, ...] = ()
    """Local crops (s, s, 3) uint8."""
    skipped: Mapping[int, str] = field(default_factory=dict)
    """Index of each broken image for which this one is taken -> what is wrong with it."""


class TooManyBroken(UserError):
    """Too many images in a row are broken; ``skipped`` holds the index of each and what is wrong with it."""

    def __init__(self, skipped: dict[int, str]) -> None:
        super().__init__(f"{len(skipped)} images in a row are broken")
        self.skipped = skipped

    def __reduce__(self) -> tuple[type[TooManyBroken], tuple[dict[int, str]]]:
        return TooManyBroken, (self.skipped,)


class TwoViews(Dataset):
    """Dataset of samples with two views, indexed by (epoch, number), see `pretrain.data.order`.

    With ``colours`` false, the changes of colour are drawn but not applied, see `pretrain.data.batched`.
    A broken image is replaced by the next one that is not, with the crops and colours of the broken one, so that the batches do
    not depend on when it broke. More than ``most_skipped`` in a row are an error; with 0, the first one is.
    """

    def __init__(
        self,
        source: Source,
        *,
        size: int,
        scale: tuple[float, float],
        recipe: Recipe,
        seed: int,
        cache: bool,
        backend: Backend = "pil",
        colours: bool = True,
        most_skipped: int = 0,
        local: LocalCrops = NO_LOCAL_CROPS,
    ):
        self.source, self.size, self.scale, self.seed = source, size, scale, seed
        self.recipe, self.most_skipped = RECIPES[recipe], most_skipped
        self.local, self.local_recipe = local, LOCAL[recipe]
        self.backend, self.colours = BACKENDS[backend], colours
        self.decoded = DecodedImages(len(source), self._decode) if cache else None  # before the workers are forked
        if self.decoded is not None and rank() == 0:
            self._tell_of(self.decoded.broken)

    def _tell_of(self, broken: dict[int, str]) -> None:
        broken = {index: reason for index, reason in broken.items() if self.source.present(index) == index}
        if not broken:
            return
        first = [f"{printable(self.source.where(index))} ({printable(broken[index])})" for index in [*broken][:SHOWN]]
        more = "; pixbench data broken lists all" if len(broken) > SHOWN else ""
        over = ", more than data.max_skipped allows" if len(broken) > self.most_skipped > 0 else ""
        tell(f"{len(broken)} of {len(self.source)} images cannot be decoded{over}: {', '.join(first)}{more}")

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, epoch: int, number: int) -> Sample:
        """Return the sample with this number in epoch ``epoch``. A stand-in has the crops of the image it is taken for.

        Raises:
            TooManyBroken: There are too many broken images in a row, or no others.
        """
        index, skipped = number % len(self.source), dict[int, str]()
        while True:
            index = self.source.present(index)
            try:
                return replace(self._views(epoch, number, index), skipped=skipped)
            except BrokenImage as error:
                if not self.most_skipped:
                    raise
                if index in skipped or len(skipped) == self.most_skipped:
                    raise TooManyBroken(skipped | {index: error.reason}) from error
                skipped[index] = error.reason
            index = (index + 1) % len(self.source)

    def _views(self, epoch: int, number: int, index: int) -> Sample:
        rng = random.Random(f"{self.seed}/{epoch}/{number}")
        image = self.decoded[index] if self.decoded is not None else self._decode(index)
        height, width = image.shape[:2]
        plans = [
            *draw_views(rng, self.recipe, width, height, self.scale),
            *draw_local(rng, self.local_recipe, width, height, self.local),
        ]
        changes = None if self.colours else tuple(plan.changes for plan in plans)
        if not self.colours:
            plans = [plan._replace(changes=Changes()) for plan in plans]
        view1, view2 = (self.backend.render(image, plan, self.size) for plan in plans[:2])
        local = tuple(self.backend.render(image, plan, self.local.size) for plan in plans[2:])
        return Sample(view1, view2, plans[0].box, plans[1].box, self.source.label(index), index, changes, local)

    def _decode(self, index: int) -> np.ndarray:
        source = self.source
        return self.backend.load(source.read(index), source.where(index), source.pixel_range)

    def __getitem__(self, sample_id: SampleId) -> Sample | UserError:
        """Return the sample. The error of a broken image is returned too, as a raised error would get a worker's traceback."""
        try:
            return self.sample(*sample_id)
        except UserError as error:
            return error
