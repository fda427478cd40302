"""Semi-supervised segmentation by U2PL (arXiv 2203.03884), as github.com/Haochen-Wang409/U2PL computes it.

A student learns from labelled pictures, from a teacher's reliable pseudo-labels, and from unreliable pixels as negatives of the
classes that they hardly belong to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixbench.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config


def check_pairs(config: Config) -> None:
    """Raise UserError if a batch of ``config`` cannot have as many labelled as unlabelled pictures."""
    loader = config.train_dataloader
    if loader.sampler.type == "InTurns" and loader.batch_size % 2:
        raise UserError(
            f"a batch of U2PL is half labelled, half unlabelled, but one GPU would get {loader.batch_size} pictures at a time "
            "(train_dataloader.batch_size); give an even number, or other --gpus or --accumulate"
        )


def register() -> None:
    """Register the parts in MMSegmentation; importing this package imports no framework."""
    from transfer.segmentation.u2pl import data, head, segmentor  # noqa: F401
