"""Segmentation protocols that were published for networks by name: models, optimisers, one step, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.named_spec import NamedSpec
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob, unpublished
from transfer.protocols import find_protocol, protocols
from transfer.segmentation.config import backbone_spec, resolve, train_on_cpus

pytestmark = pytest.mark.frameworks

NAMES = [name for name, protocol in protocols().items() if protocol.networks and protocol.framework == "mmseg"]
VIT = NamedSpec(
    "timm:vit_tiny_patch16_224", {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 4, "num_heads": 2}
)
CONVNEXT = NamedSpec("timm:convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]})
OWN = NamedSpec("benchmarks.own_networks:Hierarchical")


def job(protocol: str, scale: str = "mini", **more: Any) -> TransferJob:
    return TransferJob(find_protocol(protocol), Path("DATA"), Path("RUN"), scale=scale, **more)


def model_of(config: Any) -> Any:
    import mmseg.models  # noqa: F401  registers the models
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from transfer.segmentation import named_backbone, stage_decay  # noqa: F401  registers them

    init_default_scope(config.default_scope)
    return revert_sync_batchnorm(MODELS.build(config.model))


def groups_of(config: Any, model: Any) -> dict[str, tuple[float, float]]:
    """Name of each trained parameter -> its learning rate and weight decay."""
    from mmengine.optim import build_optim_wrapper

    train_on_cpus(config)
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    names = {id(x): name for name, x in model.named_parameters()}
    return {names[id(x)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for x in g["params"]}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_at_mini_scale_learns_from_one_batch(name: str) -> None:
    from mmengine.optim import build_optim_wrapper
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    spec = CONVNEXT if "convnext" in name or "swin" in name else VIT
    config = resolve(job(name), spec)
    model = model_of(config)
    train_on_cpus(config)
    wrapper: Any = build_optim_wrapper(model, config.optim_wrapper)
    about = dict.fromkeys(("img_shape", "ori_shape", "pad_shape"), (64, 64))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 64, 64).long()), metainfo=about) for _ in "ab"]
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = {key: x.clone() for key, x in model.named_parameters() if x.requires_grad}
    loss, _ = model.parse_losses(model(images, samples, mode="loss"))
    wrapper.update_params(loss)
    assert torch.isfinite(loss)
    changed = [key for key, x in model.named_parameters() if key in before and not torch.equal(before[key], x)]
    assert len(changed) > 0.9 * len(before)
    assert any(key.startswith("backbone.") for key in changed)
    about = dict.fromkeys(
        ("img_shape", "ori_shape", "pad_shape"), (150, 201)
    )  # of no whole patches, and larger than a window
    [found] = model.eval().predict(torch.zeros(1, 3, 150, 201), [SegDataSample(metainfo=about)])
    assert found.pred_sem_seg.data.shape == (1, 150, 201)


def test_the_decoder_learns_ten_times_faster_than_the_network() -> None:
    config = resolve(job("ade20k_linear_finetuned", overrides={"optim_wrapper.optimizer.lr": 1e-4}), VIT)
    model = model_of(config)
    assert type(model.decode_head.convs) is torch.nn.Identity
    for name, (rate, decay) in groups_of(config, model).items():
        assert rate == pytest.approx(1e-5 if name.startswith("backbone.") else 1e-4)
        assert decay == 0.05


def test_rates_of_convnext_by_stage_are_those_of_mmsegmentation() -> None:
    from mmseg.engine.optimizers.layer_decay_optimizer_constructor import get_stage_id_for_convnext

    overrides = {"optim_wrapper.optimizer.lr": 1e-4}
    config = resolve(job("ade20k_upernet_convnext", overrides=overrides), CONVNEXT)
    model = model_of(config)
    found = groups_of(config, model)
    assert {name.split(".")[0] for name in found} == {"backbone", "decode_head", "auxiliary_head"}
    for name, (rate, decay) in found.items():
        theirs = name.replace("backbone.net.stem.", "backbone.downsample_layers.0.").replace(
            "backbone.net.", "backbone."
        )
        if ".downsample." in theirs:
            theirs = f"backbone.downsample_layers.{theirs.split('.')[2]}.0"
        scale = 0.9 ** (8 - get_stage_id_for_convnext(theirs, 8) - 1)
        assert rate == pytest.approx(1e-4 * scale), name
        assert decay == (0.0 if model.get_parameter(name).dim() == 1 else 0.05), name


@pytest.mark.parametrize(("name", "without"), [("ade20k_upernet_vit", ("norm1.weight", "pos_embed", "cls_token"))])
def test_positions_tokens_and_norms_have_no_weight_decay(name: str, without: tuple[str, ...]) -> None:
    config = resolve(job(name), VIT)
    for key, (_, decay) in groups_of(config, model_of(config)).items():
        if key.startswith("backbone."):
            assert decay == (0.0 if key.endswith(without) or "norm" in key else 0.01), key


def test_stochastic_depth_is_that_of_the_protocol_but_for_own_networks() -> None:
    assert resolve(job("ade20k_upernet_swin", "paper"), CONVNEXT).model.backbone.options["drop_path_rate"] == 0.3
    more = {"model.backbone.options.drop_path_rate": 0.1}
    assert backbone_spec(resolve(job("ade20k_upernet_swin", overrides=more), CONVNEXT)).options["drop_path_rate"] == 0.1
    assert backbone_spec(resolve(job("ade20k_upernet_swin"), OWN)) == OWN
    assert backbone_spec(resolve(job("ade20k_linear_finetuned"), VIT)) == VIT


def test_the_neck_is_for_equal_maps_only() -> None:
    neck = resolve(job("ade20k_upernet_vit"), VIT).model.neck
    assert (neck.type, neck.in_channels, neck.out_channels) == ("MultiLevelNeck", [32] * 4, 32)
    assert "neck" not in resolve(job("ade20k_upernet_vit"), CONVNEXT).model
    assert resolve(job("ade20k_upernet_swin"), VIT).model.neck.type == "Feature2Pyramid"


@pytest.mark.parametrize(
    ("name", "spec", "says"),
    [
        ("ade20k_upernet_vit", BackboneSpec(), "is for networks by name, such as timm:vit_base_patch16_224"),
        ("ade20k_upernet_convnext", VIT, "has no stages, for which this protocol has learning rates"),
        ("ade20k_upernet_convnext", OWN, "declares no four stages of strides 4 to 32"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(name: str, spec: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        resolve(job(name, "paper"), spec)


def test_the_network_of_the_definition_is_no_deviation_and_others_are() -> None:
    assert unpublished(job("ade20k_upernet_swin"), NamedSpec("timm:swin_tiny_patch4_window7_224")) == ()
    assert unpublished(job("ade20k_upernet_swin"), CONVNEXT)
    for name in NAMES:
        assert unpublished(job(name, "paper"), backbone_spec(resolve(job(name, "paper")))) == ()


def test_half_precision_is_left_out_on_cpus() -> None:
    config = resolve(job("ade20k_linear_finetuned"), VIT)
    assert train_on_cpus(config) == ("float32 instead of half precision, as on every CPU",)
    assert (config.optim_wrapper.type, train_on_cpus(config)) == ("OptimWrapper", ())


def test_a_random_start_is_the_network_of_the_definition() -> None:
    spec = backbone_spec(resolve(job("voc12_linear_finetuned")))
    assert spec == NamedSpec("timm:vit_tiny_patch16_224")
    assert random_backbone(spec, 0).spec == spec
