"""Write the checkpoints of a run when they are due."""

from __future__ import annotations

from typing import Any

from pretrain import checkpoint
from pretrain.data.views import Views
from pretrain.run import Run
from pretrain.watcher import Watcher


class Saver(Watcher):
    """Save the run after each step at which a checkpoint is due. For the process of rank 0."""

    def after_step(self, run: Run, views: Views, values: dict[str, Any]) -> None:
        """Save ``run`` if a checkpoint is due."""
        if is_due(run):
            save(run)


def save(run: Run) -> None:
    """Write the checkpoint of ``run``. After every `keep_every` epochs, also keep it under a second name."""
    epoch = run.step // run.steps_per_epoch
    content = {
        "config": run.config.as_dict(),
        "method": run.config.method.name,
        "backbone": run.config.backbone.as_dict(),
        "exports": list(run.method.exports),
        "left_behind": run.method.left_behind,
        "model": run.method.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "step": run.step,
        "epoch": epoch,
        "seconds": run.seconds,
        "images": run.images,
        "skipped": run.skipped,
        "initial": run.initial,
        "lengthened": run.lengthened,
        "finished": run.step == run.total_steps,
    }
    checkpoint.save(run.latest, content)
    if is_kept(run):
        checkpoint.keep(run.latest, f"checkpoint_ep{epoch:04}.pth")


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
