"""Run a Detectron2 protocol, from a backbone to the metrics: `run(job, backbone)`."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch

from pixbench.errors import UserError, innermost
from pixbench.file_versions import RUN_LOG
from pixbench.files import make_folder, write_text
from pixbench.process_group import check_alike, process_group
from pixbench.progress import show
from pixbench.results import config_hash
from transfer.batch_scaling import divided
from transfer.datasets.prepared import prepared
from transfer.detection import datasets
from transfer.initial_weights import random_backbone
from transfer.job import Outcome, TransferJob, unpublished
from transfer.kept import Kept
from transfer.samples import SAMPLES
from transfer.weights import load_into
from transfer.weights.backbone import Backbone

Say = Callable[[str], None]


def run(job: TransferJob, backbone: Backbone | None) -> Outcome:
    """Fine-tune and evaluate under ``job.protocol`` from ``backbone`` (None: a random backbone of seed ``job.seed``).

    If there is a checkpoint in ``job.out``, the run continues from the last one and does not load the backbone again. A
    resumed run does the same number of iterations, but sees the images in another order than an uninterrupted one.
    Under ``torchrun`` (``WORLD_SIZE`` > 1) the process joins the group; only rank 0 writes.

    Raises:
        UserError: a setting does not exist, the backbone does not fit, or the loss is no longer finite.
    """
    datasets.point_at(job.data_root)  # before anything else imports detectron2.data
    from detectron2.utils import comm
    from detectron2.utils.env import seed_all_rng

    from transfer.detection.config import backbone_spec, build_config, config_as_dict, departures, fit_cpus, fitted
    from transfer.detection.data_settings import read_masks
    from transfer.detection.trainer import Trainer

    cfg, device = build_config(job, backbone), _device(job)
    with process_group(device.partition(":")[0], job.process_timeout), _log_to(job, comm.get_rank()) as say:
        if comm.get_world_size() > 1:
            comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
        comm.synchronize()  # rank 0 has prepared the data
        data = prepared(job.out)
        datasets.register(job, data)
        changes = (*unpublished(job, backbone_spec(cfg)), *departures(cfg, backbone), *read_masks(cfg, job, data))
        cfg.MODEL.DEVICE = device
        changes += fit_cpus(cfg, comm.get_world_size()) if device == "cpu" else ()
        backbone = fitted(cfg, backbone or random_backbone(backbone_spec(cfg), job.seed))
        divided(cfg.SOLVER.IMS_PER_BATCH, job.accumulate, comm.get_world_size())
        if comm.is_main_process():
            write_text(job.out / "config.yaml", cfg.dump())
        cfg.freeze()
        seed_all_rng(job.seed + comm.get_rank())
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
        trainer = Trainer(cfg, job, say)
        trainer.resume_or_load()
        check_alike(
            "where this run goes on", {"iteration": trainer.start_iter, "config": config_hash(config_as_dict(cfg))}
        )
        if not trainer.checkpointer.has_checkpoint():
            counts = load_into(trainer.checkpointer.model, backbone, job.protocol.weights_framework)
            say(f"backbone from {backbone.source}: {counts}")
        try:
            trainer.train()
        except FloatingPointError as error:
            raise UserError(_diverged(error, cfg, trainer.iter)) from error
        except UserError as error:
            raise UserError(innermost(str(error))) from error
        metrics, about, kept = {}, {}, Kept()
        if comm.is_main_process():
            metrics = flatten(trainer._last_eval_results)
            kept = getattr(trainer.evaluators[0], "kept", kept)
            kept.arrays[SAMPLES] = trainer.samples[0].arrays
            about = {
                "spec": backbone.spec.as_dict(),
                "pictures": {"train": trainer.pictures, "test": datasets.size(cfg.DATASETS.TEST)},
            }
    return Outcome(metrics, config_as_dict(cfg), cfg.SOLVER.MAX_ITER, changes, about, kept)


def flatten(results: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Convert ``{"bbox": {"AP": 1.0}}`` to ``{"bbox/AP": 1.0}``, and LVIS's -100 for classes without objects to NaN."""
    flat: dict[str, float] = {}
    for key, value in results.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}/")
        else:
            flat[prefix + key] = float(value) if value != -100 else math.nan
    return flat


def _diverged(error: FloatingPointError, cfg: Any, iteration: int) -> str:
    return (
        f"training diverged at iteration {iteration} ({str(error).splitlines()[0]}); lower SOLVER.BASE_LR (now "
        f"{cfg.SOLVER.BASE_LR:g}) or lengthen SOLVER.WARMUP_ITERS (now {cfg.SOLVER.WARMUP_ITERS}) with --set, and give "
        f"a new --out; the last checkpoint is kept in {cfg.OUTPUT_DIR}"
    )


def _device(job: TransferJob) -> str:
    default = "cuda" if torch.cuda.is_available() else "cpu"
    return str(job.overrides.get("MODEL.DEVICE", default))


@contextmanager
def _log_to(job: TransferJob, rank: int) -> Iterator[Say]:
    """Redirect Detectron2's logs, warnings and prints to a file in ``job.out``.

    Yields a function that writes a line to this file and to the console. Each rank other than 0 has its own file and no
    console.
    """
    make_folder(job.out)
    path = job.out / (RUN_LOG if rank == 0 else f"log.rank{rank}.txt")
    console = sys.stdout
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "py.warnings", "torch")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    with path.open("a", encoding="utf-8", buffering=1) as stream, redirect_stdout(stream):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("[%(asctime)s %(name)s] %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logging.captureWarnings(True)
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(logging.WARNING if logger.name == "torch" else logging.INFO)

        def say(text: str) -> None:
            logging.getLogger("detectron2.pixbench").info(text)
            if rank == 0:
                show(text, console)

        try:
            yield say
        finally:
            logging.captureWarnings(False)
            for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
                logger.handlers, logger.propagate = handlers, propagate
                logger.setLevel(level)
