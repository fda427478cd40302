"""Check a pre-training run without training: its batch, method and initial weights and, if they are there, its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks.check.findings import Findings
from benchmarks.costs import IMAGENET
from benchmarks.dry_step import dry_step, without_values
from benchmarks.input_rate import views_of
from pixbench.errors import UserError
from pretrain.data.loader import Batches, collate
from pretrain.data.order import EpochOrder
from pretrain.data.sources import Source
from pretrain.initial_weights import InitialWeights, check_backbone
from pretrain.part_size import advice, check_part
from pretrain.resume import list_images
from pretrain.settings import RunConfig


def check_run(
    found: Findings,
    job: str,
    config: RunConfig,
    processes: int,
    read_weights: Callable[[RunConfig], InitialWeights | None],
    look_at_data: bool,
) -> tuple[int, list[str]]:
    """Add the problems of a run of ``config`` to ``found``.

    Args:
        found: where problems are added.
        job: name of the job.
        config: settings of the run.
        processes: number of training processes; 0 counts as 1.
        read_weights: reads the weights that ``init_from`` names.
        look_at_data: whether to list the images and to make a batch of some of them.

    Returns:
        The number of images in an epoch (0 if they were not looked at), and warnings.
    """
    processes, order, source, said = max(1, processes), None, None, list[str]()
    with found.of(job):
        if initial := read_weights(config):
            check_backbone(initial, config.backbone)
    if look_at_data:
        with found.of(job):
            source, said = check_images(config)
            order = EpochOrder.of(source.index, config.data.shuffle_shards)
    with found.of(job):
        check_split(config, processes, order)
        dry_step(config)
        said += advice(config, source.labels) if source else []
    return len(order) if order else 0, said


def check_split(config: RunConfig, processes: int, order: EpochOrder | None = None) -> None:
    """Check that a batch of ``config`` can be split among so many processes, on the images of ``order`` (None: ImageNet's).

    Raises:
        UserError: It cannot.
    """
    order = order or EpochOrder(config.data.limit or IMAGENET)
    Batches(order, config.batch_size, seed=config.seed, first=0, last=0, rank=0, world=processes)
    check_part(config, processes, synchronised=True)


def check_images(config: RunConfig) -> tuple[Source, list[str]]:
    """List the images of ``config``, check their labels, and make a batch of two of them; return them, and what to tell the user.

    Raises:
        UserError: A run could not use them.
    """
    config, source, notes = list_images(replace(config, out=""), None)
    without_values(config).check_labels(int(source.labels.min()), int(source.labels.max()))
    views = views_of(config, source)
    if isinstance(batch := collate([views[0, number] for number in range(min(2, len(source)))]), UserError):
        raise batch
    return source, notes
