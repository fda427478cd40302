"""Loading into live models: everything arrives, or nothing is touched and the keys are named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import FRAMEWORKS, load_into, to_framework
from transfer.weights.models.load_into import unequal
from transfer.weights.models.networks import build_network
from transfer.weights.naming import is_counter
from transfer.weights.vit_spec import VitSpec

SPEC = BackboneSpec(50, 0.25)
CHECKED = ("detectron2_c4", "detectron2_fpn", "mmseg")


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.frameworks
@pytest.mark.parametrize("framework", CHECKED)
def test_the_backbone_arrives_and_the_heads_stay(framework, real_model, make_backbone):
    model, backbone = real_model(framework, SPEC), make_backbone(0.25)
    before = snapshot(model)
    counts = load_into(model, backbone, framework)
    after, ours = model.state_dict(), to_framework(backbone, framework)
    assert all(torch.equal(after[name], tensor) for name, tensor in ours.items())
    heads = [name for name in after if not FRAMEWORKS[framework].owns.match(name)]
    assert all(torch.equal(after[name], before[name]) for name in heads)
    assert counts.converted == (318 if framework == "mmseg" else 265)
    assert counts.dropped == ({} if framework == "mmseg" else {"num_batches_tracked": 53})
    assert counts.initialised["outside the backbone"] == len(heads) > 0
    assert counts.converted + sum(counts.initialised.values()) == len(after)


@pytest.mark.frameworks
@pytest.mark.parametrize("framework", CHECKED)
def test_another_width_is_an_error_that_lists_every_key(framework, real_model, make_backbone):
    model = real_model(framework, SPEC)
    before = snapshot(model)
    with pytest.raises(UserError) as error:
        load_into(model, make_backbone(), framework)
    weights = [name for name in to_framework(make_backbone(), framework) if not is_counter(name)]
    assert all(name in str(error.value) for name in weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.frameworks
def test_another_layout_is_an_error(real_model, make_backbone):
    with pytest.raises(UserError, match=r"265 without a place in the model \(backbone\.bottom_up\.stem\.conv1\.weight"):
        load_into(real_model("detectron2_c4", SPEC), make_backbone(0.25), "detectron2_fpn")


@pytest.mark.frameworks
def test_frozen_batch_norm_and_an_extra_norm_after_res5(real_model, make_backbone):
    from detectron2.layers import FrozenBatchNorm2d

    model = FrozenBatchNorm2d.convert_frozen_batchnorm(real_model("detectron2_c4", SPEC))
    model.roi_heads.res5.add_module("norm", torch.nn.BatchNorm2d(512))  # as PixPro's and MoCo's C4 protocols do
    assert load_into(model, make_backbone(0.25), "detectron2_c4").converted == 265


def test_a_deeper_model_would_keep_random_weights(make_backbone):
    model = build_network(BackboneSpec(101, 1 / 16))
    with pytest.raises(UserError, match=r"\d+ in the model that would get no value \(layer3\.6\.conv1\.weight"):
        load_into(model, make_backbone(), "torchvision")


def test_a_shallower_model_has_no_place(make_backbone):
    model = build_network(BackboneSpec(50, 1 / 16))
    with pytest.raises(UserError, match=r"\d+ without a place in the model \(layer3\.6\.conv1\.weight"):
        load_into(model, make_backbone(depth=101), "torchvision")


@pytest.mark.parametrize("ours", [True, False])
def test_strides_that_no_weight_tells_must_agree(make_backbone, ours):
    backbone = replace(make_backbone(), spec=replace(make_backbone().spec, stride_in_1x1=ours))
    with pytest.raises(UserError, match=r"1 with the stride in another convolution in the model \(layer2\.0\.conv1\)"):
        load_into(build_network(replace(backbone.spec, stride_in_1x1=not ours)), backbone, "torchvision")
    assert load_into(build_network(backbone.spec), backbone, "torchvision").converted == 318


@pytest.mark.frameworks
def test_vitdet_takes_a_vit_and_names_what_it_starts_itself(backbone_of):
    """Detectron2's own LazyConfig model, made small."""
    from detectron2 import model_zoo
    from detectron2.config import instantiate

    spec = VitSpec(64, 2, 1, 16, 64)
    config = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
    config.backbone.net.update(embed_dim=64, depth=2, num_heads=1, img_size=64, pretrain_img_size=64, drop_path_rate=0)
    config.backbone.net.window_block_indexes, config.backbone.square_pad = [0], 64
    model, backbone = instantiate(config), backbone_of(spec)
    counts = load_into(model, backbone, "detectron2_vitdet")
    assert counts.converted == len(backbone.state) == 27
    assert counts.initialised["relative positions"] == 4
    assert counts.initialised["simple feature pyramid"] > 20
    assert counts.converted + sum(counts.initialised.values()) == len(model.state_dict())
    assert torch.equal(model.backbone.net.blocks[1].attn.qkv.weight, backbone.state["blocks.1.attn.qkv.weight"])
    model.backbone.net.add_module("extra", torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match=r"2 in the model that would get no value \(backbone\.net\.extra\.weight"):
        load_into(model, backbone, "detectron2_vitdet")
    with pytest.raises(UserError, match=r"pos_embed is \(1, 37, 64\), the model's is \(1, 17, 64\)"):
        load_into(model, backbone_of(replace(spec, image=96)), "detectron2_vitdet")


def test_a_model_with_a_deep_stem_is_refused(make_backbone):
    model = build_network(BackboneSpec(50, 1 / 16))
    model.stem = torch.nn.Conv2d(3, 4, 3)
    with pytest.raises(UserError, match=r"2 in the model that would get no value \(stem\.weight, stem\.bias\)"):
        load_into(model, make_backbone(), "torchvision")


def test_a_model_of_lower_precision_is_refused(make_backbone):
    with pytest.raises(UserError, match="weights changed when copied"):
        load_into(build_network(BackboneSpec(50, 1 / 16)).half(), make_backbone(), "torchvision")


def test_a_backbone_with_nan_is_refused_before_anything_is_changed(make_backbone):
    model = build_network(BackboneSpec(50, 1 / 16))
    before = snapshot(model)
    state = {**make_backbone().state, "layer4.2.bn3.bias": torch.full((128,), float("nan"))}
    with pytest.raises(UserError, match=r"NaN or infinite values \(layer4\.2\.bn3\.bias\)"):
        load_into(model, replace(make_backbone(), state=state), "torchvision")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_unequal_names_what_differs(make_backbone):
    model = build_network(BackboneSpec(50, 1 / 16))
    load_into(model, make_backbone(), "torchvision")
    assert unequal(model, make_backbone(), "torchvision") == []
    model.layer2[1].bn2.running_var[1] += 1e-6
    model.conv1.weight.data.neg_()
    assert unequal(model, make_backbone(), "torchvision") == ["conv1.weight", "layer2.1.bn2.running_var"]
