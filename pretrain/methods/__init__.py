"""Pre-training methods, one file each."""

from __future__ import annotations

from pretrain.methods.base import Method
from pretrain.methods.byol import BYOL
from pretrain.methods.cds import CDS
from pretrain.methods.densecl import DenseCL
from pretrain.methods.ibot import IBOT
from pretrain.methods.moco import MoCoV1, MoCoV2
from pretrain.methods.pixcontrast import PixContrast
from pretrain.methods.pixpro import PixPro
from pretrain.methods.pixpro_fpn import PixProFPN, PixProFPNHead
from pretrain.methods.simclr import SimCLR
from pretrain.methods.supervised import Supervised

METHODS: dict[str, type[Method]] = {
    "pixpro": PixPro,
    "pixpro_fpn": PixProFPN,
    "pixpro_fpn_head": PixProFPNHead,
    "pixcontrast": PixContrast,
    "moco_v1": MoCoV1,
    "moco_v2": MoCoV2,
    "densecl": DenseCL,
    "simclr": SimCLR,
    "byol": BYOL,
    "ibot": IBOT,
    "supervised": Supervised,
    "cds": CDS,
}
"""All methods by their name in configs and checkpoints."""
