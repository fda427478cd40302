"""Initial weights that need no pre-training: a random backbone, or torchvision's supervised ResNet-50."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import torch

from pixbench.errors import UserError
from transfer.weights.backbone import Backbone
from transfer.weights.models.networks import build_network
from transfer.weights.spec import Spec
from transfer.weights.vit_spec import VitSpec


def random_backbone(spec: Spec, seed: int) -> Backbone:
    """Return a backbone of ``spec`` with random weights that depend only on ``seed``.

    The initialisation is that of pre-training: He fan-out, and 0 for the last gamma of each block. The matrices and
    positions of a ViT are drawn from a truncated normal of standard deviation 0.02, as in MAE and ViTDet. The
    frameworks initialise differently, so this backbone is loaded like a checkpoint: rows of a table then differ only in
    the weights of the backbone. The global random state is not changed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_network(spec)
        for name, parameter in model.named_parameters() if isinstance(spec, VitSpec) else ():
            if parameter.dim() == 2 or name == "pos_embed":
                torch.nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith(".bias"):
                torch.nn.init.zeros_(parameter)
        return Backbone(spec, model.state_dict(), f"random initialisation, seed {seed}")


def supervised_place() -> tuple[str, Path]:
    """Return the URL of torchvision's supervised ResNet-50 and its path in torch's cache, where it may or may not be.

    The network was trained with ImageNet labels (top-1 76.1, the usual baseline).
    """
    from torchvision.models import ResNet50_Weights

    url = ResNet50_Weights.IMAGENET1K_V1.url
    return url, Path(torch.hub.get_dir(), "checkpoints", os.path.basename(url))


def supervised_file() -> Path:
    """Return the file of `supervised_place`; download it if it is not there.

    Raises:
        UserError: the file cannot be downloaded.
    """
    url, path = supervised_place()
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2], progress=False)
        except (OSError, URLError, RuntimeError) as error:
            raise UserError(
                f"{url} cannot be downloaded ({error}); download it on another machine and put it at {path}"
            ) from error
    return path
