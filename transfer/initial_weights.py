"""What a run starts from that nobody pre-trained here: a random backbone, or the published supervised one."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import torch

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights.backbone import Backbone
from transfer.weights.models.networks import build_network
from transfer.weights.vit_spec import VitSpec


def random_backbone(spec: BackboneSpec | VitSpec, seed: int) -> Backbone:
    """The backbone of ``spec`` as pre-training starts it (He fan-out, last gamma of each block 0), drawn from ``seed`` alone.

    Loaded through the same path as a checkpoint, so that rows of a table differ in the backbone's weights and in nothing else:
    the frameworks' own initialisations are others. The global random state is left as it was. A ViT's matrices and positions
    are drawn from a truncated normal of 0.02, as MAE and ViTDet do.
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


def supervised_file() -> Path:
    """torchvision's ResNet-50 trained on ImageNet's labels (top-1 76.1, the usual baseline), from torch's cache or the net."""
    from torchvision.models import ResNet50_Weights

    url = ResNet50_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(url))
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2], progress=False)
        except (OSError, URLError, RuntimeError) as error:
            raise UserError(f"{url} cannot be downloaded ({error}); fetch it elsewhere and put it at {path}") from error
    return path
