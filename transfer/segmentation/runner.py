"""mmengine's Runner with a silent console and atomic checkpoints."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_distributed, is_main_process
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from pixbench.file_versions import RUN_LOG
from pixbench.files import atomic_path
from pixbench.interrupt import shielded

if is_distributed() and not torch.cuda.is_available():
    from detectron2.layers import NaiveSyncBatchNorm  # the only SyncBN that runs on CPUs

    MODELS.register_module(name="naiveSyncBN", module=NaiveSyncBatchNorm)


class QuietRunner(Runner):
    """mmengine's Runner with one log file, a silent console and checkpoints that are written atomically."""

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any) -> Any:
        """Return mmengine's logger, with the log file of the run as its only output."""
        logger = super().build_logger(log_level, str(Path(self.work_dir) / RUN_LOG), **kwargs)
        logger.handlers[:] = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
        return logger

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> DataLoader[Any]:
        """Return mmengine's loader, with workers that ignore stop signals."""
        return shielded(Runner.build_dataloader(*args, **kwargs))

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Log the config only: querying compiler versions takes seconds, and result.json names the packages."""
        self.logger.info(f"Config:\n{self.cfg.pretty_text}")

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint atomically, on rank 0 only."""
        if is_main_process():
            with atomic_path(Path(out_dir) / filename) as part:
                super().save_checkpoint(out_dir, part.name, *args, **kwargs)
