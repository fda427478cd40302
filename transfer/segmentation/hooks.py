"""Hooks that PixBench adds to a run of MMSegmentation: they load the weights, stop the run and report progress."""

from __future__ import annotations

import math
from typing import Any, TextIO

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import constant_init
from mmengine.runner import Runner

from pixbench.distributed import any_process
from pixbench.errors import UserError
from pixbench.interrupt import StopSignal
from pixbench.process_group import AgreedStop, check_alike
from pixbench.progress import ProgressLines, note_progress, show
from transfer.kept import Kept
from transfer.weights import Backbone, load_into


class LoadBackbone(Hook):
    """Load the weights into the model when a new run starts, after mmengine's own initialisation.

    A backbone that does not fit raises `UserError` before the first iteration. Deformable convolutions start as the backbone's
    plain ones: their offsets are 0, which MMSegmentation's initialisation of all convolutions would overwrite.
    """

    def __init__(self, backbone: Backbone, framework: str) -> None:
        self.backbone, self.framework = backbone, framework

    def before_train(self, runner: Runner) -> None:
        """Load the weights if the run is not resumed. All processes must go on from the same checkpoint."""
        check_alike("where this run goes on", {"iteration": runner.iter})
        if runner.iter == 0:
            model = getattr(runner.model, "module", runner.model)
            runner.logger.info(
                f"backbone from {self.backbone.source}: {load_into(model, self.backbone, self.framework)}"
            )
            for module in model.modules():
                if offset := getattr(module, "conv_offset", None):
                    constant_init(offset, 0)


class StopWhenNotFinite(Hook):
    """Stop a run whose loss is not finite, before the next checkpoint is written."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Raise UserError if the loss is not finite."""
        loss = _loss(outputs)
        if not math.isfinite(loss):
            rate = runner.optim_wrapper.get_lr()["lr"][0]
            raise UserError(
                f"the loss became {loss} at iteration {runner.iter + 1} of {runner.max_iters}; lower "
                f"optim_wrapper.optimizer.lr (now {rate:g}) or set optim_wrapper.clip_grad, and start in a new folder"
            )


class StopWhenAsked(Hook):
    """Stop on Ctrl-C or SIGTERM in any process: finish the iteration (all parts of the batch), save and exit."""

    def __init__(self, stop: StopSignal, console: TextIO) -> None:
        self.stop, self.console = stop, console

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Save and raise `AgreedStop` if a stop was requested."""
        done = runner.iter + 1
        if not runner.optim_wrapper.should_update() or done >= runner.max_iters:
            return
        if any_process(self.stop.asked_at > 0)[0]:
            runner.save_checkpoint(runner.work_dir, f"iter_{done}.pth", by_epoch=False)
            if is_main_process():
                show(f"stopped and saved after iteration {done}", self.console)
            raise AgreedStop


class PlainCheckpoint(Hook):
    """Leave mmengine's log history out of checkpoints, so that they hold only plain containers and tensors.

    Since PyTorch 2.6, `torch.load` refuses mmengine's `HistoryBuffer`: upstream mmengine 0.10.7 could not resume, and
    the maintained fork allows the file to call `getattr`.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep only the plain values of the message hub."""
        info = checkpoint["message_hub"]["runtime_info"]
        kept = {name: value for name, value in info.items() if type(value) in (int, float, str, list)}
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": kept, "resumed_keys": {}}


class Progress(Hook):
    """Print a line now and then, and keep what the last validation found."""

    def __init__(self, shown: dict[str, str], console: TextIO) -> None:
        self.shown, self.console = shown, console
        """Our name of a metric -> the evaluator's name; stream for the printed lines."""
        self.metrics: dict[str, float] = {}
        self.kept = Kept()
        self.measured_at = -1

    def say(self, text: str) -> None:
        """Print ``text`` on rank 0."""
        if is_main_process():
            show(text, self.console)

    def before_train(self, runner: Runner) -> None:
        """Start the progress lines."""
        self.lines = ProgressLines(self.say, runner.work_dir, runner.iter, runner.max_iters)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Print a line if one is due."""
        if is_main_process():
            self.lines.tick(runner.iter + 1, lambda: (_loss(outputs), runner.optim_wrapper.get_lr()["lr"][0]))

    def before_val(self, runner: Runner) -> None:
        """Print the number of validation images."""
        self.say(f"validating on {len(runner.val_dataloader.dataset)} images")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the metrics and print those that the protocol reports."""
        self.metrics = {name: float(value) for name, value in (metrics or {}).items()}
        self.measured_at = runner.iter
        self.kept = runner.val_evaluator.metrics[0].kept
        ours = {name: self.metrics[theirs] for name, theirs in self.shown.items() if theirs in self.metrics}
        if is_main_process():
            note_progress(runner.work_dir, runner.iter, runner.max_iters, self.lines.pace(runner.iter), **ours)
            self.lines.measured(runner.iter, ours)
        self.say(f"iteration {runner.iter}: {'  '.join(f'{name} {value:.1f}' for name, value in ours.items())}")


def _loss(outputs: dict[str, Any] | None) -> float:
    return float(torch.as_tensor((outputs or {})["loss"]).detach())
