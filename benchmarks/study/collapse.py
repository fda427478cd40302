"""Does PixPro collapse without its pixel propagation module? Its projections during pre-training, and its C5 afterwards."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from pixbench.file_versions import RESULT_FILE
from pixbench.results import read_result

ABLATIONS = {
    "pixpro": "PixPro (γ = 2, l = 1, T = 0.7)",
    "gamma_0.5": "γ = 0.5",
    "gamma_1": "γ = 1",
    "layers_0": "l = 0 (no transform)",
    "layers_2": "l = 2",
    "threshold_0.35": "T = 0.35",
    "threshold_1.4": "T = 1.4",
    "without_ppm": "without PPM (l = 0, γ = 10⁶)",
}
"""Label -> title, in the order of the table."""
ROWS = ("pixpro", "layers_0", "without_ppm")
"""The ablations that show it."""
COLLAPSED = 0.1
"""Below this part of the standard deviation of independent features they count as collapsed."""
AFTERWARDS = {
    "in-context mIoU of VOC": ("voc12aug_incontext", "mIoU"),
    "RankMe of C5": ("voc12aug_statistics", "rankme"),
}
"""Title -> protocol and metric, of the backbone at the end."""


def curve(folder: Path) -> dict[int, float]:
    """Return step -> standard deviation of the projections, in parts of that of independent ones, of a pre-training run.

    Nothing if the run is not kept, has not ended well, or has not measured it.
    """
    if not folder.is_dir():
        return {}
    result = read_result(folder / RESULT_FILE)
    points = result["curve"] if result["status"] == "ok" else ()
    return {point["step"]: point["feature_std"] for point in points if point.get("feature_std") is not None}


def smallest(study: Path, label: str = "without_ppm") -> float | None:
    """Return the smallest value of a curve; None if there is none yet."""
    return min(curve(study / "pretrain" / label).values(), default=None)


def table(study: Path, lines: int = 8) -> str:
    """Return about ``lines`` points of each curve, whether the projections collapsed, and what was measured at the end.

    Args:
        study: folder of the ablations' results.
        lines: how many points, besides the smallest.
    """
    curves = {label: points for label in ROWS if (points := curve(study / "pretrain" / label))}
    if not curves:
        return "*Not measured yet.*"
    steps = [*next(iter(curves.values()))]
    shown = steps[:: max(1, len(steps) // lines)]
    rows = [
        (f"step {step}", *(f"{points[step]:.2f}" if step in points else "–" for points in curves.values()))
        for step in shown
    ]
    rows.append(("smallest", *(f"{min(points.values()):.2f}" for points in curves.values())))
    rows.append(("collapsed", *("yes" if min(points.values()) < COLLAPSED else "no" for points in curves.values())))
    for title, (protocol, metric) in AFTERWARDS.items():
        rows.append((title, *(_measured(study / "runs" / label / protocol / "seed0", metric) for label in curves)))
    return tabulate(rows, ("", *(ABLATIONS[label] for label in curves)), tablefmt="github", disable_numparse=True)


def _measured(run: Path, metric: str) -> str:
    if not run.is_dir():
        return "–"
    value = read_result(run / RESULT_FILE)["metrics"].get(metric)
    return "–" if value is None else f"{value:.1f}"
