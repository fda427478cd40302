"""The pre-training methods by the name they have in configs and checkpoints; one file each."""

from __future__ import annotations

from pretrain.methods.base import Method
from pretrain.methods.moco import MoCoV2
from pretrain.methods.pixpro import PixPro
from pretrain.methods.simclr import SimCLR

METHODS: dict[str, type[Method]] = {"pixpro": PixPro, "moco_v2": MoCoV2, "simclr": SimCLR}
