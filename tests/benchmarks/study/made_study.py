"""A study with made-up numbers, in the folders that `scripts/study.py` keeps."""

from __future__ import annotations

from pathlib import Path

import made_results
import yaml

from benchmarks.study.answers import MAIN, MEASURES, PIXPRO

FROZEN = ("imagenet_probe", "voc12aug_incontext")


def numbers(method: str, seed: int, measure: int) -> float:
    """Return a made-up number: PixPro is 10 better than other rows in localisation, and 10 worse in identity.

    A seed changes all rows alike, and each of them a little.
    """
    better = 10.0 if method.startswith(PIXPRO) else 0.0
    identity = measure == len(MEASURES) - 1
    return 40 + (-better if identity else better) + seed + 0.1 * (sum(map(ord, method)) ** (seed + 1) % 7)


def write(study: Path, methods: tuple[str, ...] = MAIN, runs: int = 3) -> None:
    """Write the results of all measures, for some pre-training runs of each method, each with three seeds if fine-tuned."""
    for method in methods:
        for run in range(runs):
            label = f"{method}_s{run}"
            folder = study / "finetuned/pretrain" / label
            folder.mkdir(parents=True)
            settings = {"method": {"name": method}, "seed": run}
            (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
            weights = {"path": str(folder / "checkpoint.pth"), "sha256": "0" * 64, "source": "x"}
            for number, measure in enumerate(MEASURES):
                frozen = measure.protocol in FROZEN
                for seed in range(1 if frozen else 3):
                    metrics = made_results.made(measure.protocol)["metrics"]
                    metrics[measure.metric] = numbers(method, run, number) + 0.01 * seed
                    place = study / ("frozen" if frozen else "finetuned") / "runs" / label / measure.protocol
                    made_results.write(
                        place / f"seed{seed}", measure.protocol, metrics, label=label, seed=seed, weights=weights
                    )


def write_ablation(study: Path, label: str, std: list[float]) -> None:
    """Write a pre-training run whose features have the standard deviations ``std``."""
    curve = [{"step": 10 * step, "loss": 1.0, "feature_std": value} for step, value in enumerate(std, 1)]
    made_results.write_pretraining(study / "ablations/pretrain" / label, curve=curve)


def write_search(study: Path, method: str, sums: dict[str, float]) -> None:
    """Write the search of a method; ``sums`` has the sum of both numbers of each setting."""
    for setting, total in sums.items():
        for protocol, metric in (("imagenet_probe", "linear_top1"), ("voc12aug_logistic", "mIoU")):
            metrics = {**made_results.made(protocol)["metrics"], metric: total / 2}
            made_results.write(study / "search/runs" / f"{method}_{setting}" / protocol / "seed0", protocol, metrics)
