"""Fine-tune a trunk in MMSegmentation with its own Runner, data set and IoUMetric.

One job = one folder: ``log.txt`` (all that mmengine says), ``iter_N.pth`` (the last two checkpoints), the config.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pretrain.errors import UserError
from transfer.job import Outcome, TransferJob
from transfer.segmentation.config import DATALOADERS, LOG, plain, resolve, trunk_spec

if TYPE_CHECKING:
    from mmengine.config import Config

    from transfer.segmentation.parts import Progress, QuietRunner
    from transfer.weights import Trunk

BATCH = "train_dataloader.batch_size"


def run(job: TransferJob, trunk: Trunk | None) -> Outcome:
    """Train, validate and report ``job``; go on from the newest checkpoint in ``job.out`` if there is one.

    ``trunk`` None starts from random weights of the project's own kind, so that rows differ in weights only.

    Raises:
        UserError: an unreadable picture, an unknown override, weights that do not fit, a loss that is not finite.
    """
    config = resolve(job, trunk.spec if trunk else None)
    if BATCH not in job.all_overrides:
        config.train_dataloader.batch_size = share(config.auto_scale_lr.base_batch_size, processes())
    described = plain(config)
    with chatter_into(job.out) as console:
        from transfer.start import random_trunk

        runner, progress = build_runner(job, config, trunk or random_trunk(trunk_spec(config), job.seed), console)
        try:
            runner.train()
            if progress.measured_at != runner.iter:  # stopped between its last checkpoint and the last validation
                runner.val()
        except UserError as error:
            raise UserError(_innermost(str(error))) from error
        finally:
            leave(runner)
    return Outcome(metrics=progress.metrics, config=described, iterations=runner.iter)


@contextmanager
def chatter_into(folder: Path) -> Iterator[TextIO]:
    """Append to a log in ``folder`` what is printed or warned about inside; yields the console for what a person sees.

    Other ranks than 0 have a log of their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rank, console = int(os.environ.get("RANK", 0)), sys.stdout
    log = folder / (LOG if rank == 0 else f"log.rank{rank}.txt")
    with open(log, "a", buffering=1, encoding="utf-8") as stream, redirect_stdout(stream), redirect_stderr(stream):
        yield console


def build_runner(job: TransferJob, config: Config, trunk: Trunk, console: TextIO) -> tuple[QuietRunner, Progress]:
    """mmengine's Runner, ready to train; the weights are loaded when `train` is about to do its first iteration."""
    import torch

    from transfer.segmentation import parts

    if processes() > 1 and not torch.cuda.is_available():
        raise UserError("several processes need a GPU each: SyncBN does not synchronise on CPUs; leave --gpus out")
    config.launcher = "pytorch" if processes() > 1 else "none"
    config.work_dir, config.randomness.seed = str(job.out), job.seed
    config.experiment_name = f"{job.protocol.name}-{uuid.uuid4().hex}"  # mmengine shares loggers by this name
    for loader in DATALOADERS:
        config[loader].dataset.type = parts.NamedCityscapes.__name__
        config[loader].dataset.data_root = str(job.data_root / "cityscapes")
    config.val_evaluator.type = parts.CityscapesIoU.__name__
    for half in job.out.glob(".iter_*.part.pth"):  # left by a run that was killed while it wrote
        half.unlink(missing_ok=True)
    checkpoint = newest_checkpoint(job.out)
    if checkpoint is not None:
        config.load_from, config.resume = str(checkpoint), True
    runner = parts.QuietRunner.from_cfg(config)
    with suppress(OSError):
        Path(runner.log_dir).rmdir()  # mmengine makes one every start; nothing here writes into it
    progress = parts.Progress(job.protocol.metrics, console)
    for hook in (
        parts.LoadTrunk(trunk, job.protocol.layout),
        parts.StopWhenNotFinite(),
        parts.PlainCheckpoint(),
        progress,
    ):
        runner.register_hook(hook)
    return runner, progress


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def share(batch: int, gpus: int) -> int:
    """Images for each of ``gpus``, so that all together have the protocol's ``batch`` however many there are."""
    if batch % gpus:
        raise UserError(f"{batch} images a batch cannot be shared by {gpus} GPUs; choose a divisor, or set {BATCH}")
    return batch // gpus


def leave(runner: QuietRunner) -> None:
    """Close the log, and leave the process group if there is one."""
    import torch

    for handler in runner.logger.handlers:
        handler.close()
    if runner.distributed:
        torch.distributed.destroy_process_group()


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest iteration. All there are whole: they are written under another name first."""
    found = [path for path in folder.glob("iter_*.pth") if path.stem[5:].isdigit()]
    return max(found, key=lambda path: int(path.stem[5:]), default=None)


def _innermost(message: str) -> str:
    """An error from a data worker comes back with that process's traceback around it."""
    return message.strip().rpartition("UserError: ")[2] if "Traceback" in message else message
