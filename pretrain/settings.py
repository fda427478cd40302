"""All settings of a pre-training run, as dataclasses: their docstrings are the help of the command line.

`pretrain.config` reads them. The settings of each method are in its own file.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pixbench.errors import UserError
from pixbench.patience import PROCESS_TIMEOUT_H, check_timeout
from pretrain.data.augment import Recipe
from pretrain.data.pixels import PixelRange
from pretrain.data.sources import Layout
from pretrain.data.views import LocalCrops
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.named_spec import NamedSpec
from pretrain.optim import OptimizerConfig
from pretrain.schedule import ScheduleConfig

RANGE = "it must be two numbers, the smaller one first, for example [0, 4095]"
ROOTS = 'it must be a list of roots with the settings root, weight, layout and folder, e.g. "[{root: A, weight: 2}, {root: B}]"'


@dataclass(frozen=True)
class RootConfig:
    """One of several roots of images.

    Args:
        root: as `data.root`.
        weight: how often each image of this root is taken in an epoch, on average; 0.5 takes half of them.
        layout: as `data.layout`.
        folder: as `data.folder`.
    """

    root: str
    weight: float = 1.0
    layout: Layout = "auto"
    folder: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 10_000:
            raise UserError(
                f"data.mixture: the weight of {self.root} is {self.weight}; it must be above 0 and at most 10000"
            )


@dataclass(frozen=True)
class DataConfig:
    """Images, and how views are made from them.

    Args:
        root: the pre-training images: a folder (e.g. DATA/imagenet), a zip, tar shards, a list (.txt, .csv), an annotation
            file of COCO's format or an index of `pixbench data index`, see docs/data.md; `--data-root DATA` of other commands
            is the folder that contains all data sets.
        layout: "auto" (what root looks like), "class_folder" (ROOT/train/CLASS/... or ROOT/CLASS/...), "flat" (every image
            below ROOT, no labels), "list", "webdataset" or "coco".
        folder: folder to which the paths in a list or annotation file are relative; empty for the folder of the list.
        mixture: several roots instead of `root`, each with a weight, e.g. "[{root: A, weight: 2}, {root: B}]"; null for one.
        shuffle_shards: number of shards whose images are shuffled together, after the shards are shuffled; 0 shuffles all
            images together.
        backend: libraries that decode images and make views: "opencv" (with simplejpeg and PyTorch; about three times as fast),
            "pil" (Pillow and torchvision, as published), or "auto": opencv in a new run, and what it began with in an older one.
        image_size: side length of a view in pixels.
        min_scale: smallest fraction of the image area that a crop covers.
        max_scale: largest fraction of the image area that a crop covers.
        local_crops: number of further crops of each image, of smaller parts and in fewer pixels (multi-crop); only for ibot.
        local_size: side length of a local crop in pixels.
        local_min_scale: smallest fraction of the image area that a local crop covers.
        local_max_scale: largest fraction of the image area that a local crop covers.
        recipe: colour augmentation: "byol" (PixPro, BYOL), "moco_v1", "moco_v2" (DenseCL), "simclr", "plain" (none;
            supervised) or "cds".
        workers: number of data processes per training process; 0 loads images in the training process itself.
        cache: whether to decode all images once at the start and keep them in memory, which all processes of a machine share.
        limit: number of images to use, spread evenly over all; 0 uses all.
        pixel_range: the two values that become black and white in images of more than 8 bits, e.g. [0, 4095]; null finds
            them in a sample of the images.
        on_error: what to do about a broken image: "skip" takes the next one instead, and lists it in OUT/skipped.txt; "fail"
            ends the run.
        max_skipped: fraction of the images that may be broken, with "skip"; more end the run. One may always be, unless it is 0.
    """

    root: str = ""
    layout: Layout = "auto"
    folder: str = ""
    mixture: list[RootConfig] | None = None
    shuffle_shards: int = 0
    backend: Literal["auto", "opencv", "pil"] = "auto"
    image_size: int = 224
    min_scale: float = 0.08
    max_scale: float = 1.0
    local_crops: int = 0
    local_size: int = 96
    local_min_scale: float = 0.05
    local_max_scale: float = 0.25
    recipe: Recipe = "byol"
    workers: int = 8
    cache: bool = False
    limit: int = 0
    pixel_range: PixelRange | None = None
    on_error: Literal["skip", "fail"] = "skip"
    max_skipped: float = 0.01

    def __post_init__(self) -> None:
        if self.mixture is not None:
            roots = [root if isinstance(root, RootConfig) else RootConfig(**root) for root in self.mixture]
            object.__setattr__(self, "mixture", roots or None)
            if roots and (self.root or self.folder or self.shuffle_shards):
                raise UserError(
                    "data.mixture takes the place of data.root, data.folder and data.shuffle_shards; leave those out"
                )
        if not 0 <= self.max_skipped <= 1:
            raise UserError(f"data.max_skipped is {self.max_skipped}; it must be a fraction of the images, from 0 to 1")
        for kind in ("", "local_"):
            low, high = getattr(self, f"{kind}min_scale"), getattr(self, f"{kind}max_scale")
            if not 0 < low <= high <= 1:
                raise UserError(
                    f"data.{kind}min_scale {low} and data.{kind}max_scale {high} must be fractions of the image area, "
                    f"with 0 < {kind}min_scale <= {kind}max_scale <= 1"
                )
        if self.pixel_range is not None and not -math.inf < self.pixel_range[0] < self.pixel_range[1] < math.inf:
            raise UserError(f"data.pixel_range is {list(self.pixel_range)}; {RANGE}")
        _at_least(1, **{"data.image_size": self.image_size, "data.local_size": self.local_size})
        _at_least(0, **{"data.workers": self.workers, "data.limit": self.limit, "data.local_crops": self.local_crops})
        _at_least(0, **{"data.shuffle_shards": self.shuffle_shards})
        if self.mixture and self.limit:
            raise UserError("data.limit cannot be combined with data.mixture; give smaller weights")

    @property
    def local(self) -> LocalCrops:
        """The settings of local crops together."""
        return LocalCrops(self.local_crops, self.local_size, (self.local_min_scale, self.local_max_scale))

    def most_skipped(self, images: int) -> int:
        """Return how many of ``images`` images may be broken."""
        if self.on_error == "fail" or not self.max_skipped:
            return 0
        return max(1, int(self.max_skipped * images))


Tracker = Literal["wandb", "mlflow"]
"""Trackers of experiments that a run can report to."""


@dataclass(frozen=True)
class LogConfig:
    """What a run shows while it trains, see docs/watching.md. None of it changes the training.

    Args:
        views_every: number of epochs between pictures of views in the TensorBoard log; the first step has one too. 0 for none.
        knn_every: number of epochs between evaluations of the backbone by its nearest neighbours, if the images have labels;
            at most 5000 images pass through the backbone, so this takes little time on large data. 0 for none.
        trackers: where the logged values are sent too: a list of "wandb" and "mlflow", e.g. '[wandb, mlflow]'.
    """

    views_every: int = 10
    knn_every: int = 10
    trackers: tuple[Tracker, ...] = ()

    def __post_init__(self) -> None:
        _at_least(0, **{"log.views_every": self.views_every, "log.knn_every": self.knn_every})


@dataclass(frozen=True)
class AugmentConfig:
    """Where colours are changed.

    Args:
        device: "cpu" (in the data workers) or "cuda" (all views of a batch together on the GPU; the workers only decode and
            crop, so far fewer of them feed it).
    """

    device: Literal["cpu", "cuda"] = "cpu"


@dataclass(frozen=True)
class MethodConfig:
    """Name of a method, and its settings: an instance of that method's `Config`."""

    name: str
    settings: Any

    def as_dict(self) -> dict[str, Any]:
        """Return the name and the settings in one dict."""
        return {"name": self.name, **asdict(self.settings)}


@dataclass(frozen=True)
class RunConfig:
    """Settings of one pre-training run.

    Args:
        out: folder for checkpoints and logs; a run found there is continued.
        init_from: file or name of weights that the backbone starts from, in any format that `pixbench convert` reads; empty
            for random weights. Only `pixbench pretrain` reads it.
        epochs: number of passes over the images; a run that is continued may get more.
        batch_size: number of images per step, over all processes; the learning rate is proportional to it.
        accumulate: number of parts into which each step's batch is split to save memory; batch norm and losses that compare
            images see one part at a time, see docs/methods/README.md.
        activation_checkpointing: whether to keep only the input of each residual block and to compute the rest again for the
            backward pass: less memory, more time, the same values; see docs/speed.md.
        precision: "fp32", "bf16", or "fp16" with gradient scaling (GPU only).
        channels_last: whether to store feature maps with the channels innermost; faster on most machines.
        zero_init_residual: whether to start every residual block of a ResNet as the identity (last BN gamma 0).
        freeze: beginnings of the names of the backbone's parameters that are not trained, e.g. [net.patch_embed] as MoCo v3 has
            it for a ViT.
        seed: seed of the weights, the image order and the crops.
        checkpoint_every: number of epochs between two writes of OUT/checkpoint.pth.
        checkpoint_every_steps: number of steps between additional writes of OUT/checkpoint.pth; 0 for none.
        keep_every: number of epochs between checkpoints that are kept (checkpoint_ep0100.pth); 0 for none.
        keep_last: number of the newest checkpoints to have: OUT/checkpoint.pth and those before it, in OUT/earlier. If the newest
            one is damaged, the run goes on from the one before.
        max_bad_steps: number of steps in a row whose loss or gradient may be NaN or infinite. Such a step is skipped and counted;
            after one more the run stops.
        process_timeout: number of hours that a process waits for the others before it gives up.
        log_every: number of steps between lines of OUT/log.jsonl and the TensorBoard log.
        profile: number of steps to profile, a few steps after the start, into OUT/profile; 0 for none.
    """

    method: MethodConfig
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    backbone: BackboneSpec | NamedSpec = field(default_factory=BackboneSpec)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    log: LogConfig = field(default_factory=LogConfig)
    out: str = ""
    init_from: str = ""
    epochs: int = 100
    batch_size: int = 1024
    accumulate: int = 1
    activation_checkpointing: bool = False
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    zero_init_residual: bool = True
    freeze: list[str] = field(default_factory=list)
    seed: int = 0
    checkpoint_every: int = 1
    checkpoint_every_steps: int = 0
    keep_every: int = 0
    keep_last: int = 2
    max_bad_steps: int = 10
    process_timeout: float = PROCESS_TIMEOUT_H
    log_every: int = 50
    profile: int = 0

    def __post_init__(self) -> None:
        _at_least(1, epochs=self.epochs, batch_size=self.batch_size, accumulate=self.accumulate)
        _at_least(1, checkpoint_every=self.checkpoint_every, log_every=self.log_every, keep_last=self.keep_last)
        _at_least(0, seed=self.seed, checkpoint_every_steps=self.checkpoint_every_steps, keep_every=self.keep_every)
        _at_least(0, max_bad_steps=self.max_bad_steps)
        check_timeout(self.process_timeout, "process_timeout")
        _at_least(0, profile=self.profile)

    def as_dict(self) -> dict[str, Any]:
        """Return nested plain containers, as saved in checkpoints. `from_dict` is the inverse."""
        return {**asdict(self), "method": self.method.as_dict()}


def _at_least(low: int, **values: int) -> None:
    for key, value in values.items():
        if value < low:
            raise UserError(f"{key} is {value}; it must be at least {low}")
