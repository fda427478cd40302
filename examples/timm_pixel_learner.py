"""Train a network of your own with PixPro's losses, in a plain PyTorch loop.

The network is timm's resnet18, with random weights. `PixelLearner` takes any network whose inner layers give maps, and
trains it in place. The images need no labels: every image below the folder is used. Start it with

    python examples/timm_pixel_learner.py --images my_photos --out resnet18.pth

`docs/methods/pixel_learner.md` describes the loss and the arguments of `PixelLearner`. The example needs timm
(`pip install timm`).
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import timm
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from pretrain import PixelLearner

SUFFIXES = {".jpg", ".jpeg", ".png"}


class Folder(Dataset[Tensor]):
    """Every image below a folder, as tensors (3, side, side) in 0..1 that are not normalised: `PixelLearner` does that."""

    def __init__(self, root: Path, side: int) -> None:
        self.paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
        self.prepare = v2.Compose(
            [v2.PILToTensor(), v2.Resize(side), v2.CenterCrop(side), v2.ToDtype(torch.float32, scale=True)]
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Return the image with this number."""
        with Image.open(self.paths[index]) as image:
            return self.prepare(image.convert("RGB"))


def main() -> None:
    """Wrap the network, train it for some steps, save it alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images; at least BATCH_SIZE of them")
    parser.add_argument("--out", type=Path, required=True, help="file for the trained network's weights")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--size", type=int, default=96, help="side of a view in pixels; a cell has 32 pixels")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")
    args = parser.parse_args()

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = Folder(args.images, side=args.size * 3 // 2)  # views are crops with 0.6 to 0.8 of the side
    if len(images) < args.batch_size:
        parser.error(f"{args.images} holds {len(images)} images, fewer than a batch of {args.batch_size}")
    loader = DataLoader(images, args.batch_size, shuffle=True, num_workers=args.workers, drop_last=True)

    net = timm.create_model("resnet18", pretrained=False, num_classes=0)
    learner = PixelLearner(
        net,
        image_size=args.size,
        hidden_layer_pixel="layer4",  # its map of cells goes to the pixel loss
        hidden_layer_instance="global_pool",  # its vector goes to the instance loss
    ).to(device)
    optimiser = torch.optim.AdamW(learner.parameters(), lr=1e-4)

    step = 0
    while step < args.steps:
        for batch in islice(loader, args.steps - step):
            loss, pairs = learner(batch.to(device), return_positive_pairs=True)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            learner.update_moving_average()  # once after each step: moves the momentum encoder
            step += 1
            print(f"step {step}/{args.steps}  loss {loss.item():.3f}  positive pairs {int(pairs)}")

    torch.save(net.state_dict(), args.out)  # timm's own names: net.load_state_dict(torch.load(...))
    print(f"the loss lies between -8 and 8 and negative is normal; weights of resnet18 in {args.out}")


if __name__ == "__main__":
    main()
