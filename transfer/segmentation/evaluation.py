"""What the result of a frozen protocol records about how its numbers were made, and the random backbone of such a protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transfer.segmentation.classes import data_sets
from transfer.segmentation.config import stride_of

if TYPE_CHECKING:
    import torch
    from mmengine.config import Config

    from transfer.job import TransferJob
    from transfer.weights import Backbone


def evaluation(job: TransferJob, config: Config, backbone: Backbone) -> dict[str, Any]:
    """Return images, pixels, stride, ignored labels and classes; the keys are those of `transfer.frozen.run`."""
    from transfer.frozen.run import pictures

    scenes: Any = pictures(job, "test")
    pixels, numbering = config.model.data_preprocessor, scenes.numbering
    train, test = (
        {step.type: step for step in data_sets(loader)[0].pipeline}
        for loader in (config.train_dataloader, config.val_dataloader)
    )
    resized, resize = train["RandomResize"], test["Resize"]
    window = config.model.test_cfg
    return {
        "backbone": backbone.source,
        "images": {
            "train": {
                "scale": list(resized.scale),
                "ratio_range": list(resized.ratio_range),
                "crop_size": list(train["RandomCrop"].crop_size),
            },
            "test": {"scale": list(resize.scale)} | {name: _plain(value) for name, value in window.items()},
        },
        "score_at": "full",
        "pixels": {"order": "RGB" if pixels.bgr_to_rgb else "BGR", "mean": list(pixels.mean), "std": list(pixels.std)},
        "stride": stride_of(config),
        "ignored": sorted(numbering.ignored),
        "classes": list(numbering.classes.names),
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def random_backbone(job: TransferJob, start: Backbone, device: torch.device) -> tuple[Backbone, dict[str, Any]]:
    """Return the fair random backbone of ``job`` from ``start``, and its record."""
    from transfer.frozen.fair_random import fair_random
    from transfer.frozen.run import pictures

    return fair_random(start, job, pictures(job, "train"), device)
