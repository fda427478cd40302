"""Pre-train PixPro on a folder of your own images, then draw what the features of one image look like.

The images need no labels: every image below the folder is used, in sub-folders too. Start it with

    python examples/pretrain_own_images.py --images my_photos --out runs/own_images

It writes the run folder (checkpoint, log, config) and an image, OUT/features.png, with three panels: the image with
one cell marked, the cosine similarity of this cell with every cell of the map, and the first three principal
components of the map as red, green and blue. Started again with the same options, it trains no further and draws again.

The defaults are a small run for a CPU: a narrow ResNet-50, views of 96 pixels and 10 epochs. For features that are worth
using, leave out `mini.yaml` below, which makes everything small, and train on GPUs.
The drawing needs matplotlib (`pip install matplotlib`).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms import v2

from pixbench.paths import CONFIGS
from pretrain import build_resnet, parse, train
from pretrain.data.augment import MEAN, STD
from pretrain.data.sources import open_source
from transfer.weights import load


def run_training(args: argparse.Namespace) -> Path:
    """Pre-train with the published settings of PixPro, made small by `mini.yaml`; return the checkpoint's path."""
    settings = [f"--config={CONFIGS / 'pretrain' / name}" for name in ("pixpro_100ep.yaml", "mini.yaml")]
    settings += [f"--data.root={args.images}", "--data.layout=flat", f"--data.image_size={args.size}"]
    settings += [f"--out={args.out}", f"--epochs={args.epochs}", f"--batch_size={args.batch_size}"]
    settings += [f"--backbone.width={args.width}", "--data.workers=0"]  # workers: processes that load images
    train(parse(settings))  # the same words as behind `pixbench pretrain`
    return args.out / "checkpoint.pth"


def feature_map(checkpoint: Path, image: Tensor) -> Tensor:
    """Return the map of cells (C, H, W) that the backbone in ``checkpoint`` computes for ``image`` (3, S, S) in 0..1."""
    weights = load(checkpoint)  # of the student; branch="momentum_encoder" is its slowly moving copy
    backbone = build_resnet(weights.resnet).eval()
    backbone.load_state_dict(weights.state)
    with torch.no_grad():
        return backbone(v2.functional.normalize(image, list(MEAN), list(STD))[None])[0]


def draw(image: Tensor, features: Tensor, cell: tuple[int, int], out: Path) -> None:
    """Write the three panels for ``image`` (3, S, S) and ``features`` (C, H, W); ``cell`` is a row and a column."""
    height, width = features.shape[1:]
    cells = F.normalize(features.flatten(1).T, dim=1)  # (H·W, C)
    similarity = (cells @ cells[cell[0] * width + cell[1]]).view(height, width)
    centred = cells - cells.mean(0)
    components = centred @ torch.pca_lowrank(centred, q=3, center=False)[2]  # (H·W, 3)
    low, high = components.amin(0), components.amax(0)
    colours = ((components - low) / (high - low).clamp(min=1e-6)).view(height, width, 3)

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    side = (0, width, height, 0)  # one unit is one cell
    panels[0].imshow(image.permute(1, 2, 0), extent=side)
    shown = panels[1].imshow(similarity, extent=side, cmap="viridis", vmin=0, vmax=1)  # features after a ReLU
    panels[2].imshow(colours, extent=side)
    figure.colorbar(shown, ax=panels[1])
    for panel, title in zip(panels, ("image", "cosine similarity", "principal components 1 to 3"), strict=True):
        panel.plot(cell[1] + 0.5, cell[0] + 0.5, "r+", markersize=12)
        panel.set(title=title, xticks=[], yticks=[])
    figure.savefig(out, dpi=120)


def main() -> None:
    """Train, compute the map of one image, draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images; at least BATCH_SIZE of them")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=96, help="side of a training view in pixels")
    parser.add_argument("--width", type=float, default=0.25, help="factor of the ResNet-50's channels")
    parser.add_argument("--show", type=int, default=0, help="number of the image to draw, in sorted order")
    args = parser.parse_args()

    checkpoint = run_training(args)
    side = 4 * args.size  # larger than in training, for a finer map
    settings = parse([f"--config={args.out / 'config.yaml'}"])  # with the range of images of more than 8 bits
    photo = replace(open_source(args.images, "flat"), pixel_range=settings.data.pixel_range).load(args.show)
    square = v2.functional.center_crop(v2.functional.resize(photo, [side]), [side])
    image = v2.functional.to_dtype(v2.functional.pil_to_tensor(square), torch.float32, scale=True)
    features = feature_map(checkpoint, image)
    cell = (features.shape[1] // 2, features.shape[2] // 2)
    draw(image, features, cell, args.out / "features.png")
    print(f"map of {tuple(features.shape)} (channels, rows, columns) drawn into {args.out / 'features.png'}")


if __name__ == "__main__":
    main()
