"""Run a frozen protocol: compute or look up the features, then let its method read them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from pixbench.process_group import process_group
from transfer.frozen.cache import Cache
from transfer.frozen.class_folders import class_folders
from transfer.frozen.config import FrozenConfig, resolve
from transfer.frozen.fair_random import fair_random
from transfer.frozen.features import cores
from transfer.frozen.method import Measured, Run, Split
from transfer.frozen.methods import METHODS
from transfer.frozen.network import FrozenNetwork
from transfer.frozen.scenes import Pictures, Scenes, scenes
from transfer.frozen.views import Views
from transfer.job import Outcome, TransferJob
from transfer.run_folder import is_main
from transfer.weights.backbone import Backbone

SETS_OF_CLASSES = ("imagenet",)
"""Data sets in class folders."""


def run(job: TransferJob, backbone: Backbone | None) -> Outcome:
    """Evaluate ``backbone``, or a random one, as ``job`` says. Every process of torchrun computes its share of the features."""
    config = resolve(job)
    method: Any = METHODS[config.method]
    gpu = torch.cuda.is_available()
    with (
        (
            process_group("cuda", job.process_timeout, backend="cpu:gloo,cuda:nccl")
            if gpu
            else process_group("cpu", job.process_timeout)
        ) as device,
        _cache(job) as cache,
    ):
        if backbone is None:
            train = Views(pictures(job, "train"), config.images)
            backbone = fair_random(job, train, device)
        network = FrozenNetwork(backbone, config.images.output_stride, config.images.resize == "padded").to(device)
        splits: dict[str, Split] = {}
        for name in method.SPLITS:
            views = Views(pictures(job, name), config.images)
            if hasattr(method, "views"):
                views = method.views(name, views, config.settings, job.seed)
            splits[name] = Split(cache.features(network, views, cores() if job.workers is None else job.workers), views)
        measured = Measured({})
        if is_main():
            with torch.inference_mode(False):
                measured = method.evaluate(splits, config.settings, Run(job.seed, device, job.out, network.spec))
    record = {"backbone": backbone.source} | evaluation(config, network, splits) | measured.facts if is_main() else {}
    return Outcome(measured.metrics, config.as_dict(), 0, measured.deviations, record)


def pictures(job: TransferJob, split: str) -> Pictures:
    """Return the pictures of ``split`` ("train" or "test", whatever follows) of the data set of ``job``."""
    split = split.split()[0]
    (dataset,) = job.protocol.datasets
    if dataset in SETS_OF_CLASSES:
        return class_folders(job.data_root / dataset)[("train", "test").index(split)]
    return scenes(job.data_root, dataset, split, job.classes)


def evaluation(config: FrozenConfig, network: FrozenNetwork, splits: dict[str, Split]) -> dict[str, Any]:
    """Return what the result records about how its numbers were made."""
    images = [split.views.pictures for split in splits.values()]
    numbering = images[0].numbering if isinstance(images[0], Scenes) else None
    pixels = {"order": "BGR" if network.reverse else "RGB"}
    pixels |= {name: getattr(network, name).flatten().tolist() for name in ("mean", "std")}
    return {
        "images": asdict(config.images),
        "pixels": pixels,
        "stride": network.stride,
        "pictures": {name: len(split) for name, split in splits.items()},
        "ignored": sorted(numbering.ignored) if numbering else None,
        "classes": list(numbering.classes.names) if numbering else None,
    }


@contextmanager
def _cache(job: TransferJob) -> Iterator[Cache]:
    """Yield the cache that the user names, or one in the run folder that is removed at the end."""
    if job.cache:
        yield Cache(job.cache, job.cache_gb)
        return
    own = job.out / ".features"
    try:
        yield Cache(own, job.cache_gb)
    finally:
        if is_main():
            shutil.rmtree(own, ignore_errors=True)
