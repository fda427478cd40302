"""Which optimiser the search of the study chooses for each method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from benchmarks.suite import read_suite
from pixbench.file_versions import RESULT_FILE
from pixbench.paths import CONFIGS, STUDY
from pixbench.results import read_result

SUITE = CONFIGS / "suites/study_search.yaml"
MEASURES = {"imagenet_probe": "linear_top1", "voc12aug_logistic": "mIoU"}
"""Protocol -> metric; their sum decides."""
SETTINGS = ("published", "sqrt", "adamw")
"""In the order in which they are preferred when equally good."""
TIE = 0.5
"""Two sums that are less than this apart count as equal."""
HEADS = ("method", "setting", "linear top-1", "mIoU", "sum", "taken")


def measured(study: Path = STUDY) -> dict[str, dict[str, list[float]]]:
    """Return method -> setting -> numbers of `MEASURES` in per cent, of the runs that are finished under all of them."""
    found: dict[str, dict[str, list[float]]] = {}
    for label in read_suite(SUITE).rows:
        method, _, setting = label.rpartition("_")
        paths = [study / "search/runs" / label / protocol / "seed0" / RESULT_FILE for protocol in MEASURES]
        values = [_number(path, metric) for path, metric in zip(paths, MEASURES.values(), strict=True)]
        if None not in values:
            found.setdefault(method, {})[setting] = [value for value in values if value is not None]
    return found


def _number(path: Path, metric: str) -> float | None:
    """Return a number of a result; None if it is not kept, has not ended well, or the number is undefined."""
    if not path.is_file() or (result := read_result(path))["status"] != "ok":
        return None
    found: float | None = result["metrics"].get(metric)
    return found


def choice(sums: Mapping[str, float]) -> str:
    """Return the setting that is taken: that with the largest sum, or the first one that is less than `TIE` below."""
    return next(setting for setting in SETTINGS if setting in sums and sums[setting] > max(sums.values()) - TIE)


def chosen(study: Path = STUDY) -> dict[str, str]:
    """Return method -> setting that is taken, of methods whose whole search is kept."""
    sums = {method: {name: sum(values) for name, values in found.items()} for method, found in measured(study).items()}
    return {method: choice(found) for method, found in sums.items() if len(found) == len(SETTINGS)}


def optimiser(method: str, setting: str) -> dict[str, Any]:
    """Return the settings of pre-training that ``setting`` changes, without the size of the search."""
    rows = yaml.safe_load(SUITE.read_text(encoding="utf-8"))["rows"]
    row: dict[str, Any] = rows[f"{method}_{setting}"]["set"]
    return {key: value for key, value in row.items() if key.startswith("optimizer.") or key == "method.momentum"}


def table(study: Path = STUDY) -> str:
    """Return all numbers of the search as a table in Markdown."""
    rows, taken = [], chosen(study)
    for method, found in measured(study).items():
        for setting, values in found.items():
            numbers = [f"{value:.1f}" for value in (*values, sum(values))]
            rows.append((method, setting, *numbers, "taken" if taken.get(method) == setting else ""))
    if not rows:
        return "*Not measured yet.*"
    return tabulate(rows, HEADS, tablefmt="github", disable_numparse=True)
