"""Does PixPro collapse without its pixel propagation module? The standard deviation of its features during pre-training."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from pixbench.file_versions import RESULT_FILE
from pixbench.results import read_result

ROWS = {"pixpro": "PixPro", "layers_0": "linear layer instead (l = 0)", "without_ppm": "without PPM"}
"""Label of the ablation -> title."""
COLLAPSED = 0.1
"""Below this part of the standard deviation of independent features they count as collapsed."""


def curve(folder: Path) -> dict[int, float]:
    """Return step -> standard deviation of the features of C5, in parts of that of independent ones, of a pre-training run.

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
    """Return about ``lines`` points of each curve and whether the features collapsed.

    Args:
        study: folder of the ablations' results.
        lines: how many points, besides the smallest.
    """
    found = {title: points for label, title in ROWS.items() if (points := curve(study / "pretrain" / label))}
    if not found:
        return "*Not measured yet.*"
    steps = [*next(iter(found.values()))]
    shown = steps[:: max(1, len(steps) // lines)]
    rows = [
        (f"step {step}", *(f"{points[step]:.2f}" if step in points else "–" for points in found.values()))
        for step in shown
    ]
    rows.append(("smallest", *(f"{min(points.values()):.2f}" for points in found.values())))
    rows.append(("collapsed", *("yes" if min(points.values()) < COLLAPSED else "no" for points in found.values())))
    return tabulate(rows, ("", *found), tablefmt="github", disable_numparse=True)
