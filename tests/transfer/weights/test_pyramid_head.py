"""Pyramid and head: read from a checkpoint, written for Detectron2, proved in it and loaded into its real detectors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.models.backbone_spec import STAGES, BackboneSpec
from pretrain.models.fpn import LEVELS, Tower
from transfer.weights import FRAMEWORKS, Backbone, convert, load, load_into, read, save, to_framework, verify
from transfer.weights.backbone import check
from transfer.weights.expected_shapes import expected
from transfer.weights.models import pyramid_head_model
from transfer.weights.models.networks import build_network
from transfer.weights.models.pyramid_head_fit import fit
from transfer.weights.naming import is_counter
from transfer.weights.pyramid_head import NAMES, TOWERS, from_detectron2, numbers, to_detectron2

SPEC, WIDTH = BackboneSpec(50, 0.25), 64
KINDS = {"none": 14, "retinanet": 14 + 6, "fcos": 14 + 12}
"""Head -> number of tensors beside the backbone."""


def extras_of(head: str, spec: BackboneSpec = SPEC, width: int = WIDTH, seed: int = 0) -> dict[str, Tensor]:
    """Lively weights of a pyramid and a head, large enough to be seen behind three convolutions."""
    random = torch.Generator().manual_seed(seed)
    names = [n for n in NAMES if not n.startswith("head.") or (head != "none" and ("norm" not in n or head == "fcos"))]
    shapes = expected(spec, dict.fromkeys(names, torch.empty(width)))
    return {name: 0.1 * torch.randn(shapes[name].shape, generator=random) for name in names}


@pytest.fixture
def with_pyramid(make_backbone: Callable[..., Backbone]) -> Callable[..., Backbone]:
    return lambda head, width=0.25, seed=0: replace(
        make_backbone(width, seed=seed), extras=extras_of(head, BackboneSpec(50, width), seed=seed)
    )


@pytest.fixture
def fpn_checkpoint(checkpoint: Callable[..., Path], with_pyramid: Callable[..., Backbone]) -> Callable[..., Path]:
    """A pre-training checkpoint of pixpro_fpn or pixpro_fpn_head."""

    def write(head: str, edit: Callable[[dict], object] = lambda model: None, width: float = 0.25) -> Path:
        def add(content: dict) -> None:
            for prefix, seed in (("", 0), ("momentum_encoder.", 1)):
                extras = with_pyramid(head, width, seed).extras
                content["model"] |= {f"{prefix}{name}": tensor for name, tensor in extras.items()}
            edit(content["model"])

        return checkpoint(width, add)

    return write


@pytest.fixture(scope="session")
def dense_detector() -> Callable[..., nn.Module]:
    """``dense_detector(kind)``: Detectron2's RetinaNet from its model zoo's config, or FCOS as its lazy config builds it."""

    def build(kind: str, p6: str = "p5", norm: str | None = None) -> nn.Module:
        from detectron2 import model_zoo
        from detectron2.layers import ShapeSpec
        from detectron2.modeling import build_model
        from detectron2.modeling.backbone.fpn import LastLevelP6P7
        from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead

        cfg, base = model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.yaml"), int(64 * SPEC.width)
        cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.FREEZE_AT, cfg.MODEL.FPN.OUT_CHANNELS = "cpu", 0, WIDTH
        resnet = cfg.MODEL.RESNETS
        resnet.STEM_OUT_CHANNELS, resnet.RES2_OUT_CHANNELS, resnet.WIDTH_PER_GROUP = base, 4 * base, base
        resnet.NORM, resnet.STRIDE_IN_1X1 = "BN", False
        cfg.MODEL.RETINANET.NORM = norm or ""
        with torch.random.fork_rng():
            model = build_model(cfg)
            if p6 == "p5":
                model.backbone.top_block = LastLevelP6P7(WIDTH, WIDTH, "p5")
            if kind == "retinanet":
                return model
            shapes, widths = [ShapeSpec(channels=WIDTH)] * 5, [WIDTH] * 4
            return FCOS(
                backbone=model.backbone,
                head=FCOSHead(input_shape=shapes, num_classes=3, conv_dims=widths, norm="GN" if norm is None else norm),
                head_in_features=["p3", "p4", "p5", "p6", "p7"],
                num_classes=3,
                pixel_mean=[0.0] * 3,
                pixel_std=[1.0] * 3,
            )

    return build


def forward(model: nn.Module, backbone: Backbone, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Maps of P3..P6 and towers up to their third convolution, norm and ReLU: the detector's and our own."""
    model.eval()
    ours, head_ends = pyramid_head_model.build(backbone.spec, backbone.extras), "head.conv1.weight" in backbone.extras
    ours.load_state_dict(backbone.extras, assign=True)
    body = build_network(backbone.spec).eval()
    body.load_state_dict(backbone.state)
    with torch.no_grad():
        wanted = dict(ours["fpn"](body.forward_stages(images)))
        found = {level: x for level, x in model.backbone(images).items() if level in LEVELS}
        for tower in TOWERS if head_ends else ():
            subnet = getattr(model.head, tower)
            end = [i for i, layer in enumerate(subnet) if isinstance(layer, nn.ReLU)][2] + 1
            found |= {f"{level} {tower}": subnet[:end](found[level]) for level in LEVELS}
            wanted |= {f"{level} {tower}": ours["head"](wanted[level]) for level in LEVELS}
    return found, wanted


def close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> set[str]:
    assert found.keys() == wanted.keys()
    return {name for name, x in wanted.items() if (x - found[name]).abs().max() <= 1e-4 * x.abs().max()}


@pytest.mark.parametrize("head", KINDS)
def test_names_both_ways(head: str) -> None:
    extras = extras_of(head)
    named = to_detectron2(extras)
    assert len(extras) == KINDS[head]
    assert len(named) == 14 + 2 * (KINDS[head] - 14)
    assert {"backbone.fpn_lateral3.weight", "backbone.fpn_output5.bias", "backbone.top_block.p6.weight"} <= named.keys()
    last = {"fcos": 6, "retinanet": 4}.get(head)
    for tower in TOWERS if last else ():
        assert named[f"head.{tower}.{last}.weight"] is extras["head.conv3.weight"]
    back = from_detectron2(named)
    assert back.keys() == extras.keys()
    assert all(back[name] is extras[name] for name in extras)


@pytest.mark.parametrize("head", KINDS)
def test_both_branches_are_read_and_every_key_is_counted(fpn_checkpoint: Callable[..., Path], head: str) -> None:
    path = fpn_checkpoint(head, width=1 / 16)
    for branch, other, seed in (("student", "momentum encoder", 0), ("momentum_encoder", "student", 1)):
        reading = read(path, branch)
        wanted = extras_of(head, BackboneSpec(50, 1 / 16), seed=seed)
        assert reading.backbone.extras.keys() == wanted.keys()
        assert all(reading.backbone.extras[name].equal(wanted[name]) for name in wanted)
        assert reading.counts.converted == 318 + KINDS[head]
        assert reading.counts.dropped == {
            "projector": 2,
            f"{other} backbone": 318,
            f"{other} pyramid and head": KINDS[head],
            "EMA counter": 1,
        }


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda m: m.pop("fpn.output4.bias"), r"1 missing \(fpn\.output4\.bias\)"),
        (lambda m: m.pop("head.norm2.weight"), r"1 missing \(head\.norm2\.weight\)"),
        (lambda m: m.update({"fpn.p6.bias": torch.zeros(16)}), r"of the wrong shape"),
        (lambda m: m.update({"fpn.p6.bias": torch.tensor(1.0)}), r"of the wrong shape"),
        (lambda m: m["head.conv1.weight"].fill_(float("nan")), r"NaN or infinite values \(head\.conv1\.weight\)"),
        (lambda m: m.update({"fpn.lateral2.weight": torch.ones(2)}), r"1 unknown \(fpn\.lateral2\.weight\)"),
        (lambda m: m.update({"head.conv4.weight": torch.ones(2)}), r"1 unknown \(head\.conv4\.weight\)"),
        (lambda m: [m.pop(n) for n in list(m) if n.startswith("fpn.")], r"14 missing"),
    ],
)
def test_an_unsound_neck_is_refused(
    fpn_checkpoint: Callable[..., Path], edit: Callable[[dict], Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        load(fpn_checkpoint("fcos", edit, 1 / 16))


@pytest.mark.parametrize("head", KINDS)
def test_written_for_detectron2_and_read_again(
    tmp_path: Path, with_pyramid: Callable[..., Backbone], head: str
) -> None:
    backbone, path = with_pyramid(head), tmp_path / "x.pkl"
    written = save(backbone, path, "detectron2_fpn")
    assert written.converted == 265 + 14 + 2 * (KINDS[head] - 14)
    assert written.dropped == {"num_batches_tracked": 53}
    reading = read(path)
    assert reading.backbone.extras.keys() == backbone.extras.keys()
    assert all(reading.backbone.extras[name].equal(backbone.extras[name]) for name in backbone.extras)
    assert reading.counts.converted == 265 + KINDS[head]
    assert reading.counts.dropped == ({"second tower of the head": KINDS[head] - 14} if head != "none" else {})
    check(reading.backbone)


def test_two_towers_that_differ_are_no_pretrained_head(tmp_path: Path, with_pyramid: Callable[..., Backbone]) -> None:
    path = tmp_path / "x.pkl"
    save(with_pyramid("fcos"), path, "detectron2_fpn")
    content = pickle.loads(path.read_bytes())
    content["model"]["head.bbox_subnet.3.weight"] = content["model"]["head.bbox_subnet.3.weight"] + 1
    del content["pixbench"]["sha256"]
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"second tower that differs from the first \(head\.bbox_subnet\.3\.weight\)"):
        load(path)


@pytest.mark.parametrize(("framework", "name"), [("detectron2_c4", "x.pkl"), ("mmseg", "x.pth")])
def test_other_layouts_get_the_backbone_and_say_what_is_left(
    tmp_path: Path, with_pyramid: Callable[..., Backbone], framework: str, name: str
) -> None:
    written = save(with_pyramid("fcos"), tmp_path / name, framework)
    assert written.dropped["pyramid and head"] == KINDS["fcos"]
    assert load(tmp_path / name).extras == {}


def test_a_live_model_without_a_place_for_it(with_pyramid: Callable[..., Backbone]) -> None:
    counts = load_into(build_network(BackboneSpec(50, 1 / 16)), with_pyramid("fcos", 1 / 16), "torchvision")
    assert counts.converted == 318
    assert counts.dropped == {"pyramid and head": KINDS["fcos"]}


@pytest.mark.frameworks
@pytest.mark.parametrize("head", KINDS)
def test_conversion_proves_pyramid_and_head(tmp_path: Path, fpn_checkpoint: Callable[..., Path], head: str) -> None:
    done = convert(fpn_checkpoint(head), tmp_path / "x.pkl", "detectron2_fpn")
    assert done.parity is not None
    assert done.parity.ok
    towers = [] if head == "none" else [f"{level} {tower}" for tower in TOWERS for level in LEVELS]
    assert set(done.parity.stages) == {*STAGES, *LEVELS, *towers}


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("backbone.fpn_lateral4.weight", {"p3", "p4"}),
        ("backbone.top_block.p6.bias", {"p6"}),
        ("head.bbox_subnet.6.weight", {f"{level} bbox_subnet" for level in LEVELS}),
        ("head.cls_subnet.4.bias", {f"{level} cls_subnet" for level in LEVELS}),
    ],
)
def test_the_proof_fails_where_a_change_reaches(
    tmp_path: Path, with_pyramid: Callable[..., Backbone], place: str, wrong: set[str]
) -> None:
    backbone, path = with_pyramid("fcos"), tmp_path / "x.pkl"
    save(backbone, path, "detectron2_fpn")
    content = pickle.loads(path.read_bytes())
    content["model"][place] = -content["model"][place]
    path.write_bytes(pickle.dumps(content))
    parity = verify(backbone, path, "detectron2_fpn")
    assert parity.unequal == [place]
    found = {stage for stage, difference in parity.stages.items() if not difference.ok}
    assert {stage for stage in found if stage in wrong or " " not in stage} == wrong


@pytest.mark.frameworks
@pytest.mark.parametrize("head", KINDS)
@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_into_live_dense_detectors(
    dense_detector: Callable[..., nn.Module], with_pyramid: Callable[..., Backbone], kind: str, head: str
) -> None:
    """Whatever the head's kind, its convolutions arrive in both; only with the right one does it compute the same."""
    model, backbone = dense_detector(kind), with_pyramid(head)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    counts = load_into(model, backbone, "detectron2_fpn")
    after = model.state_dict()
    assert counts.converted + sum(counts.initialised.values()) == len(after)
    assert counts.initialised["P7 of the pyramid"] == 2
    lost = counts.dropped.get("group norms of the head (the model has none)", 0)
    assert lost == (6 if (kind, head) == ("retinanet", "fcos") else 0)
    towers = 2 * (KINDS[head] - 14 - lost)
    assert counts.converted == 265 + 14 + towers
    assert counts.dropped == {"num_batches_tracked": 53} | (
        {"group norms of the head (the model has none)": lost} if lost else {}
    )
    fresh = counts.initialised.get("norms of the head's towers", 0)
    assert fresh == (12 if (kind, head) == ("fcos", "retinanet") else 0)
    if head != "none":
        assert counts.initialised["later layers of the head's towers"] == 4 + 4 * (kind == "fcos")
    changed = {name for name in after if not after[name].equal(before[name])}
    assert not {name for name in changed if ".p7." in name or name.startswith(("head.cls_score", "head.bbox_pred"))}
    found, wanted = forward(model, backbone, torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1)))
    same = close(found, wanted)
    assert set(LEVELS) <= same
    if head in ("none", kind):
        assert same == wanted.keys()


@pytest.mark.frameworks
@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_a_fresh_detectors_own_weights_compute_the_same_in_our_modules(
    dense_detector: Callable[..., nn.Module], kind: str
) -> None:
    """The way back, without a file: the structure is the same. Its two towers differ, ours is the first."""
    model = dense_detector(kind)
    state = model.state_dict()
    extras = from_detectron2(state)
    assert len(extras) == KINDS[kind]
    names = FRAMEWORKS["detectron2_fpn"].variants["7x7"].to_canonical
    backbone = Backbone(SPEC, {names(name): tensor for name, tensor in state.items() if names(name)}, "fresh", extras)
    check(backbone)
    same = close(*forward(model, backbone, torch.randn(1, 3, 96, 96)))
    assert same == {*LEVELS, *(f"{level} cls_subnet" for level in LEVELS)}


@pytest.mark.frameworks
def test_p6_that_is_made_from_res5_stays_the_models_own(
    dense_detector: Callable[..., nn.Module], with_pyramid: Callable[..., Backbone]
) -> None:
    model, backbone = dense_detector("retinanet", p6="res5"), with_pyramid("retinanet")
    before = model.backbone.top_block.p6.weight.clone()
    counts = load_into(model, backbone, "detectron2_fpn")
    assert counts.dropped["P6 computed from P5 (the model computes it from res5)"] == 2
    assert counts.initialised["P6 of the pyramid"] == 2
    assert model.backbone.top_block.p6.weight.equal(before)
    found, wanted = forward(model, backbone, torch.randn(1, 3, 96, 96))
    same = close(found, wanted)
    assert same >= {"p3", "p4", "p5", "p3 cls_subnet", "p5 bbox_subnet"}
    assert "p6" not in same


@pytest.mark.frameworks
def test_norms_of_each_level_are_the_models_own(
    dense_detector: Callable[..., nn.Module], with_pyramid: Callable[..., Backbone]
) -> None:
    counts = load_into(dense_detector("retinanet", norm="BN"), with_pyramid("fcos"), "detectron2_fpn")
    assert counts.dropped["group norms of the head (the model has none)"] == 6
    assert counts.initialised["norms of the head's towers"] > 0


@pytest.mark.frameworks
@pytest.mark.parametrize("norm", ["", "SyncBN"])
def test_mask_rcnn_takes_p3_to_p5(with_pyramid: Callable[..., Backbone], norm: str) -> None:
    """As in coco_fpn_1x: P2 is its own, P6 a pooling, and behind a norm no bias is left."""
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    cfg, base = get_cfg(), int(64 * SPEC.width)
    cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.NAME = "cpu", "build_resnet_fpn_backbone"
    resnet, pyramid = cfg.MODEL.RESNETS, cfg.MODEL.FPN
    resnet.STEM_OUT_CHANNELS, resnet.RES2_OUT_CHANNELS, resnet.WIDTH_PER_GROUP = base, 4 * base, base
    resnet.OUT_FEATURES = pyramid.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    pyramid.OUT_CHANNELS, pyramid.NORM, cfg.MODEL.BACKBONE.FREEZE_AT, resnet.NORM = WIDTH, norm, 0, "BN"
    resnet.STRIDE_IN_1X1 = False
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_HEADS.IN_FEATURES = "StandardROIHeads", ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = "FastRCNNConvFCHead", 7
    model, backbone = build_model(cfg), with_pyramid("fcos")
    counts = load_into(model, backbone, "detectron2_fpn")
    assert counts.converted == 265 + (6 if norm else 12)
    dropped = {"P6 (the model has no convolution for it)": 2, "head (the model has no such head)": 12}
    dropped |= {"num_batches_tracked": 53} | ({"biases without effect (a norm follows)": 6} if norm else {})
    assert counts.dropped == dropped
    assert counts.initialised["P2 of the pyramid"] == (12 if norm else 4)  # weight, and a norm's five or a bias
    assert counts.initialised.get("norms of the pyramid", 0) == (30 if norm else 0)
    assert counts.converted + sum(counts.initialised.values()) == len(model.state_dict())
    for name, tensor in to_framework(replace(backbone, extras={}), "detectron2_fpn").items():
        assert is_counter(name) or model.state_dict()[name].equal(tensor)
    assert model.backbone.fpn_output4.weight.equal(backbone.extras["fpn.output4.weight"])


@pytest.mark.frameworks
def test_another_width_is_an_error_that_names_keys_and_width(
    dense_detector: Callable[..., nn.Module], make_backbone: Callable[..., Backbone]
) -> None:
    model = dense_detector("fcos")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    backbone = replace(make_backbone(0.25), extras=extras_of("fcos", width=32))
    with pytest.raises(UserError, match=r"backbone\.fpn_lateral3\.weight is \(32, .*head with 32 channels"):
        load_into(model, backbone, "detectron2_fpn")
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.frameworks
def test_a_deeper_pyramid_or_a_shallow_head_is_an_error(
    dense_detector: Callable[..., nn.Module], with_pyramid: Callable[..., Backbone]
) -> None:
    model = dense_detector("fcos")
    model.backbone.add_module("fpn_lateral6", nn.Conv2d(1, 1, 1))
    assert fit(model, with_pyramid("fcos").extras).lacking == [
        "backbone.fpn_lateral6.bias",
        "backbone.fpn_lateral6.weight",
    ]
    with pytest.raises(UserError, match="in the model's pyramid or head that would get no value"):
        load_into(model, with_pyramid("fcos"), "detectron2_fpn")
    model = dense_detector("retinanet")
    for tower in TOWERS:
        setattr(model.head, tower, getattr(model.head, tower)[:4])
    with pytest.raises(UserError, match=r"4 without a place in the model \(head\.cls_subnet\.conv3\.weight"):
        load_into(model, with_pyramid("retinanet"), "detectron2_fpn")


def test_the_tower_is_numbered_as_its_layers_stand() -> None:
    for norm in (False, True):
        names = [name for name, _ in Tower(32, norm).named_children()]
        assert {name: i for i, name in enumerate(names) if "relu" not in name} == numbers(norm)


@pytest.mark.frameworks
def test_detectron2s_own_fcos_config_takes_pyramid_and_head(make_backbone: Callable[..., Backbone]) -> None:
    """`COCO-Detection/fcos_R_50_FPN_1x.py` as it is, but for STRIDE_IN_1X1: P6 from P5, group norms in the head."""
    from detectron2 import model_zoo
    from detectron2.config import instantiate

    config = model_zoo.get_config("COCO-Detection/fcos_R_50_FPN_1x.py").model
    backbone = replace(make_backbone(1), extras=extras_of("fcos", BackboneSpec(50, 1), 256))
    with pytest.raises(UserError, match="stride in another convolution"):
        load_into(instantiate(config), backbone, "detectron2_fpn")
    config.backbone.bottom_up.stages.stride_in_1x1 = False
    model = instantiate(config)
    assert load_into(model, backbone, "detectron2_fpn").converted == 265 + 14 + 2 * 12
    found, wanted = forward(model, backbone, torch.randn(1, 3, 64, 64))
    assert close(found, wanted) == wanted.keys()
