"""What a job costs: GPU-hours from published rates, and bytes on the disk.

Nothing here was measured by us. The hours are those of a GPU that never waits, for images or for other GPUs, and evaluation is
left out. So they are a lower bound; whoever sets a time limit by them should allow for twice as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import yaml

from benchmarks.dry_step import dry_step
from benchmarks.jobs import Job
from pixbench.paths import CONFIGS
from pretrain.config import parse
from pretrain.settings import RunConfig
from transfer.datasets.layout import SETS
from transfer.protocols import Protocol, find_protocol

A100 = {"fp32": 938, "bf16": 2470, "fp16": 2470}
"""Images/s of supervised training of ResNet-50 on one A100, with TF32 and with mixed precision: NVIDIA/DeepLearningExamples,
PyTorch/Classification/ConvNets/resnet50v1.5/README.md, "Training performance: NVIDIA DGX A100"."""
IMAGENET = int(SETS["imagenet"]["parts"][0]["count"])
"""Number of ImageNet's training images."""
NO_RATE = "no rate is published for mini scale"
FROZEN = "no rate of frozen protocols on a GPU is published or measured; `docs/frozen.md` has their time on two cores"
ITERATIONS = {"detectron2": "SOLVER.MAX_ITER", "mmseg": "train_cfg.max_iters"}
"""Framework -> setting with the number of iterations."""


class Cost(NamedTuple):
    """GPU-hours of a job."""

    gpu_hours: float
    gpu: str
    """The GPU that needs so many: "V100" or "A100"."""


@cache
def reference_operations() -> float:
    """Return the operations for an image in the supervised training that `A100` is about."""
    step = dry_step(parse(["--config", str(CONFIGS / "pretrain" / "supervised_90ep.yaml")]))
    return step.operations / step.images


def images_per_second(config: RunConfig) -> float:
    """Return about how many images of a run of ``config`` one A100 can take in a second, by the number of operations.

    For networks much smaller than a ResNet-50 this is far too many: then a GPU does not wait for operations.
    """
    step = dry_step(config)
    return A100[config.precision] * reference_operations() / (step.operations / step.images)


def pretraining(config: RunConfig, images: int = 0) -> Cost:
    """Return the cost of a run of ``config`` on so many images (0: those of ImageNet, or ``data.limit`` of them)."""
    steps = (images or min(config.data.limit or IMAGENET, IMAGENET)) // config.batch_size * config.epochs
    return Cost(steps * config.batch_size / images_per_second(config) / 3600, "A100")


def fine_tuning(protocol: Protocol, iterations: int | None = None) -> Cost | None:
    """Return the cost of a run of ``protocol`` at paper scale with so many iterations (None: the published number)."""
    if (hours := protocol.gpu_hours) is None:
        return None
    share = 1.0 if iterations is None else iterations / protocol.cost["iterations"]
    return Cost(hours * share, str(protocol.cost["gpus"]).split()[1])


def cost(job: Job) -> Cost | None:
    """Return the cost of ``job``; None if it is not known (transfer at mini scale, frozen protocols), or if the job uses no GPU.

    Raises:
        UserError: A setting of the job is wrong.
    """
    if job.command_name not in ("pretrain", "transfer") or job.command_name not in job.command:
        return None
    words = job.command[job.command.index(job.command_name) + 1 :]
    if job.command_name == "pretrain":
        return pretraining(parse(words))
    if option(words, "--scale") == "mini":
        return None
    protocol = find_protocol(words[0])
    if not protocol.cost:
        return None
    given = option(words, "--set", f"{ITERATIONS[protocol.framework]}=")
    return fine_tuning(protocol, int(yaml.safe_load(given)) if given else None)


def unknown(protocol: Protocol, scale: str) -> str:
    """Return why the GPU-hours of a run of ``protocol`` are not known."""
    return FROZEN if protocol.kind == "frozen" else NO_RATE if scale == "mini" else "its protocol has no published rate"


def hours(job: Job, gpus: int) -> float | None:
    """Return the hours that ``job`` needs at least on so many GPUs of all its machines together; None as in `cost`."""
    found = cost(job)
    return found and found.gpu_hours / gpus


def option(words: Sequence[str], name: str, begins: str = "") -> str:
    """Return the last value of the option ``name`` that begins so, without that beginning; "" if there is none."""
    values = [value for word, value in pairwise(words) if word == name and value.startswith(begins)]
    return values[-1].removeprefix(begins) if values else ""


def disk(config: RunConfig) -> int:
    """Return the bytes of all checkpoints of a run of ``config``: the newest, those that are kept, and one being written."""
    kept = config.epochs // config.keep_every if config.keep_every else 0
    return dry_step(config).checkpoint * (config.keep_last + kept + 1)
