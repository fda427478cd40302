"""How many images of a run one core of this machine can decode and turn into views."""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image

from pretrain.data.sources import Source, open_source
from pretrain.data.two_views import Backend, TwoViews
from pretrain.settings import RunConfig

PHOTOS = 32
MEASURED_S = 2.0
"""Seconds of computing for which images are decoded; what else the machine does, and its disk, do not count."""


def photos() -> list[bytes]:
    """Return JPEG files of 500 × 375 pixels and about 100 kB, as in ImageNet: noise whose amplitude is 1 / frequency."""
    rng, files = np.random.default_rng(0), []
    frequency = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.fftfreq(500)[None])
    frequency[0, 0] = 1
    mix = np.array([[1, 0.6, 0.5], [0.6, 1, 0.6], [0.5, 0.6, 1]])
    for _ in range(PHOTOS):
        planes = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(375, 500))) / frequency).real for _ in range(3)]
        image = np.stack(planes, axis=-1) @ mix
        image = (image - image.mean((0, 1))) / image.std((0, 1)) * 55 + 115
        stream = io.BytesIO()
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(stream, "jpeg", quality=85)
        files.append(stream.getvalue())
    return files


def views_of(config: RunConfig, source: Source) -> TwoViews:
    """Return the samples of a run of ``config`` on ``source``, read from the files themselves."""
    data = config.data
    return TwoViews(
        source,
        size=data.image_size,
        scale=(data.min_scale, data.max_scale),
        recipe=data.recipe,
        seed=config.seed,
        cache=False,
        backend=cast(Backend, "opencv" if data.backend == "auto" else data.backend),
        colours=config.augment.device == "cpu",
        most_skipped=data.most_skipped(len(source)),
        local=data.local,
    )


def images_per_second_of_a_core(config: RunConfig, source: Source | None = None) -> float:
    """Measure the images/s of a single thread, on images spread over ``source`` (None: on generated photos)."""
    with tempfile.TemporaryDirectory() as folder:
        if source is None:
            for number, photo in enumerate(photos()):
                (Path(folder) / f"{number}.jpg").write_bytes(photo)
            source = open_source(folder, "flat")
        return _rate(views_of(config, source))


def _rate(views: TwoViews) -> float:
    threads, done = torch.get_num_threads(), 0
    numbers = [place * len(views) // PHOTOS for place in range(PHOTOS)] if len(views) > PHOTOS else range(len(views))
    torch.set_num_threads(1)  # as in a data worker
    try:
        views.sample(0, 0)
        start = time.thread_time()
        while (spent := time.thread_time() - start) < MEASURED_S:
            views.sample(0, numbers[done % len(numbers)])
            done += 1
    finally:
        torch.set_num_threads(threads)
    return done / spent
