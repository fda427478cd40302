"""Steps that pre-train: every method in every precision, all GPUs against one, and more and more GPUs."""

from __future__ import annotations

import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.commands import PIXBENCH
from benchmarks.gpu_day.step import Place, Step, cores, require
from pixbench.file_versions import RESULT_FILE, STEP_LOG
from pixbench.paths import CONFIGS
from pretrain.method_descriptions import config_files
from pretrain.methods import METHODS

IMAGES, FEW = 64, 4
"""Images of a process in a step, on a GPU (half of what PixPro publishes; fp32 takes 25.5 GB) and on a CPU."""
SMALL: dict[str, object] = {"backbone.width": 0.0625, "data.image_size": 32, "data.workers": 1}
"""What makes a run small enough for a CPU, after configs/pretrain/mini_linear.yaml; mini_ibot.yaml has a backbone of its own."""
CLOSE = 0.05
"""Largest difference of the first losses of two precisions, relative to a loss of 1 or more."""
EXACT = 1e-3
"""The same between one process and several, both in fp32."""
NO_TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}
"""Multiply in full fp32, so that only the order of sums differs."""


def pretrain(place: Place, method: str, out: Path, processes: int = 1, **settings: Any) -> list[str]:
    """Return the command line of a short run with the method's own config, in which an epoch is one step.

    ``settings`` change it; they are written with __ for dots.
    """
    batch = processes * (IMAGES if place.gpus else FEW)
    workers = max(1, min(8, cores() // processes - 1))
    on_vit = METHODS[method].needs_tokens
    small = {key: value for key, value in SMALL.items() if not (on_vit and key.startswith("backbone"))}
    sizes = {"data.workers": workers, "augment.device": "cuda"} if place.gpus else small
    values = {
        **sizes,
        "data.root": place.data / "imagenet",
        "data.cache": "true",
        "data.limit": batch,
        "batch_size": batch,
    }
    values |= {"epochs": 20, "log_every": 5} if place.gpus else {"epochs": 2, "log_every": 1}
    values |= {"checkpoint_every": 10**6, "keep_every": 0, "log.views_every": 0, "log.knn_every": 0, "out": out}
    values |= {key.replace("__", "."): value for key, value in settings.items()}
    overlays = [] if place.gpus else ["mini_linear.yaml", *(["mini_ibot.yaml"] if on_vit else [])]
    files = [config_files(method)[0], *overlays]
    configs = [f"--config={CONFIGS / 'pretrain' / name}" for name in files]
    return [*PIXBENCH, "pretrain", *configs, *(f"--{key}={value}" for key, value in values.items())]


def train(
    place: Place, name: str, method: str, processes: int = 1, env: dict[str, str] | None = None, **settings: Any
) -> Path:
    """Pre-train to the end (see `pretrain`) and return the run folder."""
    out = place.folder / name
    place.run(f"{name}-run", pretrain(place, method, out, processes, **settings), out / RESULT_FILE, processes, env)
    return out


def log_of(out: Path) -> list[dict[str, Any]]:
    """Return the complete lines of the log of a run."""
    path = out / STEP_LOG
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def figures(out: Path) -> dict[str, Any]:
    """Return the figures of a run: medians of the second half of its log, and the peak of its memory."""
    lines = log_of(out)
    later = lines[len(lines) // 2 :]
    require(all(line["loss"] is not None for line in lines), f"{out.name}: a loss is not finite")
    return {
        "images/s": statistics.median(line["images_per_s"] for line in later),
        "waiting for images": f"{statistics.median(line['data_wait'] for line in later):.0%}",
        "GB": max(line["memory_gb"] for line in lines),
        "first loss": lines[0]["loss"],
        "last loss": lines[-1]["loss"],
    }


def difference(one: float, other: float) -> float:
    """Return the difference of two losses, relative to ``one`` if that is large."""
    return abs(one - other) / max(1.0, abs(one))


def precisions(place: Place, method: str) -> None:
    """Train in fp32, bf16 and (on a GPU) fp16; the first losses must be close."""
    rows: dict[str, dict[str, Any]] = {}
    for precision in ("fp32", "bf16", *(["fp16"] if place.gpus else [])):
        row = rows[precision] = figures(train(place, precision, method, precision=precision))
        full = rows["fp32"]
        place.table[f"{method}, {precision}"] = {**row, "× fp32": row["images/s"] / full["images/s"]}
        losses = row["first loss"], full["first loss"]
        require(difference(*losses) <= CLOSE, f"the first loss is {losses[0]} in {precision} and {losses[1]} in fp32")


def one_and_all(place: Place) -> None:
    """Train on one GPU, and with the same batches on all: batch norm and the exchange of features make the losses equal."""
    images = 16 * place.gpus
    same = {"epochs": 10, "log_every": 1, "precision": "fp32", "batch_size": images, "data__limit": images}
    for method in ("pixpro", "simclr"):
        one, every = (
            [line["loss"] for line in log_of(train(place, f"{method}-{n}", method, n, NO_TF32, **same))]
            for n in (1, place.gpus)
        )
        off = [difference(*losses) for losses in zip(one, every, strict=True)]
        place.table[method] = {"difference in step 1": f"{off[0]:.1e}", "largest in 10 steps": f"{max(off):.1e}"}
        require(off[0] <= EXACT, f"{method}: the first loss is {one[0]} on one GPU and {every[0]} on {place.gpus}")


def scaling(place: Place) -> None:
    """Train PixPro on 1, 2, 4, … processes, each with as many images."""
    rows: list[dict[str, Any]] = []
    for count in dict.fromkeys([n for n in (1, 2, 4) if n < place.processes] + [place.processes]):
        precision = "fp16" if place.gpus else "fp32"
        rows.append(row := figures(train(place, f"on-{count}", "pixpro", count, precision=precision)))
        place.table[f"{count} processes"] = {**row, "× 1 process": row["images/s"] / rows[0]["images/s"]}


ONE_AND_ALL = Step(
    "syncbn",
    "several GPUs compute what one computes, batch norm and gathered features included",
    one_and_all,
    "All GPUs against one, with the same batches",
    gpus=2,
    not_on_cpu="PyTorch synchronises batch norm on GPUs only",
)
SCALING = Step("scaling", "more GPUs are faster", scaling, "Scaling", gpus=2)
PRECISIONS = [
    Step(f"pretrain-{name}", "trains in every precision", partial(precisions, method=name), "Precisions, one process")
    for name in METHODS
]
