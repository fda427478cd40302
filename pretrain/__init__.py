"""Self-supervised pre-training of dense backbones: PixPro and the baselines it is compared with.

The public names are imported at their first use, so `import pretrain` alone does not import PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain.config import from_dict as from_dict
    from pretrain.config import parse as parse
    from pretrain.data.views import Views as Views
    from pretrain.engine import train as train
    from pretrain.losses.geometry import cell_distances as cell_distances
    from pretrain.losses.geometry import positive_mask as positive_mask
    from pretrain.losses.instance import cosine_regression as cosine_regression
    from pretrain.losses.instance import info_nce as info_nce
    from pretrain.losses.instance import nt_xent as nt_xent
    from pretrain.losses.instance import sup_con as sup_con
    from pretrain.losses.pixel import pixel_consistency as pixel_consistency
    from pretrain.losses.pixel import pixel_contrast as pixel_contrast
    from pretrain.methods import METHODS as METHODS
    from pretrain.methods.base import Method as Method
    from pretrain.methods.base import MomentumMethod as MomentumMethod
    from pretrain.methods.base import feature_std as feature_std
    from pretrain.models.backbone_spec import BackboneSpec as BackboneSpec
    from pretrain.models.momentum_encoder import MomentumEncoder as MomentumEncoder
    from pretrain.models.ppm import PixelPropagation as PixelPropagation
    from pretrain.models.resnet import ResNet as ResNet
    from pretrain.models.resnet import build_resnet as build_resnet
    from pretrain.pixel_learner import PixelCL as PixelCL
    from pretrain.pixel_learner import PixelLearner as PixelLearner
    from pretrain.settings import RunConfig as RunConfig

_MODULES = {
    "config": ("from_dict", "parse"),
    "data.views": ("Views",),
    "engine": ("train",),
    "losses.geometry": ("cell_distances", "positive_mask"),
    "losses.instance": ("cosine_regression", "info_nce", "nt_xent", "sup_con"),
    "losses.pixel": ("pixel_consistency", "pixel_contrast"),
    "methods": ("METHODS",),
    "methods.base": ("Method", "MomentumMethod", "feature_std"),
    "models.backbone_spec": ("BackboneSpec",),
    "models.momentum_encoder": ("MomentumEncoder",),
    "models.ppm": ("PixelPropagation",),
    "models.resnet": ("ResNet", "build_resnet"),
    "pixel_learner": ("PixelCL", "PixelLearner"),
    "settings": ("RunConfig",),
}
__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
