"""`pixbench replay`: take one batch of a pre-training run through its network again, to see where NaN comes from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

if TYPE_CHECKING:
    from pretrain.replay import Replay

SHOWN = 16
"""Number of images and modules that are printed; the JSON file has all."""
WIDEST = 8192
"""Largest side of the picture in pixels."""


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "replay", help="take one batch of a pre-training run through its network again, to see where NaN comes from"
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("--step", type=int, help="step, counted from 1 (default: the one after which the run gave up)")
    parser.add_argument("--anomaly", action="store_true", help="find the operation whose gradient is NaN; slower")
    parser.add_argument("--root", default="", help="folder of the images (default: data.root of the run)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")
    parser.add_argument("-o", "--out", type=Path, help="folder of the picture and the JSON file (default: RUN/replay)")
    parser.set_defaults(run=run_replay)


def run_replay(args: argparse.Namespace) -> int:
    """Replay the step, print and write what was found; return 0 if all was finite, else 1."""
    import torch

    from pixbench.files import make_folder
    from pretrain.replay import replay

    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    result = replay(args.run_folder, args.step, device, anomaly=args.anomaly, root=args.root)
    out = make_folder(args.out or args.run_folder / "replay")
    picture, facts = (out / f"step{result.step:09}{suffix}" for suffix in (".png", ".json"))
    draw(result, picture)
    write(result, facts)
    print(report(result))
    print(
        f"{picture}: the two views of each image, side by side, in the order of the list\n{facts}: all of this as JSON"
    )
    return 0 if result.finite else 1


def report(result: Replay) -> str:
    """Return the text for the screen."""
    from math import isfinite

    from pixbench.errors import printable
    from pretrain.data.augment import MEAN, STD

    def row(image: dict[str, Any]) -> list[Any]:
        values = [f"{image[view][key]:.3g}" for view in ("view1", "view2") for key in ("min", "mean", "max")]
        return [printable(image["name"]), image["epoch"], image["index"], *values]

    header = ["image", "epoch", "index", *(f"view {view}\n{key}" for view in (1, 2) for key in ("min", "mean", "max"))]
    black = min((0 - mean) / std for mean, std in zip(MEAN, STD, strict=True))
    white = max((1 - mean) / std for mean, std in zip(MEAN, STD, strict=True))
    lines = [
        f"step {result.step}: {len(result.images)} images, computed in fp32",
        f"weights: {result.weights}",
        f"pixels: normalised, as the network gets them: from {black:.2f} (black) to {white:.2f} (white)",
        tabulate([row(image) for image in result.images[:SHOWN]], header, disable_numparse=True),
    ]
    if len(result.images) > SHOWN:
        lines.append(f"... and {len(result.images) - SHOWN} more")
    for number, part in enumerate(result.losses, 1):
        values = ", ".join(f"{name} {value:.6g}" for name, value in part.items())
        lines.append(f"part {number} of the batch: {values}" if len(result.losses) > 1 else values)
    good = sorted(((value, name) for name, value in result.largest.items() if isfinite(value)), reverse=True)
    if good:
        listed = ", ".join(f"{name} {value:.3g}" for value, name in good[: SHOWN // 2])
        lines.append(f"modules with the largest finite outputs: {listed}")
    if bad := len(result.largest) - len(good):
        lines.append(f"modules with outputs that are not finite: {bad} of {len(result.largest)}")
    lines.append(f"norm of the gradient: {result.gradient_norm:.6g}")
    lines += verdict(result)
    return "\n".join(lines)


def verdict(result: Replay) -> list[str]:
    """Return what is not finite, in sentences."""
    lines = []
    if result.first_not_finite:
        lines.append(f"first output that is not finite: {result.first_not_finite}")
    elif not result.losses_finite:
        lines.append("the outputs of all modules are finite, so the loss itself is the first value that is not")
    if result.gradients_not_finite:
        bad = result.gradients_not_finite
        lines.append(f"gradients that are not finite: {len(bad)}, on the way back first {', '.join(bad[:3])}")
    if result.anomaly:
        lines.append(f"anomaly detection: {result.anomaly}")
    if result.finite:
        lines.append("all outputs, losses and gradients are finite")
        if result.precision != "fp32":
            lines.append(f"the run itself computes in {result.precision}, so a value may be too large for it there")
    return lines


def draw(result: Replay, path: Path) -> None:
    """Write the views to ``path``: those of one image side by side, eight images in a row or more."""
    import torch.nn.functional as F
    from torch import stack, tensor
    from torchvision.transforms.functional import to_pil_image
    from torchvision.utils import make_grid

    from pixbench.files import atomic_path
    from pretrain.data.augment import MEAN, STD

    pairs = stack(result.views, dim=1).flatten(0, 1)  # (2B, 3, S, S)
    columns = 2 * max(1, min(len(result.images), max(4, round((len(pairs)) ** 0.5 / 2))))
    tile = min(pairs.shape[-1], WIDEST // columns)
    mean, std = (tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    shown = (F.interpolate(pairs, (tile, tile), mode="area") * std + mean).clamp(0, 1)
    with atomic_path(path) as part:
        to_pil_image(make_grid(shown, nrow=columns, padding=2)).save(part)


def write(result: Replay, path: Path) -> None:
    """Write everything but the views to ``path``. Values that are not finite become null."""
    from pixbench.files import write_json

    write_json(path, {**{key: value for key, value in vars(result).items() if key != "views"}, "finite": result.finite})
