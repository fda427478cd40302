"""`pixbench probe`: evaluate a frozen backbone (k-NN, linear, dense linear, Q-score) and write `result.json`."""

from __future__ import annotations

import argparse
import csv
import io
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.commands import DATA_ROOT
from pixbench.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pretrain.data.sources import Source
    from transfer.weights.backbone import Backbone

DATASETS = ("imagenet", "cityscapes")
MAX_SEED = 2**32 - 1


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("probe", help="evaluate the frozen features of a backbone")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "weights", nargs="?", type=Path, metavar="CKPT", help="any file that `pixbench convert` reads or writes"
    )
    start.add_argument("--init", choices=["random"], help="probe a random ResNet-50")
    parser.add_argument("--width", type=float, help="width of the random backbone (default: 1; mini scale: 0.25)")
    parser.add_argument("--data-root", type=Path, required=True, metavar="DIR", help=DATA_ROOT)
    parser.add_argument(
        "--datasets", nargs="+", choices=DATASETS, default=list(DATASETS), help="what to evaluate on: imagenet (k-NN, linear, "
        "Q-score), cityscapes (dense); default: both"
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder")
    parser.add_argument(
        "--size", type=int, default=224, help="side of the imagenet crops in pixels (default: 224; mini: 96)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the random backbone and of the sampled cells (default: 0)"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="images per forward pass; changes no metric")
    parser.add_argument(
        "--workers",
        type=int,
        help="number of processes that read images; 0: none besides this one (default: one per core)",
    )
    parser.add_argument("--label", help="name of the table row this run belongs to")
    parser.set_defaults(run=probe)


def probe(args: argparse.Namespace) -> None:
    """Evaluate the backbone, unless the run folder has a result already, and print the metrics.

    Under torchrun, the processes share the images; rank 0 fits the classifiers on all features and writes the result.
    """
    _check(args)
    from benchmarks.probe import dense
    from benchmarks.probe.features import Frozen, class_folders, cores, embed
    from benchmarks.probe.parallel import by_first
    from pixbench.file_versions import RESULT_FILE
    from pixbench.process_group import process_deaths_explained
    from pixbench.results import config_hash
    from transfer.run_folder import claim, close, finished_result, is_main, now

    args.datasets = [name for name in DATASETS if name in args.datasets]
    workers = cores() if args.workers is None else args.workers
    with _processes() as device, process_deaths_explained():
        if "cityscapes" in args.datasets:
            by_first(lambda: _require_cityscapes(args))
        sources = class_folders(args.data_root / "imagenet") if "imagenet" in args.datasets else None
        if sources and len(set(sources[0].labels.tolist())) < 2:
            raise UserError(
                f"{sources[0].root} holds one class, {Path(sources[0].names[0]).parts[0]}, so there is nothing to tell apart; "
                "add a folder of images for at least one more class, here and in val"
            )
        backbone, weights = _backbone(args)
        config = _config(args, backbone)
        identity = {"probe": config, "seed": args.seed, "weights": weights["sha256"] if weights else "random"}
        resumed, result = by_first(lambda: (claim(args.out, identity), finished_result(args.out)))
        started, clock = now(), time.monotonic()
        metrics: dict[str, float] = {}
        if result is None and "cityscapes" in args.datasets:  # first: its features are gone when the others come
            model = Frozen(backbone, dense.OUTPUT_STRIDE).to(device)
            metrics = dense.dense_probe(model, args.data_root / "cityscapes", args.seed, workers)
        if result is None and sources:
            model = Frozen(backbone).to(device)
            train, val = (embed(model, source, args.size, args.batch_size, workers) for source in sources)
    if not is_main():
        return
    if result is None:
        if sources:
            metrics = _classify(args.out, sources, train, val) | metrics
        record = {
            "kind": "probe",
            "init": args.weights.name if args.weights else "random",
            "weights": weights,
            "label": args.label,
            "seed": args.seed,
            "resumed": resumed,
            "started": started,
            "metrics": metrics,
            "config": config,
            "config_sha256": config_hash(config),
            "status": "ok",
        }
        result = close(args.out, record, clock)
    numbers = "  ".join(f"{name} {_brief(value)}" for name, value in result["metrics"].items())
    print(f"probe: {numbers}  ({result['wall_time_s']:.0f} s; {args.out / RESULT_FILE})")


def _check(args: argparse.Namespace) -> None:
    """Raise `UserError` if an option has a value that is not possible."""
    if not 0 <= args.seed <= MAX_SEED:
        raise UserError(f"--seed {args.seed} is not possible; choose a whole number from 0 to {MAX_SEED}")
    if args.size < 32 or args.batch_size < 1 or (args.workers or 0) < 0:
        raise UserError("--workers cannot be negative, --size is at least 32, --batch-size at least 1")
    if args.weights and args.width is not None:
        raise UserError(f"--width {args.width} is for --init random; leave it out: {args.weights} decides the width")


def _processes() -> AbstractContextManager[torch.device]:
    """Return the group of the processes that torchrun started, as `process_group` does."""
    import torch

    from pixbench.process_group import process_group

    gpu = torch.cuda.is_available()
    return process_group("cuda", backend="cpu:gloo,cuda:nccl") if gpu else process_group("cpu")


def _require_cityscapes(args: argparse.Namespace) -> None:
    from transfer.datasets.check import require_datasets

    try:
        require_datasets(args.data_root, ["cityscapes"])
    except UserError as error:
        alone = "; to evaluate on class folders alone, add --datasets imagenet" if "imagenet" in args.datasets else ""
        raise UserError(f"{error}{alone}") from error


def _backbone(args: argparse.Namespace) -> tuple[Backbone, dict[str, str] | None]:
    """Return the backbone to probe, and where its weights come from; None for random ones."""
    from benchmarks.probe.dense import OUTPUT_STRIDE
    from pretrain.models.backbone_spec import BackboneSpec
    from transfer.initial_weights import random_backbone
    from transfer.weights import load
    from transfer.weights.sources import locate

    width = 1.0 if args.width is None else args.width
    located = locate(args.weights) if args.weights else None
    try:
        backbone = load(located) if located else random_backbone(BackboneSpec(width=width), args.seed)
    except ValueError as error:
        raise UserError(f"--width {width}: {error}") from error
    if "cityscapes" in args.datasets and backbone.resnet.natural_stride < OUTPUT_STRIDE:
        raise UserError(
            f"{backbone.source} holds a {backbone.spec.title}; the dense probe needs a backbone whose C5 can have cells of "
            f"{OUTPUT_STRIDE} pixels; choose --datasets imagenet"
        )
    origin = {"path": str(args.weights), "sha256": located.sha256, "source": backbone.source} if located else None
    return backbone, origin


def _config(args: argparse.Namespace, backbone: Backbone) -> dict[str, Any]:
    """Return all that decides the metrics, besides seed and weights."""
    from benchmarks.probe import classify, dense, qscore
    from pretrain import knn

    return {
        "datasets": args.datasets,
        "backbone": backbone.spec.as_dict(),
        "imagenet": {"size": args.size, "k": knn.NEIGHBOURS, "temperature": knn.TEMPERATURE},
        "linear": {"l2": classify.L2, "iterations": classify.ITERATIONS},
        "q_score": {"soft_zero": qscore.SOFT_ZERO},
        "cityscapes": {"output_stride": dense.OUTPUT_STRIDE, "cells": dense.CELLS},
    }


def _classify(out: Path, sources: tuple[Source, Source], train: Tensor, val: Tensor) -> dict[str, float]:
    """Return k-NN and linear top-1 and the Q-scores; write those of each image to ``out / "qscore.csv"``.

    ``train`` (n, C) and ``val`` (m, C) are the features of ``sources``.
    """
    import torch

    from benchmarks.probe import classify, qscore
    from pixbench.files import write_text
    from pretrain.knn import knn, top1

    labels, answers = (torch.tensor(source.labels, dtype=torch.int64, device=train.device) for source in sources)
    classes = int(labels.max()) + 1
    predicted = classify.fit_linear(train, labels, classes).predict(val)
    scores, wrong = qscore.scores(val), (predicted != answers).cpu().numpy()
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["image", "label", "predicted", *scores])
    rows.writerows(zip(sources[1].names, answers.tolist(), predicted.tolist(), *scores.values(), strict=True))
    write_text(out / "qscore.csv", table.getvalue())
    return {
        "knn_top1": top1(knn(train, labels, val, classes), answers),
        "linear_top1": top1(predicted, answers),
        **qscore.diagnose(scores, wrong),
    }


def _brief(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
