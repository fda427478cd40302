"""Fine-tune a backbone in MMSegmentation with its own Runner, data sets and IoUMetric.

The run folder holds ``log.txt`` (all output of mmengine), ``iter_N.pth`` (the last two checkpoints) and the config.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pixbench.errors import UserError, innermost
from pixbench.file_versions import RUN_LOG
from pixbench.files import make_folder
from pixbench.interrupt import StopSignal
from transfer.batch_scaling import divided
from transfer.job import Outcome, TransferJob, unpublished
from transfer.segmentation.classes import data_sets
from transfer.segmentation.config import (
    backbone_spec,
    check_pixels,
    config_as_dict,
    resolve,
    synchronise_on_cpus,
    train_on_cpus,
)
from transfer.segmentation.evaluation import evaluation, random_backbone
from transfer.segmentation.u2pl import register
from transfer.segmentation.u2pl.settings import check

if TYPE_CHECKING:
    from mmengine.config import Config

    from transfer.segmentation.hooks import Progress
    from transfer.segmentation.runner import QuietRunner
    from transfer.weights import Backbone

BATCH = "train_dataloader.batch_size"


def run(job: TransferJob, backbone: Backbone | None) -> Outcome:
    """Fine-tune and validate ``job``; continue from the newest checkpoint in ``job.out`` if there is one.

    If ``backbone`` is None, the run starts from this project's random weights, so that rows differ only in weights; if the
    backbone stays frozen, with the BN statistics of training pictures.

    Raises:
        UserError: an image cannot be read, an override is unknown, the weights do not fit, or the loss is not finite.
    """
    frozen = job.protocol.kind == "frozen"
    if measures := frozen and backbone is None:
        from transfer.frozen.fair_random import uncalibrated

        backbone = uncalibrated(job)
    config = resolve(job, backbone.spec if backbone else None)
    if BATCH not in job.all_overrides:
        whole = config.auto_scale_lr.base_batch_size
        config.train_dataloader.batch_size = divided(whole, job.accumulate, processes())
    check(config, processes())
    if backbone:
        check_pixels(config, job, backbone.pixels)
    described = config_as_dict(config)
    with chatter_into(job.out) as console:
        import torch

        from pixbench.process_group import process_group

        with process_group("cuda" if torch.cuda.is_available() else "cpu", job.process_timeout) as device:
            about: dict[str, Any] = {}
            if measures and backbone:
                backbone, about["random"] = random_backbone(job, backbone, device)
            progress, changes, iterations, pictures = train(job, config, backbone, console)
            spec = backbone.spec if backbone else backbone_spec(config)
            record = about | {"spec": spec.as_dict(), "pictures": pictures}
            record |= evaluation(job, config, backbone) if frozen and backbone else {}
    return Outcome(progress.metrics, described, iterations // job.accumulate, changes, record, progress.kept)


def train(
    job: TransferJob, config: Config, backbone: Backbone | None, console: TextIO
) -> tuple[Progress, tuple[str, ...], int, dict[str, int]]:
    """Train and validate.

    Return the hook with the metrics, what this machine makes different, the last iteration, and the number of pictures of each
    split.
    """
    import torch

    from transfer.initial_weights import random_backbone

    changes = unpublished(job, backbone_spec(config))
    if not torch.cuda.is_available():
        changes += train_on_cpus(config)
        changes += synchronise_on_cpus(config) if processes() > 1 else ()
    runner, progress = build_runner(job, config, backbone or random_backbone(backbone_spec(config), job.seed), console)
    from transfer.segmentation.hooks import StopWhenAsked  # imported here: it needs the process group

    stop = StopSignal()
    runner.register_hook(StopWhenAsked(stop, console), "LOWEST")  # after the hooks that change what a checkpoint holds
    try:
        with stop:
            runner.train()
        if progress.measured_at != runner.iter:  # stopped after the last checkpoint and before the validation
            runner.val()
    except UserError as error:
        raise UserError(innermost(str(error))) from error
    finally:
        close_log(runner)
    loops = {"train": runner.train_loop, "test": runner.val_loop}
    return progress, changes, runner.iter, {name: len(loop.dataloader.dataset) for name, loop in loops.items()}


@contextmanager
def chatter_into(folder: Path) -> Iterator[TextIO]:
    """Append prints and warnings of the block to a log in ``folder``; yield the console for lines that people see.

    Each rank other than 0 has its own log.
    """
    make_folder(folder)
    rank, console = int(os.environ.get("RANK", 0)), sys.stdout
    log = folder / (RUN_LOG if rank == 0 else f"log.rank{rank}.txt")
    with open(log, "a", buffering=1, encoding="utf-8") as stream, redirect_stdout(stream), redirect_stderr(stream):
        yield console


def build_runner(job: TransferJob, config: Config, backbone: Backbone, console: TextIO) -> tuple[QuietRunner, Progress]:
    """Return mmengine's Runner, which loads the weights just before its first iteration, and its progress hook."""
    from transfer.segmentation import datasets, hooks, linear_head, metrics, named_backbone, one_cycle, stage_decay  # noqa: F401  registers its own classes
    from transfer.segmentation.runner import QuietRunner

    register()
    config.launcher = "pytorch" if processes() > 1 else "none"
    config.work_dir, config.randomness.seed = str(job.out), job.seed
    config.experiment_name = f"{job.protocol.name}-{uuid.uuid4().hex}"  # mmengine shares loggers by this name
    (dataset_type,) = {data.type for data in data_sets(config.val_dataloader)}
    first_object = None if job.classes else metrics.FIRST_OBJECT.get(dataset_type)
    together = str(job.out / ".collected")  # where the processes put their results; by default, in the current folder
    config.val_evaluator.update(type=metrics.ObjectIoU.__name__, first_object=first_object, collect_dir=together)
    for data in (*data_sets(config.train_dataloader), *data_sets(config.val_dataloader)):
        data.type, data.data_root = f"Naming{data.type}", str(job.data_root / Path(data.data_root).name)
    for half in job.out.glob(".iter_*.part.pth"):  # left by a run that was killed during writing
        half.unlink(missing_ok=True)
    checkpoint = newest_checkpoint(job.out)
    if checkpoint is not None:
        config.load_from, config.resume = str(checkpoint), True
    runner = QuietRunner.from_cfg(config)
    with suppress(OSError):
        Path(runner.log_dir).rmdir()  # mmengine makes this folder at every start; it stays empty
    progress = hooks.Progress(job.protocol.metrics, console)
    for added in (
        hooks.LoadBackbone(backbone, job.protocol.weights_framework),
        hooks.StopWhenNotFinite(),
        hooks.PlainCheckpoint(),
        progress,
    ):
        runner.register_hook(added)
    return runner, progress


def processes() -> int:
    """Return the number of processes of this run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def close_log(runner: QuietRunner) -> None:
    """Close the log file of ``runner``, which mmengine would otherwise go on writing into."""
    for handler in [*runner.logger.handlers]:
        handler.close()
        runner.logger.removeHandler(handler)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of the latest iteration, or None. All are complete, because they are written atomically."""
    found = [path for path in folder.glob("iter_*.pth") if path.stem[5:].isdigit()]
    return max(found, key=lambda path: int(path.stem[5:]), default=None)
