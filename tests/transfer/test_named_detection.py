"""Detection protocols that were published for networks by name: optimiser, images, what is refused."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.named_spec import NamedSpec
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob, unpublished
from transfer.protocols import find_protocol

pytestmark = pytest.mark.frameworks

SWIN, CONVNEXT = "coco_swin_t_fpn_1x", "coco_convnext_t_fpn_3x"
SMALL = NamedSpec("timm:convnext_atto", {"depths": [1, 1, 7, 1], "dims": [8, 16, 24, 32]})
OWN = NamedSpec("benchmarks.own_networks:Hierarchical")


def config(name: str, spec: Any = None, **overrides: Any) -> Any:
    from transfer.detection.config import build_config

    job = TransferJob(find_protocol(name), Path("DATA"), Path("RUN"), scale="mini", overrides=overrides)
    cfg = build_config(job, spec and replace(random_backbone(SMALL, 0), spec=spec))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def groups_of(cfg: Any) -> dict[str, tuple[float, float]]:
    """Name of each trained parameter -> its learning rate and weight decay."""
    from detectron2.modeling import build_model

    from transfer.detection.trainer import Trainer

    model = build_model(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    names = {id(x): name for name, x in model.named_parameters()}
    return {names[id(x)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for x in g["params"]}


def mmdetections_layers() -> Any:
    """MMDetection's function, read from its file: its packages import more than is installed."""
    import mmdet

    path = Path(mmdet.__file__).parent / "engine" / "optimizers" / "layer_decay_optimizer_constructor.py"
    found = spec_from_file_location("mmdet_layer_decay", path)
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module.get_layer_id_for_convnext


def test_rates_of_convnext_by_layer_are_those_of_mmdetection() -> None:
    get_layer_id_for_convnext = mmdetections_layers()
    found = groups_of(config(CONVNEXT, SMALL))
    for name, (rate, decay) in found.items():
        theirs = name.replace("backbone.bottom_up.net.", "backbone.").replace(
            "backbone.stem", "backbone.downsample_layers.0"
        )
        if ".downsample." in theirs:
            theirs = f"backbone.downsample_layers.{theirs.split('.')[2]}.0"
        else:
            theirs = theirs.replace(".blocks.", ".")
        assert rate == pytest.approx(1e-4 * 0.95 ** (8 - get_layer_id_for_convnext(theirs, 6) - 1)), name
        assert (decay == 0.0) is (
            name.endswith((".bias", ".gamma")) or "norm" in name or ".stem.1." in name or ".downsample.0." in name
        )
    assert len({rate for rate, _ in found.values()}) == 8


def test_norms_and_relative_positions_of_swin_have_no_weight_decay() -> None:
    found = groups_of(config(SWIN))
    assert {rate for rate, _ in found.values()} == {1e-4}
    free = {name for name, (_, decay) in found.items() if decay == 0.0}
    assert {"norm", "relative_position_bias_table"} == {
        "norm" if "norm" in name else name.rsplit(".", 1)[1] for name in free
    }
    assert {decay for _, decay in found.values()} == {0.0, 0.05}


def test_half_of_the_pictures_are_cropped() -> None:
    from detectron2.data import transforms as T

    from transfer.detection.adamw import images

    found = T.AugmentationList(images(config(CONVNEXT))["augmentations"])
    np.random.seed(0)
    names = []
    for _ in range(40):
        given = T.AugInput(np.zeros((200, 300, 3), np.uint8))
        done = found(given)
        names.append([type(step).__name__ for step in done.transforms])
        assert min(given.image.shape[:2]) in (112, 128) or max(given.image.shape[:2]) == 192
    cropped = sum("CropTransform" in steps for steps in names)
    assert 10 < cropped < 30
    assert images(config(SWIN))["augmentations"][0].prob == 0.5
    assert len(images(config(SWIN))["augmentations"]) == 2


def test_the_network_of_the_weights_gets_the_stochastic_depth_of_the_protocol() -> None:
    from transfer.detection.config import backbone_spec

    assert backbone_spec(config(SWIN, SMALL)) == SMALL.with_drop_path(0.2)
    assert backbone_spec(config(SWIN, OWN)) == OWN
    assert backbone_spec(config("coco_fpn_1x", SMALL)) == SMALL


@pytest.mark.parametrize(
    ("name", "spec", "says"),
    [
        (SWIN, BackboneSpec(), r"which coco_swin_t_fpn_1x cannot use: it is for timm:swin_tiny"),
        (CONVNEXT, OWN, "has a learning rate for each layer of a ConvNeXt"),
        (CONVNEXT, NamedSpec("timm:vit_tiny_patch16_224"), "a feature pyramid needs maps of several strides"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(name: str, spec: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        config(name, spec)


def test_the_network_of_the_definition_is_no_deviation() -> None:
    job = TransferJob(find_protocol(CONVNEXT), Path("DATA"), Path("RUN"))
    assert unpublished(job, NamedSpec("timm:convnext_tiny")) == ()
    assert unpublished(job, SMALL)


def test_a_parameter_without_a_layer_is_no_silent_matter() -> None:
    from transfer.detection import adamw

    with pytest.raises(UserError, match=r"net\.extra\.weight of the backbone belongs to none of these"):
        adamw.layers(["net.stem.0.weight", "net.stages.0.blocks.0.gamma", "net.extra.weight"], 6)
