"""Run a frozen protocol: compute or look up the features, then let its method read them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from pixbench.process_group import check_alike
from transfer.frozen.cache import Cache
from transfer.frozen.class_folders import SETS_OF_CLASSES, class_folders
from transfer.frozen.config import FrozenConfig, resolve
from transfer.frozen.fair_random import fair_random, uncalibrated
from transfer.frozen.features import cores
from transfer.frozen.method import Measured, Run, Split
from transfer.frozen.methods import METHODS
from transfer.frozen.network import FrozenNetwork, for_images
from transfer.frozen.parallel import by_first, processes
from transfer.frozen.samples import features
from transfer.frozen.scenes import Pictures, Scenes, scenes
from transfer.frozen.views import Views, need_whole_cells
from transfer.job import Outcome, TransferJob
from transfer.run_folder import is_main
from transfer.samples import FEATURES
from transfer.weights.backbone import Backbone
from transfer.weights.vit_spec import VitSpec


def run(job: TransferJob, backbone: Backbone | None) -> Outcome:
    """Evaluate ``backbone``, or a random one, as ``job`` says. Every process of torchrun computes its share of the features."""
    start = backbone or uncalibrated(job)
    config = resolve(job, start.spec)
    method: Any = METHODS[config.method]
    workers = cores() if job.workers is None else job.workers
    about: dict[str, Any] = {}
    with processes(job.process_timeout) as device, _cache(job) as cache:
        if backbone is None:
            backbone, about["random"] = fair_random(start, job, pictures(job, "train"), device)
        network = for_images(backbone, config.images).to(device)
        check_alike("the backbone", {"digest of its weights": network.fingerprint})
        splits: dict[str, Split] = {}
        for name in method.SPLITS:
            views = views_of(job, config, name)
            if getattr(method, "WHOLE_CELLS", False):
                need_whole_cells(views, network.stride)
            splits[name] = Split(cache.features(network, views, workers), views)
            if is_main():
                print(f"features of {', '.join(job.protocol.datasets)}, {name}: {splits[name].features}", flush=True)
        run = Run(job.seed, device, job.out, network.spec)
        measured: Measured = by_first(lambda: method.evaluate(splits, config.settings, run))  # the others wait
        if job.protocol.keeps_features and is_main():
            measured.kept.arrays[FEATURES] = features(splits["test"])
    about |= {"backbone": backbone.source}
    record = about | evaluation(config, network, splits) | measured.facts if is_main() else {}
    differs = (*measured.deviations, *of_vits(network))
    return Outcome(measured.metrics, config.as_dict(), 0, differs, record, measured.kept)


def of_vits(network: FrozenNetwork) -> tuple[str, ...]:
    """Return what differs from the public definitions if ``network`` is a ViT: they run it with class token and last norm."""
    if not isinstance(network.spec, VitSpec):
        return ()
    norm = () if network.last_norm else ("the features of the ViT get no last norm, because its file holds none",)
    return ("the ViT runs without its class token, as in ViTDet", *norm)


def views_of(job: TransferJob, config: FrozenConfig, split: str) -> Views:
    """Return what the network sees of ``split``, a name among the ``SPLITS`` of the method."""
    views, method = Views(pictures(job, split), config.images), METHODS[config.method]
    if hasattr(method, "views"):
        return method.views(split, views, config.settings, job.seed)
    return views


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
    return {
        "images": asdict(config.images),
        "pixels": asdict(network.pixels),
        "spec": network.spec.as_dict(),
        "stride": network.stride,
        "pictures": {name: len(split) for name, split in splits.items()},
        "features": {name: split.features.about() for name, split in splits.items()},
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
