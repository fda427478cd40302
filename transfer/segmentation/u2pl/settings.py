"""Settings of U2PL that would stop a run, or keep it from ever beginning. Importing this file imports no framework."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pixbench.errors import UserError
from pixbench.paths import CONFIGS
from transfer.protocols import leaves

if TYPE_CHECKING:
    from mmengine.config import Config

MODES = ("cutmix", "cutout", "classmix")
"""What ``model.mixing`` can be, see `transfer.segmentation.u2pl.mixing`."""
LISTS = CONFIGS / "segmentation" / "lists"
"""Folder of the published lists of labelled pictures."""
_RANGES: dict[str, tuple[float, float, str]] = {
    "train_dataloader.dataset.fraction": (2, math.inf, "a number from 2"),
    "model.epochs": (1, math.inf, "a number from 1"),
    "model.epoch_iterations": (1, math.inf, "a number from 1"),
    "model.warm_up_epochs": (0, math.inf, "a number from 0"),
    "model.ema_decay": (0, 1, "a number from 0 to 1"),
    "model.drop_percent": (math.ulp(0), 100, "above 0 to 100 percent"),
    "model.low_entropy_threshold": (0, 100, "from 0 to 100 percent"),
    "model.contrast_weight": (0, math.inf, "a number from 0"),
    "model.contrast.num_queries": (1, math.inf, "a number from 1"),
    "model.contrast.num_negatives": (1, math.inf, "a number from 1"),
    "model.contrast.temperature": (math.ulp(0), math.inf, "a number above 0"),
    "model.ohem.thresh": (0, 1, "a number from 0 to 1"),
    "model.ohem.min_kept": (1, math.inf, "a number from 1"),
}
"""Key of a setting -> its smallest and its largest value, and both in words."""


def check(config: Config, processes: int = 1) -> None:
    """Raise UserError if ``config`` is one of U2PL and would stop, or never begin, in so many ``processes``."""
    loader, model = config.train_dataloader, config.model
    if loader.sampler.type != "InTurns":
        return
    settings = dict(leaves(config.to_dict()))
    for key, (least, most, words) in _RANGES.items():
        if key in settings and not least <= settings[key] <= most:
            raise UserError(f"{key} is {settings[key]}, but must be {words}; correct it, or leave it out")
    if model.mixing not in MODES:
        raise UserError(f"model.mixing is {model.mixing!r}, but must be one of {', '.join(MODES)}; correct it")
    if len(model.memory) != 2 or min(model.memory) < 1:
        raise UserError(f"model.memory is {tuple(model.memory)}, but must be two numbers from 1; correct it")
    known = sorted(path.stem for path in LISTS.glob("*.txt"))
    if (published := loader.dataset.published) and published not in known:
        raise UserError(
            f"train_dataloader.dataset.published is {published!r}, but must be one of {', '.join(known)}, or '' to draw the "
            "labelled pictures; correct it"
        )
    if (last := model.epochs * model.epoch_iterations) < (wanted := config.train_cfg.max_iters):
        raise UserError(
            f"train_cfg.max_iters is {wanted}, but the share of unreliable pixels falls to 0 over model.epochs × "
            f"model.epoch_iterations = {last} iterations; raise one of these"
        )
    if loader.batch_size == 2 and processes == 1:
        raise UserError(
            "a batch of U2PL with 1 labelled picture has no statistics for the batch norm of its pooled map; give 4 pictures or "
            "more (auto_scale_lr.base_batch_size), or fewer parts (--accumulate)"
        )
    if loader.batch_size % 2:
        raise UserError(
            f"a batch of U2PL is half labelled, half unlabelled, but one GPU would get {loader.batch_size} pictures at a time "
            "(train_dataloader.batch_size); give an even number, or other --gpus or --accumulate"
        )
