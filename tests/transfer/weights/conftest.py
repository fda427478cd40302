"""Backbones and checkpoints that look trained: no gamma is 0, and BatchNorm's statistics are neither 0 nor 1."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from pixbench.file_versions import CHECKPOINT_VERSION
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.resnet import ResNet
from transfer.weights import Backbone
from transfer.weights.expected_shapes import expected
from transfer.weights.models.networks import build_network
from transfer.weights.naming import is_counter
from transfer.weights.vit_spec import VitSpec

TINY = 1 / 16
"""Width of the backbones that no framework has to build: 4 channels in the stem."""


def _trained(spec: BackboneSpec, seed: int = 0) -> ResNet:
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_network(spec)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=random)
            module.bias.data.normal_(0, 0.2, generator=random)
            module.running_mean.normal_(0, 0.2, generator=random)
            module.running_var.uniform_(0.5, 1.5, generator=random)
            module.num_batches_tracked.fill_(100 + seed)
    return model


@pytest.fixture(scope="session")
def make_backbone() -> Callable[..., Backbone]:
    """``make_backbone(width, depth, seed, stem)``: a backbone with random but lively weights. Do not change its tensors."""
    made: dict[tuple[float, int, int, str], Backbone] = {}

    def make(width: float = TINY, depth: int = 50, seed: int = 0, stem: Literal["7x7", "deep"] = "7x7") -> Backbone:
        key = (width, depth, seed, stem)
        if key not in made:
            spec = BackboneSpec(depth, width, stem=stem)
            made[key] = Backbone(spec, dict(_trained(spec, seed).state_dict()), f"seed {seed}")
        return made[key]

    return make


@pytest.fixture(scope="session")
def backbone_of() -> Callable[[BackboneSpec | VitSpec], Backbone]:
    """As `make_backbone`, for any spec; the last few are kept."""

    @lru_cache(maxsize=4)
    def make(spec: BackboneSpec | VitSpec) -> Backbone:
        if isinstance(spec, BackboneSpec):
            return Backbone(spec, dict(_trained(spec).state_dict()), str(spec))
        random = torch.Generator().manual_seed(0)
        shapes = build_network(spec).state_dict()
        return Backbone(spec, {n: torch.randn(t.shape, generator=random) * 0.2 for n, t in shapes.items()}, str(spec))

    return make


@pytest.fixture(scope="session")
def two_stage_extras() -> Callable[..., dict[str, Tensor]]:
    """``two_stage_extras(spec, width, out, seed)``: lively weights of SoCo's pyramid and box head."""

    def make(spec: BackboneSpec, width: int = 16, out: int = 16, seed: int = 0) -> dict[str, Tensor]:
        random, found = torch.Generator().manual_seed(seed), {}
        vectors = {"fpn.lateral2.norm.weight": torch.empty(width), "box.fc1.bias": torch.empty(out)}
        for name, shape in expected(spec, vectors).items():
            if not name.startswith(("fpn.", "box.")):
                continue
            if is_counter(name):
                found[name] = torch.tensor(200 + seed)
            elif name.endswith(("norm.weight", "running_var")):
                found[name] = 0.5 + torch.rand(shape.shape, generator=random)
            else:
                found[name] = 0.2 * torch.randn(shape.shape, generator=random)
        return found

    return make


def checkpoint_content(backbone: Backbone, target: Backbone | None = None) -> dict:
    """What the pre-training engine saves, as far as the weights go."""
    model: dict[str, Tensor] = {f"backbone.{name}": tensor for name, tensor in backbone.state.items()}
    model["projector.linear1.weight"] = torch.ones(4, 4)
    if target is not None:
        model |= {f"momentum_encoder.backbone.{name}": tensor for name, tensor in target.state.items()}
        model |= {
            "momentum_encoder.projector.linear1.weight": torch.ones(4, 4),
            "momentum_encoder.step": torch.tensor(3),
        }
    spec = {"depth": backbone.spec.depth, "width": backbone.spec.width, "output_stride": 16}
    return {
        "format": "pixbench-pretrain",
        "version": CHECKPOINT_VERSION,
        "method": "pixpro",
        "backbone": spec,
        "model": model,
        "step": 3,
    }


@pytest.fixture
def checkpoint(tmp_path: Path, make_backbone: Callable[..., Backbone]) -> Callable[..., Path]:
    """``checkpoint(width, edit)`` writes a pre-training checkpoint of a narrow or wide backbone after ``edit(content)``."""

    def write(width: float = TINY, edit: Callable[[dict], object] | None = None) -> Path:
        content = checkpoint_content(make_backbone(width), make_backbone(width, seed=1))
        if edit:
            edit(content)
        path = tmp_path / "checkpoint.pt"
        torch.save(content, path)
        return path

    return write


def _detector(kind: str, spec: BackboneSpec, device: str) -> nn.Module:
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    config, base = get_cfg(), int(64 * spec.width)
    config.MODEL.DEVICE, config.MODEL.MASK_ON = device, True
    resnet = config.MODEL.RESNETS
    resnet.DEPTH, resnet.STEM_OUT_CHANNELS, resnet.RES2_OUT_CHANNELS = spec.depth, base, 4 * base
    resnet.WIDTH_PER_GROUP, resnet.NORM, resnet.STRIDE_IN_1X1 = base, "SyncBN", False
    config.MODEL.BACKBONE.FREEZE_AT = 0
    if kind == "detectron2_fpn":
        config.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
        resnet.OUT_FEATURES = config.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
        config.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
        config.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
        config.MODEL.ROI_HEADS.NAME, config.MODEL.ROI_HEADS.IN_FEATURES = "StandardROIHeads", ["p2", "p3", "p4", "p5"]
        box, mask = config.MODEL.ROI_BOX_HEAD, config.MODEL.ROI_MASK_HEAD
        box.NAME, box.NUM_FC, box.NUM_CONV, box.NORM, box.POOLER_RESOLUTION = "FastRCNNConvFCHead", 1, 4, "SyncBN", 7
        mask.NAME, mask.NUM_CONV, mask.NORM, mask.POOLER_RESOLUTION = "MaskRCNNConvUpsampleHead", 4, "SyncBN", 14
    return build_model(config)


def _segmentor(spec: BackboneSpec) -> nn.Module:
    import mmseg.models  # noqa: F401
    from mmseg.registry import MODELS

    base = int(64 * spec.width)
    norm = {"type": "SyncBN", "requires_grad": True}
    backbone = {"type": "ResNet", "depth": spec.depth, "stem_channels": base, "base_channels": base, "norm_cfg": norm}
    dilation = {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2), "contract_dilation": True}
    head = {"type": "FCNHead", "in_channels": 32 * base, "channels": 8, "num_classes": 3, "norm_cfg": norm}
    return MODELS.build({"type": "EncoderDecoder", "backbone": {**backbone, **dilation}, "decode_head": head})


@pytest.fixture(scope="session")
def real_model() -> Callable[..., nn.Module]:
    """``real_model(framework, spec, device)``: a whole Mask R-CNN or segmentor as the protocols use them."""

    def build(framework: str, spec: BackboneSpec, device: str = "cpu") -> nn.Module:
        with torch.random.fork_rng(), torch.device(device):
            return _segmentor(spec) if framework == "mmseg" else _detector(framework, spec, device)

    return build
