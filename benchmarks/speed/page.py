"""The tables and the plot of docs/speed.md, made from the figures that `python -m benchmarks.speed` stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.costs import images_per_second
from pixbench.paths import CONFIGS
from pretrain.config import parse

ENOUGH = 5
"""Turns from which a median is compared with the aim: one turn alone says little on a machine that does other things too."""


def table(lines: list[dict[str, Any]]) -> str:
    """Return ``lines`` as a table in Markdown. An aim that is met is marked with ✓, one that is missed with ✗."""
    rows = [
        (
            line["title"],
            f"{1000 * line['seconds']:.1f}",
            _against(line["ratio"], line["time"], line["rounds"]),
            f"{line['megabytes']:.0f}",
            _against(line["memory_ratio"], line["memory"], line["rounds"]),
        )
        for line in lines
    ]
    headers = ("work", "ms", "× time", "MB", "× memory")
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _against(value: float, bound: float | None, rounds: int) -> str:
    if bound is None:
        return f"{value:.2f}"
    mark = "" if rounds < ENOUGH else " ✓" if value <= bound else " ✗"
    return f"{value:.2f}{mark} (aim: {bound:.2f})"


def page(stored: dict[str, Any]) -> str:
    """Return all tables of docs/speed.md."""
    parts = []
    for group in stored.values():
        if "lines" in group:
            has = ", ".join(group["has"]) or "no wide instructions"
            cpu = f"{group['cpu']}, {group['cores']} cores ({has})"
            about = f"{group.get('gpu', cpu)}, PyTorch {group['torch']}, {group['date']}"
            parts.append(f"{table(group['lines'])}\n\n*{about}; median of {group['lines'][0]['rounds']} turns.*")
    if scaling := stored.get("scaling"):
        parts.append(
            f"Two processes with one thread each train {scaling['ratio']:.2f} times as many images per second as one "
            f"({scaling['two']:.0f} against {scaling['one']:.0f}, mini scale, {scaling['date']})."
        )
    if "input" in stored:
        parts.append(feeding(stored["input"]["lines"]))
    return "\n\n".join(parts)


def feeding(lines: list[dict[str, Any]]) -> str:
    """Return the table of the cores that keep one GPU busy, from the measured images/s of one core."""
    gpu = images_per_second(parse(["--config", str(CONFIGS / "pretrain" / "pixpro_100ep.yaml")]))
    rows = []
    for line in lines:
        rate = line["images"] / line["seconds"]
        rows.append((line["title"], f"{rate:.0f}", f"{gpu / rate:.1f}"))
    headers = ("input pipeline", "images/s of one core", f"cores for {gpu:.0f} images/s (one A100)")
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def plot(stored: dict[str, Any], path: Path) -> None:
    """Draw time and memory of loss and PPM against the number of cells, as ratios to the reference."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, key, title in zip(axes, ("ratio", "memory_ratio"), ("time", "peak memory"), strict=True):
        for group, name in (("loss", "loss and its gradient"), ("ppm", "PPM and its gradient")):
            lines = stored[group]["lines"]
            sides = [int(line["ours"].split(":")[1]) for line in lines]
            axis.plot(sides, [line[key] for line in lines], marker="o", label=name)
        axis.axhline(1, color="grey", linewidth=0.8, linestyle="--")
        axis.set_xscale("log", base=2)
        axis.set_xticks(sides, [f"{side}×{side}" for side in sides])
        axis.set_xlabel("cells of a map")
        axis.set_title(f"{title}, 1 = dense reference")
    axes[0].set_ylim(0)
    axes[0].legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
