"""Add a pre-training method of your own in one file: write it, register it, train it, convert the checkpoint.

The method is SimSiam (Chen and He, arXiv 2011.10566): two views, one network, a predictor, and no gradient through the
side that is predicted. It has no negatives and no momentum encoder. The code follows the paper; its published results
have not been reproduced here. Start it with

    python examples/new_method.py --images imagenet --out runs/simsiam

The folder of images is laid out as ImageNet (train/CLASS/...). The example writes the run folder and OUT/backbone.pth,
the same weights for MMSegmentation. Everything else comes from the engine: data loading, augmentation, optimiser,
schedule, mixed precision, checkpoints, and continuing after a stop.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain import METHODS, Method, ResNet, Views, cosine_regression, from_dict, train
from pretrain.methods.base import feature_std
from transfer.weights import convert, load


def layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """Return a linear layer, batch norm (whose offset takes the place of the bias) and ReLU."""
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)


class SimSiam(Method):
    """Predict the projection of one view from the other, both ways, with one network and a stop-gradient."""

    title = "SimSiam: predict the other view, with a stop-gradient"
    exports = ("backbone",)  # sub-modules that conversion takes; projector and predictor are left behind

    @dataclass(frozen=True)
    class Config:
        """Settings of SimSiam, with the values of the paper.

        Args:
            hidden: width of the projector, in all its layers.
            bottleneck: width of the predictor's hidden layer.
        """

        hidden: int = 2048
        bottleneck: int = 512

    config: Config

    def __init__(self, backbone: ResNet, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        width, narrow = config.hidden, config.bottleneck
        last = layer(width, width)[:2]  # without ReLU
        self.projector = nn.Sequential(*layer(backbone.channels, width), *layer(width, width), *last)
        self.predictor = nn.Sequential(*layer(width, narrow), nn.Linear(narrow, width))

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return "loss" (mean negative cosine, in [-1, 1]) and "feature_std" (near 0 if all projections are the same)."""
        projections = [self.projector(self.backbone(x).mean(dim=(2, 3))) for x in (views.view1, views.view2)]  # (B, C)
        predictions = [F.normalize(self.predictor(z), dim=1) for z in projections]
        fixed = [F.normalize(z.detach(), dim=1) for z in projections]  # the stop-gradient
        both = cosine_regression(predictions[0], fixed[1]) + cosine_regression(predictions[1], fixed[0])
        return {"loss": both / 4, "feature_std": feature_std(torch.cat(projections))}


METHODS["simsiam"] = SimSiam  # now it is a method like the others; its Config holds the settings below "method"


def main() -> None:
    """Train with SimSiam, convert the checkpoint, load the converted file and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder with train/CLASS/...; at least BATCH_SIZE images")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--width", type=float, default=0.25, help="factor of the ResNet-50's and the heads' channels")
    args = parser.parse_args()

    config = from_dict(
        {
            "method": {"name": "simsiam", "hidden": int(2048 * args.width), "bottleneck": int(512 * args.width)},
            "data": {"root": args.images, "image_size": 64, "min_scale": 0.2, "recipe": "moco_v2", "workers": 0},
            "backbone": {"depth": 50, "width": args.width},
            # The paper's rate is 0.05 for 100 epochs on ImageNet; this run has 50 steps.
            "optimizer": {"name": "sgd", "base_lr": 2.0, "momentum": 0.9, "weight_decay": 1e-4},
            "schedule": {"name": "cosine", "warmup_epochs": 0, "min_lr": 0.0},
            **{"out": str(args.out), "epochs": args.epochs, "batch_size": args.batch_size, "log_every": 1},
        }
    )
    train(config)

    checkpoint, converted = args.out / "checkpoint.pth", args.out / "backbone.pth"
    done = convert(
        checkpoint, converted, "mmseg", check_forward=False
    )  # check_forward=True also compares the maps in MMSegmentation
    print(f"{converted}: {done.written}; left behind: {done.reading.counts.dropped}")
    before, after = load(checkpoint).state, load(converted).state
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    print(f"{len(after)} tensors are the same in both files")


if __name__ == "__main__":
    main()
