"""What this project adds to MMSegmentation: readable errors, weights loaded at the right moment, sparse progress.

Importing this file imports MMSegmentation (seconds) and registers the classes that a run puts in place of its own.
Shapes: H × W pixels of a label map; K classes; 255 is ignored.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, TextIO

import torch
from mmengine.dist import is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmseg.datasets import ADE20KDataset, BaseSegDataset, CityscapesDataset, PascalVOCDataset
from mmseg.evaluation import IoUMetric
from mmseg.registry import DATASETS, METRICS
from torch import Tensor
from torch.utils.data import DataLoader

from pixbench.distributed import any_process
from pixbench.errors import UserError
from pixbench.files import atomic_path
from pixbench.interrupt import StopSignal, shielded
from pixbench.progress import ProgressLines, note_progress
from transfer.segmentation.config import LOG
from transfer.weights import Trunk, load_into

FIRST_OBJECT = {"CityscapesDataset": 11, "PascalVOCDataset": 1}
"""Label from which on the classes are countable objects (person to bicycle; all but the background), where they lie so."""


class Named(BaseSegDataset):
    """A data set in which a picture that cannot be read is named."""

    def prepare_data(self, idx: int) -> Any:
        try:
            return super().prepare_data(idx)
        except (OSError, AssertionError, ValueError, SyntaxError) as error:
            info = self.get_data_info(idx)
            files = f"{info['img_path']} or its label map {info['seg_map_path']}"
            raise UserError(f"{files} cannot be read ({error}); restore it from the data set") from error


for _kind in (ADE20KDataset, CityscapesDataset, PascalVOCDataset):
    DATASETS.register_module(name=f"Named{_kind.__name__}", module=type(f"Named{_kind.__name__}", (Named, _kind), {}))


@METRICS.register_module()
class ObjectIoU(IoUMetric):
    """IoUMetric, whose mIoU, aAcc and mAcc it leaves alone, with the IoU of each class and of objects against the rest."""

    def __init__(self, first_object: int | None, **options: Any) -> None:
        super().__init__(**options)
        self.first_object = first_object

    def intersect_and_union(
        self, pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int
    ) -> tuple[Tensor, ...]:
        """Intersection, union, prediction and truth of maps (H, W): areas (K + 1,), the last of all objects."""
        classes = IoUMetric.intersect_and_union(pred_label, label, num_classes, ignore_index)
        first = num_classes if self.first_object is None else self.first_object
        guess, truth = ((labels >= first).to(labels.dtype) for labels in (pred_label, label))
        truth[label == ignore_index] = ignore_index
        objects = IoUMetric.intersect_and_union(guess, truth, 2, ignore_index)
        return tuple(torch.cat([area, extra[1:]]) for area, extra in zip(classes, objects, strict=True))

    def compute_metrics(self, results: list[tuple[Tensor, ...]]) -> dict[str, float]:
        metrics = super().compute_metrics([tuple(area[:-1] for area in areas) for areas in results])
        intersect, union = (torch.stack([areas[i] for areas in results]).sum(0) for i in (0, 1))
        iou = (100 * intersect / union).tolist()  # 0 / 0 = NaN for a class in no picture
        names = [f"IoU/{name}" for name in self.dataset_meta["classes"]]
        return {**metrics, "fgIoU": iou[-1], **dict(zip(names, iou[:-1], strict=True))}


if is_distributed() and not torch.cuda.is_available():
    from detectron2.layers import NaiveSyncBatchNorm  # the only SyncBN for CPUs that there is

    MODELS.register_module(name="naiveSyncBN", module=NaiveSyncBatchNorm)


class QuietRunner(Runner):
    """mmengine's Runner with one log file, a silent console and checkpoints that are never half there."""

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any) -> Any:
        logger = super().build_logger(log_level, str(Path(self.work_dir) / LOG), **kwargs)
        logger.handlers[:] = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
        return logger

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> DataLoader[Any]:
        return shielded(Runner.build_dataloader(*args, **kwargs))

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Only the config: asking the compilers for their versions takes seconds, and result.json names the packages."""
        self.logger.info(f"Config:\n{self.cfg.pretty_text}")

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        if is_main_process():
            with atomic_path(Path(out_dir) / filename) as part:
                super().save_checkpoint(out_dir, part.name, *args, **kwargs)


class LoadTrunk(Hook):
    """Puts the weights into the live model when a fresh run is about to start, after mmengine's own initialisation.

    A trunk that does not fit raises `UserError`, before the first iteration.
    """

    def __init__(self, trunk: Trunk, layout: str) -> None:
        self.trunk, self.layout = trunk, layout

    def before_train(self, runner: Runner) -> None:
        if runner.iter == 0:
            model = getattr(runner.model, "module", runner.model)
            runner.logger.info(f"trunk from {self.trunk.source}: {load_into(model, self.trunk, self.layout)}")


class StopWhenNotFinite(Hook):
    """Ends a run whose loss is no number any more, before the next checkpoint is written."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        loss = _loss(outputs)
        if not math.isfinite(loss):
            rate = runner.optim_wrapper.get_lr()["lr"][0]
            raise UserError(
                f"the loss became {loss} at iteration {runner.iter + 1} of {runner.max_iters}; lower "
                f"optim_wrapper.optimizer.lr (now {rate:g}) or set optim_wrapper.clip_grad, and start in a new folder"
            )


class StopWhenAsked(Hook):
    """On Ctrl-C or SIGTERM in any process: finish the iteration (the batch, if it comes in parts), save, leave."""

    def __init__(self, stop: StopSignal, console: TextIO) -> None:
        self.stop, self.console = stop, console

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        done = runner.iter + 1
        if not runner.optim_wrapper.should_update() or done >= runner.max_iters:
            return
        if any_process(self.stop.wished > 0)[0]:
            runner.save_checkpoint(runner.work_dir, f"iter_{done}.pth", by_epoch=False)
            if is_main_process():
                print(f"stopped and saved after iteration {done}", file=self.console, flush=True)
            raise KeyboardInterrupt


class PlainCheckpoint(Hook):
    """Leaves mmengine's log history out of checkpoints, so that they hold plain containers and tensors only.

    `torch.load` refuses its `HistoryBuffer` since PyTorch 2.6: upstream mmengine 0.10.7 could not resume, and the
    maintained fork allows the file to call `getattr`.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        info = checkpoint["message_hub"]["runtime_info"]
        kept = {name: value for name, value in info.items() if type(value) in (int, float, str, list)}
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": kept, "resumed_keys": {}}


class Progress(Hook):
    """Prints a line now and then, and keeps the metrics of the last validation."""

    def __init__(self, shown: dict[str, str], console: TextIO) -> None:
        self.shown, self.console = shown, console
        """Our name of a metric -> the evaluator's; where lines go."""
        self.metrics: dict[str, float] = {}
        self.measured_at = -1

    def say(self, text: str) -> None:
        if is_main_process():
            print(text, file=self.console, flush=True)

    def before_train(self, runner: Runner) -> None:
        self.lines = ProgressLines(self.say, runner.work_dir, runner.iter, runner.max_iters)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        if is_main_process():
            self.lines.tick(runner.iter + 1, lambda: (_loss(outputs), runner.optim_wrapper.get_lr()["lr"][0]))

    def before_val(self, runner: Runner) -> None:
        self.say(f"validating on {len(runner.val_dataloader.dataset)} images")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.metrics = {name: float(value) for name, value in (metrics or {}).items()}
        self.measured_at = runner.iter
        ours = {name: self.metrics[theirs] for name, theirs in self.shown.items() if theirs in self.metrics}
        if is_main_process():
            note_progress(runner.work_dir, runner.iter, runner.max_iters, self.lines.pace(runner.iter), **ours)
        self.say(f"iteration {runner.iter}: {'  '.join(f'{name} {value:.1f}' for name, value in ours.items())}")


def _loss(outputs: dict[str, Any] | None) -> float:
    return float(torch.as_tensor((outputs or {})["loss"]).detach())
