"""Write the checkpoints of a run when they are due, in a thread of their own while the run goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from pixbench.distributed import rank, world_size
from pretrain import checkpoint, earlier
from pretrain.data.views import Views
from pretrain.run import Run
from pretrain.snapshot import Snapshot
from pretrain.watcher import Watcher


class Saver(Watcher):
    """Save ``run`` after each step at which a checkpoint is due. Only the process of rank 0 writes.

    The step waits only for a copy of the state. Serialising and writing follow in a thread, one checkpoint at a time. An error
    there is raised by the next call of `check`, `save` or `finish`.
    """

    def __init__(self, run: Run) -> None:
        self._saved = run.step if run.loaded else None  # the step of the newest checkpoint
        self._snapshot = Snapshot()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def after_step(self, run: Run, views: Views, values: dict[str, Any]) -> None:
        """Save ``run`` if a checkpoint is due."""
        if is_due(run):
            self.save(run)

    def save(self, run: Run) -> None:
        """Begin to write the checkpoint of ``run``, unless the newest one is of this step. Wait for the one before first."""
        self.finish()
        if rank() > 0 or run.step == self._saved:
            return
        content = self._snapshot.take(content_of(run))
        self._writing = self._thread.submit(self._write, run, content, self._saved, is_kept(run))
        self._saved = run.step

    def _write(self, run: Run, content: dict[str, Any], before: int | None, kept: bool) -> None:
        self._snapshot.wait()
        earlier.save(run.latest, content, run.config.keep_last, before)
        if kept:  # every `keep_every` epochs, also under a second name
            checkpoint.keep(run.latest, run.out / f"checkpoint_ep{content['epoch']:04}.pth")

    def check(self) -> None:
        """Raise the error of the last write, if it has ended with one. Does not wait."""
        if self._writing is not None and self._writing.done():
            self.finish()

    def finish(self) -> None:
        """Wait until the last checkpoint is complete.

        Raises:
            UserError: It could not be written, or a weight is not finite.
        """
        if (writing := self._writing) is not None:
            self._writing = None
            writing.result()

    def close(self) -> None:
        """Wait until the last checkpoint is complete. Its error is not raised: call `finish` for that."""
        with suppress(Exception):  # the error that ends the run is the one to show
            self.finish()
        self._thread.shutdown()


def content_of(run: Run) -> dict[str, Any]:
    """Return the content of a checkpoint of ``run``: its tensors are those of the run itself."""
    return {
        "config": run.config.as_dict(),
        "method": run.config.method.name,
        "backbone": run.config.backbone.as_dict(),
        "exports": list(run.method.exports),
        "left_behind": run.method.left_behind,
        "model": run.method.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "step": run.step,
        "epoch": run.step // run.steps_per_epoch,
        "seconds": run.seconds,
        "bad_steps": run.bad_steps.state(),
        "processes": world_size(),
        "images": run.images,
        "skipped": run.skipped,
        "initial": run.initial,
        "teacher": run.teacher,
        "lengthened": run.lengthened,
        "precisions": run.precisions,
        "finished": run.step == run.total_steps and not run.bad_steps.too_many,
    }


def is_due(run: Run) -> bool:
    """Return whether a checkpoint must be written after the last finished step."""
    config, step = run.config, run.step
    every_epochs = step % (run.steps_per_epoch * config.checkpoint_every) == 0
    every_steps = config.checkpoint_every_steps > 0 and step % config.checkpoint_every_steps == 0
    return every_epochs or is_kept(run) or every_steps or step == run.total_steps


def is_kept(run: Run) -> bool:
    """Return whether the checkpoint after the last finished step is kept under a name of its own."""
    keep_every = run.config.keep_every
    return keep_every > 0 and run.step > 0 and run.step % (run.steps_per_epoch * keep_every) == 0
