"""A folder of made results as a few weeks of runs leave them: rows × protocols × seeds, and what goes wrong now and then."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import made_results

from pixbench.file_versions import RESULT_FILE
from transfer.protocols import protocols

ROWS = ("random", "supervised", "moco_v2", "simclr", "pixpro")
FINE_TUNED = ("voc_c4", "coco_fpn_1x", "coco_c4_1x", "cityscapes_fcn16s", "ade20k_upernet", "voc12aug_fcn_d8_20k")
FROZEN = (
    "ade20k_linear_dinov2",
    "voc12aug_knn",
    "cityscapes_knn",
    "imagenet_probe",
    "ade20k_knn",
    "voc07_discovery",
    "ade20k_statistics",
)
PROTOCOLS = FINE_TUNED + FROZEN
"""With three seeds of five rows, 195 runs; 200 with the five runs of pre-training."""
CLASSES = {"voc_c4": 20, "coco_fpn_1x": 80, "cityscapes_fcn16s": 19, "ade20k_upernet": 150}
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "$(rm -rf ~); `id` & %0a",
    r"\input{/etc/passwd} $x_1$ & \\",
    '=HYPERLINK("http://example.org")',
    "{{ 7 * 7 }}{% raw %}",
    "datum['x']' + alert(1) + '",
    "a\u202eb\u0000c\nd",
)
"""Names that HTML, JavaScript, a shell, LaTeX, a spreadsheet, a template, Vega's expressions or a terminal could act on."""


def make(
    folder: Path,
    rows: tuple[str, ...] = ROWS,
    protocols_: tuple[str, ...] = PROTOCOLS,
    seeds: int = 3,
    points: int = 200,
) -> Path:
    """Write the runs below ``folder`` and return it."""
    chance = random.Random(0)
    for place, label in enumerate(rows):
        name = f"row{place}" if label in HOSTILE else label
        _pretraining(folder / "pretrain" / name, label, place, points, chance)
        for protocol in protocols_:
            for seed in range(seeds):
                _evaluation(
                    folder / "runs" / name / protocol / f"seed{seed}", label, place, protocol, seed, points, chance
                )
    return folder


def accidents(folder: Path) -> None:
    """Add a failed run, and a damaged, a foreign, an older and an edited result, to ``folder``."""
    made_results.write(
        folder / "failed", metrics=..., status="failed", reason="CUDA ran out of memory", label="pixpro", seed=7
    )
    for name in ("damaged", "foreign", "older", "edited"):
        path = made_results.write(folder / name, label="x", seed=9)
        content = json.loads(path.read_text(encoding="utf-8"))
        if name == "damaged":
            path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
        elif name == "foreign":
            path.write_text('{"accuracy": 1.0}', encoding="utf-8")
        else:
            changed = {"schema": 1} if name == "older" else {"metrics": {"AP": 99.0, "AP50": 99.0, "AP75": 99.0}}
            path.write_text(json.dumps(content | changed), encoding="utf-8")
    begun = folder / "begun"
    begun.mkdir()
    (begun / "progress.json").write_text(json.dumps({"done": 40, "total": 100, "left_s": 3600.0, "best": {"AP": 12.5}}))
    (begun / "curve.jsonl").write_text('{"step": 40, "loss": 1.25}\n')


def _evaluation(folder: Path, label: str, place: int, name: str, seed: int, points: int, chance: random.Random) -> None:
    protocol = protocols()[name]
    end = 30 + 6 * place + 4 * math.sin(place * len(name)) + chance.gauss(0, 0.6)
    metrics = {metric: (end + 8 * number) % 100 for number, metric in enumerate(protocol.metrics)}
    first = next(iter(protocol.metrics))
    curve: list[dict[str, Any]] = [
        {"step": 100 * (step + 1), "loss": 3 * math.exp(-step / points * 3) + chance.gauss(0, 0.1), "lr": 0.02}
        for step in range(points)
    ]
    if name == "cityscapes_fcn16s":  # evaluated now and then
        curve += [{"step": 2000 * k, first: end * (1 - math.exp(-k / 3)) + chance.gauss(0, 0.4)} for k in range(1, 11)]
    frozen = protocol.kind == "frozen"
    classes = {f"class {number}": max(0.0, end + chance.gauss(0, 15)) for number in range(CLASSES.get(name, 0))}
    made_results.write(
        folder,
        name,
        metrics,
        label=label,
        seed=seed,
        scale="paper",
        curve=[] if frozen else curve,
        per_class={first: classes} if classes else ...,
        deviations=[] if frozen else ["SOLVER.IMS_PER_BATCH 8 instead of 16", "SOLVER.BASE_LR 0.01 instead of 0.02"],
        config={"MODEL": {"A": 1}, "SOLVER": {f"KEY_{number}": number for number in range(150)}},
    )


def _pretraining(folder: Path, label: str, place: int, points: int, chance: random.Random) -> None:
    curve: list[dict[str, Any]] = [
        {
            **{
                "step": 50 * step,
                "epoch": step / 2,
                "loss": place + 5 * math.exp(-step / points * 4) + chance.gauss(0, 0.05),
            },
            **{"feature_std": 0.3 + 0.05 * place + 0.5 * math.exp(-step / 10)},
            **({"knn": 5 + 30 * (1 - math.exp(-step / points * 3)) + place} if step % 20 == 0 else {}),
        }
        for step in range(points)
    ]
    made_results.write_pretraining(
        folder, method=label, curve=curve, step=50 * points, steps=50 * points, seconds=36000.0
    )


def result_files(folder: Path) -> int:
    return sum(1 for _ in folder.rglob(RESULT_FILE))
