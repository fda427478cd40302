"""What a pre-training run needs of a machine, compared with what this machine has: `pixbench doctor --config FILE`."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import costs
from benchmarks.check.pretraining import check_split
from benchmarks.dry_step import dry_step
from benchmarks.input_rate import PHOTOS, images_per_second_of_a_core
from pixbench.errors import UserError
from pretrain.data.in_flight import SHARED, fitting, free_memory, free_shared, in_flight, readable
from pretrain.data.pixels import BrokenImage
from pretrain.data.sources import Source
from pretrain.resume import list_images
from pretrain.settings import RunConfig

INDEX = 530 * 2**20 / 10_000_000
"""Bytes of an image in the list that the processes of a machine share: docs/data.md, `python -m benchmarks.speed.data_index`."""
SMALL = 4
"""How many times fewer operations than a ResNet-50 make a network too small for an estimate of its speed on a GPU."""
SHORT = "SHORT"
"""State of what is there, but too little."""
Line = tuple[str, str, str]
"""State, what, and advice."""


def needs(config: RunConfig, gpus: int) -> Iterator[Line]:
    """Yield (state, what, advice) of each thing that a run of ``config`` on so many GPUs of one machine needs."""
    name, workers = config.method.name, config.data.workers
    yield "", f"{name}: {config.batch_size} images per step on {gpus} GPUs, with {workers} data workers each", ""
    try:
        check_split(config, gpus)
        dry_step(config)
    except UserError as error:
        yield "BROKEN", str(error), ""
        return
    if config.data.root and not (root := Path(config.data.root).expanduser()).exists():
        yield "BROKEN", f"data.root {root} does not exist", "give the folder or list of the images, or leave it out"
    source = _source(config)
    yield from _memory(config, gpus, source)
    yield _gpu_memory(config, gpus)
    yield _disk(config)
    yield from _cores(config, gpus, source)


def _source(config: RunConfig) -> Source | None:
    """Return the images of ``config``; None if it does not say where they are, or not on this machine."""
    data = config.data
    if data.mixture or (data.root and Path(data.root).expanduser().exists()):
        return list_images(replace(config, out=""), None)[1]
    return None


def _memory(config: RunConfig, gpus: int, source: Source | None) -> Iterator[Line]:
    need, free = in_flight(config, gpus), free_shared()
    advice = f"{fitting(config, gpus)}; in a container, give it more (docker run --shm-size)"
    what = f"{SHARED}: up to {readable(need.shared)} of finished batches, {readable(free)} free"
    yield ("ok", what, "") if need.shared <= free else (SHORT, what, advice)
    images = len(source) if source else config.data.limit or costs.IMAGENET
    parts = {"batches in flight": need.memory, f"list of {images:,} images": int(INDEX * images)}
    if config.data.cache and source:
        parts["decoded images (data.cache)"] = _decoded(source)
    total, free = sum(parts.values()), free_memory()
    listed = ", ".join(f"{readable(count)} {what}" for what, count in parts.items())
    unknown = "; decoded images (data.cache): not known without data.root" if config.data.cache and not source else ""
    what = (
        f"memory: {readable(total)} ({listed}) beside what Python and PyTorch take, {readable(free)} available{unknown}"
    )
    cached = "set data.cache to false, or " if total - need.memory > free else ""
    yield ("ok", what, "") if total <= free else (SHORT, what, cached + fitting(config, gpus))


def _decoded(source: Source) -> int:
    """Return about how many bytes the pixels of all images have, from a sample."""
    sizes = []
    for place in range(PHOTOS):
        with suppress(BrokenImage):
            sizes.append(3 * math.prod(source.load(place * len(source) // PHOTOS).size))
    return sum(sizes) * len(source) // max(1, len(sizes))


def _gpu_memory(config: RunConfig, gpus: int) -> Line:
    need = dry_step(config).memory(gpus)
    what = f"each GPU: about {readable(need)} (weights, gradients, optimiser, activations)"
    if not torch.cuda.is_available():
        return "", f"{what}; there is no GPU here to compare with", ""
    found = min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    advice = "raise accumulate to 2 or more, or set activation_checkpointing to true; docs/methods/README.md says what it changes"
    return ("ok" if need <= found else SHORT, f"{what}, {readable(found)} there", "" if need <= found else advice)


def _disk(config: RunConfig) -> Line:
    place = Path(config.out or ".").absolute()
    while not place.is_dir():
        if place.exists():
            return "BROKEN", f"out {config.out}: {place} is a file", "give another out"
        place = place.parent
    need, free, one = costs.disk(config), shutil.disk_usage(place).free, dry_step(config).checkpoint
    what = f"disk: {readable(need)} for all checkpoints ({readable(one)} each), {readable(free)} free at {place}"
    advice = f"raise keep_every (now {config.keep_every}; 0 keeps none but the newest {config.keep_last}), or give another out"
    return ("ok", what, "") if need <= free else (SHORT, what, advice)


def _cores(config: RunConfig, gpus: int, source: Source | None) -> Iterator[Line]:
    step, made = dry_step(config), images_per_second_of_a_core(config, source)
    there = len(os.sched_getaffinity(0))
    if step.operations / step.images < costs.reference_operations() / SMALL:
        yield "", f"cores: one makes {made:.0f} images/s of this recipe; {there} here", ""
        return
    rate = costs.images_per_second(config)
    each = rate / made
    what = (
        f"cores: one A100 takes about {rate:.0f} images/s of this recipe, one core here makes {made:.0f}: "
        f"{each:.1f} cores for each A100, {math.ceil(each * gpus)} for {gpus}; {there} here"
    )
    enough = each * gpus <= there
    yield ("ok", what, "") if enough else (SHORT, what, _feed(config))
    if config.data.workers < each and enough:
        advice = f"set data.workers to {math.ceil(each)}"
        yield SHORT, f"data workers: {config.data.workers} for each GPU, fewer than an A100 needs", advice


def _feed(config: RunConfig) -> str:
    """Return the settings with which a core makes more images."""
    ways = ["set data.backend to opencv"] if config.data.backend == "pil" else []
    ways += ["set augment.device to cuda"] if config.augment.device == "cpu" else []
    return f"{' or '.join([*ways, 'store smaller images'])}, or the GPUs will wait"
