"""Detectron2's trainer with accumulated batches, a frozen backbone, atomic checkpoints and short progress lines."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader, build_detection_train_loader
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, TrainerBase, create_ddp_model, hooks
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pixbench.checkpoints import write_checkpoint
from pixbench.curve import CURVE_FILE, note_point
from pixbench.distributed import any_process
from pixbench.errors import UserError
from pixbench.files import write_text
from pixbench.interrupt import StopSignal, shielded
from pixbench.process_group import AgreedStop
from pixbench.progress import ProgressLines
from transfer.detection import adamw, models, vitdet  # noqa: F401  the last two register models
from transfer.detection.evaluators import evaluator
from transfer.detection.samples import TRUTH, SampleKeeper
from transfer.job import TransferJob
from transfer.weights.frameworks import FRAMEWORKS, Framework

KEPT = 2
"""Number of periodic checkpoints that are kept."""

Say = Callable[[str], None]


class Trainer(DefaultTrainer):
    """Detectron2's trainer for a `TransferJob`. It can accumulate gradients, freeze the backbone and stop early."""

    def __init__(self, cfg: CfgNode, job: TransferJob, say: Say) -> None:
        TrainerBase.__init__(self)  # not DefaultTrainer's, which needs a GPU for DDP and cannot accumulate
        self.cfg, self._job, self._say = cfg, job, say
        model = self.build_model(cfg)
        optimizer, loader = self.build_optimizer(cfg, model), self.build_train_loader(cfg)
        options = {"device_ids": None} if cfg.MODEL.DEVICE == "cpu" else {"fp16_compression": "VITDET" in cfg}
        model = create_ddp_model(model, broadcast_buffers=False, **options)
        self._trainer = Accumulator(model, loader, optimizer, job.accumulate, cfg.SOLVER.AMP.ENABLED)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    def build_model(self, cfg: CfgNode) -> nn.Module:
        """Build the model, and freeze its backbone if the job asks for it."""
        model: nn.Module = super().build_model(cfg)
        if self._job.freeze == "backbone":
            freeze(model, FRAMEWORKS[self._job.protocol.weights_framework])
        return model

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
        """Return the evaluator of the data set."""
        return evaluator(cfg, dataset_name, output_folder or os.path.join(cfg.OUTPUT_DIR, "inference"))

    def test(self, cfg: CfgNode, model: nn.Module) -> Any:
        """Evaluate ``model``; remember ``evaluators`` and ``samples``, which hold what is kept beside the metrics."""
        self.evaluators = [self.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        self.samples = [SampleKeeper(name) for name in cfg.DATASETS.TEST]
        pairs = zip(self.evaluators, self.samples, strict=True)
        results = super().test(cfg, model, [DatasetEvaluators(pair) for pair in pairs])
        if comm.is_main_process():
            found, metrics = flatten_results_dict(results), self._job.protocol.metrics
            point = {ours: found[theirs] for ours, theirs in metrics.items() if theirs in found}
            note_point(Path(cfg.OUTPUT_DIR) / CURVE_FILE, min(self.iter + 1, self.max_iter), point)
        return results

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser of ViTDet or of networks by name if the config has their section, else Detectron2's default."""
        own = _own(cfg)
        built: torch.optim.Optimizer = (own.optimizer if own else super().build_optimizer)(cfg, model)
        return built

    def build_train_loader(self, cfg: CfgNode) -> Any:
        """Return the training loader, which yields one part of a batch at a time; count its images as ``pictures``."""
        images = cfg.SOLVER.IMS_PER_BATCH // self._job.accumulate
        own = _own(cfg)
        more = own.images(cfg) if own else {}
        built = build_detection_train_loader(cfg, mapper=Mapper(cfg, True, **more), total_batch_size=images)
        images_in_turn = shielded(built.dataset if cfg.DATALOADER.ASPECT_RATIO_GROUPING else built).dataset
        self.pictures = len(images_in_turn.dataset)
        return built

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Return the test loader of the data set."""
        return shielded(build_detection_test_loader(cfg, dataset_name, mapper=Mapper(cfg, False)))

    def after_train(self) -> None:
        """Call the hooks. After an error nothing is evaluated: that would fail too, and its error would hide the first."""
        if self.iter < self.max_iter:
            left = [hook for hook in self._hooks if not isinstance(hook, hooks.EvalHook)]  # type: ignore[has-type]
            self._hooks = left
        super().after_train()

    def build_hooks(self) -> list[HookBase]:
        """Return Detectron2's hooks, with ours for stopping and progress."""
        built = [hook for hook in super().build_hooks() if hook is not None]
        for hook in built:
            if isinstance(hook, hooks.PeriodicCheckpointer):
                hook.max_to_keep = KEPT
            if isinstance(hook, hooks.PreciseBN):
                hook._num_iter *= self._job.accumulate  # to use the same number of images
        place = next(i for i, hook in enumerate(built) if isinstance(hook, hooks.LRScheduler))
        built.insert(place + 1, StopWhenAsked(self._say))  # after it, so that the checkpoint has the next learning rate
        return [Progress(self._say), *built] if comm.is_main_process() else built


def _own(cfg: CfgNode) -> ModuleType | None:
    """Return the module with the optimiser and the images of ``cfg``; None for those of Detectron2."""
    return vitdet if "VITDET" in cfg else adamw if adamw.SECTION in cfg else None


class Accumulator(AMPTrainer):
    """Detectron2's iteration with the batch in ``parts``: one update with mean gradients; the losses are means, too."""

    def __init__(self, model: nn.Module, loader: Any, optimizer: Any, parts: int, half: bool) -> None:
        self.device, self.parts, self.half = next(model.parameters()).device.type, parts, half
        super().__init__(model, loader, optimizer, grad_scaler=torch.amp.GradScaler(self.device, enabled=half))

    def run_step(self) -> None:
        """Do one iteration."""
        self.optimizer.zero_grad()
        total: dict[str, torch.Tensor] = {}
        waited = 0.0
        for part in range(self.parts):
            start = time.perf_counter()
            data = next(self._data_loader_iter)
            waited += time.perf_counter() - start
            alone = part < self.parts - 1 and isinstance(self.model, DistributedDataParallel)
            with self.model.no_sync() if alone else nullcontext():
                with torch.autocast(self.device, self.precision, enabled=self.half):
                    losses = {name: loss / self.parts for name, loss in self.model(data).items()}
                self.grad_scaler.scale(sum(losses.values())).backward()
            total = {name: loss.detach() + total.get(name, 0) for name, loss in losses.items()}
        self._write_metrics(total, waited)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()


def freeze(model: nn.Module, framework: Framework) -> None:
    """Freeze the part of ``model`` that is loaded from the backbone: no gradients, fixed BatchNorm statistics."""
    for name, module in list(model.named_modules()):
        if framework.owns.match(f"{name}.") and isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, FrozenBatchNorm2d.convert_frozen_batchnorm(module))
    for name, parameter in model.named_parameters():
        if framework.owns.match(name) and not any(added.fullmatch(name) for added in framework.by_design.values()):
            parameter.requires_grad_(False)


class Mapper(DatasetMapper):
    """Detectron2's mapper, with errors that name the image; for evaluation, the annotations come with it."""

    def __call__(self, dataset_dict: dict[str, Any]) -> Any:
        """Load and augment one image; raise UserError with its path if it cannot be used."""
        try:
            truth = {} if self.is_train else {TRUTH: dataset_dict.get("annotations", [])}
            return super().__call__(dataset_dict) | truth
        except (OSError, SyntaxError, SizeMismatchError) as error:  # Pillow raises SyntaxError for a broken PNG
            reason = str(error).partition("\n")[0]
            raise UserError(f"image {dataset_dict['file_name']} cannot be used ({reason}); replace it") from error


class StopWhenAsked(HookBase):
    """Stop on Ctrl-C or SIGTERM in any process: finish the iteration, save and exit, without an evaluation."""

    def __init__(self, say: Say) -> None:
        self._say, self._stop = say, StopSignal()

    def before_train(self) -> None:
        """Start to watch for signals."""
        self._stop.__enter__()

    def after_train(self) -> None:
        """Stop watching for signals."""
        self._stop.__exit__(None, None, None)

    def after_step(self) -> None:
        """Save and raise `AgreedStop` if a stop was requested."""
        done = self.trainer.iter + 1
        if any_process(self._stop.asked_at > 0)[0] and done < self.trainer.max_iter:
            self.trainer.checkpointer.save("model_stopped", iteration=self.trainer.iter)  # always the same file
            self._say(f"stopped and saved after iteration {done}")
            raise AgreedStop


class Progress(HookBase):
    """Print a line now and then, with iteration, loss, learning rate, pace and time left."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def before_train(self) -> None:
        """Start the progress lines."""
        trainer = self.trainer
        if trainer.iter >= trainer.max_iter:
            self._say(f"trained before; now evaluation on {', '.join(trainer.cfg.DATASETS.TEST)}")
        self._lines = ProgressLines(self._say, trainer.cfg.OUTPUT_DIR, trainer.iter, trainer.max_iter)

    def after_step(self) -> None:
        """Print a line if one is due."""
        done, trainer = self.trainer.iter + 1, self.trainer
        self._lines.tick(
            done, lambda: (trainer.storage.history("total_loss").latest(), trainer.optimizer.param_groups[0]["lr"])
        )
        if done == trainer.max_iter:
            self._say(f"trained; now {_closing(trainer.cfg)}")


def _closing(cfg: CfgNode) -> str:
    precise = f"precise BN over {cfg.TEST.PRECISE_BN.NUM_ITER} batches, then " if cfg.TEST.PRECISE_BN.ENABLED else ""
    return f"{precise}evaluation on {', '.join(cfg.DATASETS.TEST)}"


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, but it writes checkpoints and the name of the last one atomically.

    fvcore writes both in place, so a run that is killed during writing could not be resumed.
    """

    def save(self, name: str, **more: Any) -> None:
        """Write the checkpoint ``name`` with the further entries ``more``, and record it as the last one."""
        if not self.save_to_disk:
            return
        path = Path(self.save_dir) / f"{name}.pth"
        parts = {key: part.state_dict() for key, part in self.checkpointables.items()}
        write_checkpoint(path, {"model": self.model.state_dict(), **parts, **more})
        self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Record the file name of the last checkpoint."""
        write_text(Path(self.save_dir) / "last_checkpoint", last_filename_basename)
