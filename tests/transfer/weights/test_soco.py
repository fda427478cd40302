"""SoCo's pyramid and box head: read from a file, proved in Detectron2 and put into the detector of coco_fpn_1x."""

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
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.run import extra_weights
from transfer.weights import Backbone, convert, load, load_into, read, save, verify
from transfer.weights.backbone import check
from transfer.weights.models import pyramid_head_model
from transfer.weights.models.pyramid_head_fit import fit
from transfer.weights.naming import is_counter
from transfer.weights.pyramid_head import BOX, TWO_STAGE, from_detectron2, to_detectron2, two_stage

State = dict[str, Tensor]
SPEC = BackboneSpec(50, 1 / 4)
LEVELS = {"p2", "p3", "p4", "p5"}
NORMS = 12
"""8 in the pyramid, 4 in the box head."""


def in_soco(extras: State, branch: str = "") -> State:
    """As SoCo names them: ``branch`` is "_k" for the target."""
    found = {}
    for name, tensor in extras.items():
        part, module, leaf = name.split(".", 2)
        if part == "fpn":
            kind, number = ("lateral" if module.startswith("lateral") else "fpn"), int(module[-1]) - 2
            leaf = leaf.replace("norm.", "bn.") if leaf.startswith("norm.") else f"conv.{leaf}"
            found[f"module.neck{branch}.{kind}_convs.{number}.{leaf}"] = tensor
        elif leaf.startswith("norm."):
            found[f"module.head{branch}.bn{module[-1]}.{leaf.removeprefix('norm.')}"] = tensor
        else:
            found[f"module.head{branch}.{module}.{leaf}"] = tensor
    return found


@pytest.fixture
def with_pyramid(
    make_backbone: Callable[..., Backbone], two_stage_extras: Callable[..., State]
) -> Callable[..., Backbone]:
    return lambda width=0.25, seed=0: replace(
        make_backbone(width, seed=seed), extras=two_stage_extras(BackboneSpec(50, width), seed=seed)
    )


@pytest.fixture
def soco_file(tmp_path: Path, with_pyramid: Callable[..., Backbone]) -> Callable[..., Path]:
    """What `main_pretrain.py` saves, after ``edit(model)``; of SoCo_C4 if ``c4``."""

    def write(width: float = 1 / 16, edit: Callable[[dict], object] = lambda model: None, c4: bool = False) -> Path:
        model = {"module.projector.linear1.weight": torch.ones(2), "module.predictor.linear1.weight": torch.ones(2)}
        model |= {"module.queue": torch.ones(2), "module.queue_ptr": torch.zeros(1)} if c4 else {}
        for branch, seed in (("", 0), ("_k", 1)):
            backbone = with_pyramid(width, seed)
            model |= {f"module.encoder{branch}.{name}": tensor for name, tensor in backbone.state.items()}
            model |= {} if c4 else in_soco(backbone.extras, branch)
        edit(model)
        torch.save({"model": model, "epoch": 400, "scheduler": {}, "optimizer": {}}, tmp_path / "soco.pth")
        return tmp_path / "soco.pth"

    return write


def equal(found: State, wanted: State) -> bool:
    return found.keys() == wanted.keys() and all(found[name].equal(wanted[name]) for name in wanted)


def uncounted(extras: State) -> State:
    return {name: torch.zeros_like(tensor) if is_counter(name) else tensor for name, tensor in extras.items()}


def test_both_branches_arrive_bit_for_bit(
    soco_file: Callable[..., Path], with_pyramid: Callable[..., Backbone]
) -> None:
    path = soco_file()
    for branch, other, seed in (("student", "momentum encoder", 0), ("momentum_encoder", "student", 1)):
        reading, wanted = read(path, branch), with_pyramid(1 / 16, seed)
        assert reading.format == "soco"
        assert len(wanted.extras) == len(TWO_STAGE) == 74
        assert equal(reading.backbone.state, wanted.state)
        assert equal(reading.backbone.extras, wanted.extras)
        assert reading.counts.converted == 318 + 74
        dropped = {"projector": 1, "predictor": 1, f"{other} backbone": 318, f"{other} pyramid and head": 74}
        assert reading.counts.dropped == dropped


def test_a_c4_checkpoint_has_a_queue_and_no_neck(soco_file: Callable[..., Path]) -> None:
    reading = read(soco_file(c4=True))
    assert reading.format == "soco"
    assert reading.backbone.extras == {}
    assert reading.counts.dropped == {"projector": 1, "predictor": 1, "momentum encoder backbone": 318, "queue": 2}


def test_what_soco_made_for_detectron2_is_the_same(tmp_path: Path, with_pyramid: Callable[..., Backbone]) -> None:
    """As `convert_detectron2_Head.py` names it."""
    backbone = with_pyramid(1 / 16)
    table = {f"{n if n.startswith('layer') else 'stem.' + n}": t for n, t in backbone.state.items()}
    for old, new in [(f"layer{i}", f"res{i + 1}") for i in (1, 2, 3, 4)] + [
        *((f"bn{i}", f"conv{i}.norm") for i in (1, 2, 3)),
        *(("downsample.0", "shortcut"), ("downsample.1", "shortcut.norm")),
    ]:
        table = {name.replace(old, new): tensor for name, tensor in table.items()}
    table |= {n.replace("fpn.", "fpn_").replace("box.", "box_head."): t for n, t in backbone.extras.items()}
    content = {"model": {n: t.numpy() for n, t in table.items()}, "__author__": "Yue", "matching_heuristics": True}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    reading = read(tmp_path / "x.pkl")
    assert reading.format == "detectron2_soco"
    assert equal(reading.backbone.state, backbone.state)
    assert equal(reading.backbone.extras, backbone.extras)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda m: m.pop("module.neck.fpn_convs.2.bn.running_var"), r"1 missing \(fpn\.output4\.norm\.running_var\)"),
        (lambda m: m.pop("module.head.bn3.num_batches_tracked"), r"1 missing \(box\.conv3\.norm\.num_batches_tracked"),
        (lambda m: m.update({"module.neck.fpn_convs.4.conv.weight": torch.ones(2)}), r"1 unknown \(module\.neck\.fpn"),
        (lambda m: m.update({"module.head.fc2.bias": torch.ones(2)}), r"1 unknown \(box\.fc2\.bias\)"),
        (lambda m: m.update({"module.head.fc1.weight": torch.ones(16, 3)}), r"of the wrong shape \(box\.fc1\.weight"),
        (lambda m: m["module.head.conv2.weight"].fill_(float("nan")), r"NaN or infinite values \(box\.conv2\.weight\)"),
        (
            lambda m: m.update({"head.fc1.bias": torch.ones(16)}),
            r"1 unknown \(module\.head\.fc1\.bias\)",
        ),
        (lambda m: [m.pop(n) for n in list(m) if n.startswith("module.head.")], r"26 missing \(box"),
    ],
)
def test_an_unsound_neck_is_refused(soco_file: Callable[..., Path], edit: Callable[[dict], Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load(soco_file(edit=edit))


@pytest.mark.parametrize("suffix", ["pkl", "safetensors"])
def test_written_for_detectron2_and_read_again(
    tmp_path: Path, with_pyramid: Callable[..., Backbone], suffix: str
) -> None:
    backbone, path = with_pyramid(1 / 16), tmp_path / f"x.{suffix}"
    written = save(backbone, path, "detectron2_fpn")
    assert written.converted == 265 + 74 - NORMS
    assert written.dropped == {"num_batches_tracked": 53 + NORMS}
    reading = read(path)
    assert reading.format == "detectron2_fpn"
    assert equal(reading.backbone.extras, uncounted(backbone.extras))
    assert reading.counts.converted == 265 + 74 - NORMS
    assert reading.counts.dropped == {}
    assert reading.counts.initialised == {"BatchNorm counters": 53 + NORMS}
    check(reading.backbone)
    assert equal(from_detectron2(to_detectron2(backbone.extras)), backbone.extras)


@pytest.mark.parametrize(("framework", "name"), [("detectron2_c4", "x.pkl"), ("mmseg", "x.pth")])
def test_other_layouts_drop_and_count_it(
    tmp_path: Path, with_pyramid: Callable[..., Backbone], framework: str, name: str
) -> None:
    assert save(with_pyramid(1 / 16), tmp_path / name, framework).dropped["pyramid and head"] == 74
    assert load(tmp_path / name).extras == {}


@pytest.mark.frameworks
def test_open_mmlabs_pyramid_with_norms_is_the_reference(with_pyramid: Callable[..., Backbone]) -> None:
    """SoCo's FPN is a copy of that; names and numbers of MMSegmentation's."""
    from mmseg.models.necks import FPN

    theirs = FPN([16, 32, 64, 128], 16, 4, norm_cfg={"type": "BN"}).eval()
    named = {n: t for n, t in in_soco(with_pyramid(1 / 16).extras).items() if ".neck." in n}
    assert theirs.load_state_dict({name.removeprefix("module.neck."): tensor for name, tensor in named.items()})
    backbone = with_pyramid(1 / 16)
    ours = pyramid_head_model.build(backbone.spec, backbone.extras).eval()
    ours.load_state_dict(backbone.extras, assign=True)
    random = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 16 * 2**i, 32 // 2**i, 48 // 2**i, generator=random) for i in range(4)]
    with torch.no_grad():
        found, wanted = ours["fpn"]({f"layer{i + 1}": x for i, x in enumerate(maps)}), theirs(maps)
    assert all(torch.allclose(found[f"p{i + 2}"], x, atol=1e-5) for i, x in enumerate(wanted))


@pytest.mark.frameworks
@pytest.mark.parametrize("branch", ["student", "momentum_encoder"])
def test_conversion_proves_pyramid_and_box_head(tmp_path: Path, soco_file: Callable[..., Path], branch: str) -> None:
    done = convert(soco_file(1 / 4), tmp_path / "x.pkl", "detectron2_fpn", branch)
    assert done.parity is not None
    assert done.parity.ok
    assert set(done.parity.stages) == {*STAGES, *LEVELS, BOX}


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("backbone.fpn_lateral3.norm.running_mean", {"p2", "p3"}),
        ("backbone.fpn_output5.weight", {"p5"}),
        ("roi_heads.box_head.conv3.norm.bias", {BOX}),
        ("roi_heads.box_head.fc1.bias", {BOX}),
    ],
)
def test_the_proof_fails_where_a_change_reaches(
    tmp_path: Path, with_pyramid: Callable[..., Backbone], place: str, wrong: set[str]
) -> None:
    backbone, path = with_pyramid(), tmp_path / "x.pkl"
    save(backbone, path, "detectron2_fpn")
    content = pickle.loads(path.read_bytes())
    content["model"][place] = -content["model"][place]
    path.write_bytes(pickle.dumps(content))
    parity = verify(backbone, path, "detectron2_fpn")
    assert parity.unequal == [place]
    assert {stage for stage, difference in parity.stages.items() if not difference.ok} == wrong


@pytest.fixture
def detector(with_pyramid: Callable[..., Backbone]) -> Callable[..., nn.Module]:
    """``detector(protocol, **options)``: as the protocol builds it at mini scale for such a backbone, but for ``options``."""

    def build(protocol: str, **options: Any) -> nn.Module:
        from detectron2.modeling import build_model

        from transfer.detection.config import build_config

        overrides = {f"MODEL.{key.replace('__', '.')}": value for key, value in options.items()}
        job = TransferJob(find_protocol(protocol), Path("data"), Path("run"), scale="mini", overrides=overrides)
        cfg = build_config(job, with_pyramid())
        cfg.MODEL.DEVICE = "cpu"
        with torch.random.fork_rng():
            return build_model(cfg)

    return build


SIXTEEN: dict[str, Any] = {"FPN__OUT_CHANNELS": 16, "ROI_BOX_HEAD__CONV_DIM": 16, "ROI_BOX_HEAD__FC_DIM": 16}


@pytest.mark.frameworks
def test_all_of_it_goes_into_the_detector_of_coco_fpn_1x(
    detector: Callable[..., nn.Module], with_pyramid: Callable[..., Backbone]
) -> None:
    model, backbone = detector("coco_fpn_1x", **SIXTEEN), with_pyramid()
    counts = load_into(model, backbone, "detectron2_fpn")
    after = model.state_dict()
    assert counts.converted == 265 + 74 - NORMS
    assert counts.dropped == {"num_batches_tracked": 53 + NORMS}
    assert counts.initialised.keys() == {"num_batches_tracked", "outside the backbone"}
    assert counts.initialised["num_batches_tracked"] == 53 + NORMS
    assert counts.converted + sum(counts.initialised.values()) == len(after)
    placed = to_detectron2(backbone.extras)
    assert all(after[place].equal(tensor) for place, tensor in placed.items() if not is_counter(place))
    assert extra_weights(find_protocol("coco_fpn_1x"), backbone) != []
    assert extra_weights(find_protocol("voc12aug_incontext"), backbone) == [], (
        "a frozen protocol takes the backbone alone"
    )


@pytest.mark.frameworks
def test_models_of_another_kind_say_what_they_do_not_take(
    detector: Callable[..., nn.Module], with_pyramid: Callable[..., Backbone]
) -> None:
    backbone, counters = with_pyramid(), {"num_batches_tracked": 53 + NORMS}
    no_box, no_norms = (
        "box head (the model has none or a different one)",
        "batch norms of the pyramid (the model has none)",
    )
    counts = load_into(detector("coco_fpn_1x_2fc", FPN__OUT_CHANNELS=16), backbone, "detectron2_fpn")
    assert counts.converted == 265 + 40
    assert counts.dropped == counters | {no_box: 22}
    counts = load_into(detector("coco_fpn_1x", FPN__NORM="", **SIXTEEN), backbone, "detectron2_fpn")
    assert counts.converted == 265 + 8 + 22
    assert counts.dropped == counters | {no_norms: 32}
    assert counts.initialised["biases of the pyramid (the checkpoint has norms instead)"] == 8
    counts = load_into(detector("coco_retinanet_1x", FPN__OUT_CHANNELS=16, FPN__NORM="LN"), backbone, "detectron2_fpn")
    assert counts.converted == 265 + 6
    assert counts.dropped == counters | {"P2 (the model has none)": 10, no_norms: 24, no_box: 22}
    assert counts.initialised["norms of the pyramid"] == 12
    assert counts.initialised["P6 of the pyramid"] == counts.initialised["P7 of the pyramid"] == 2


@pytest.mark.frameworks
def test_another_width_is_an_error_and_changes_nothing(
    detector: Callable[..., nn.Module], with_pyramid: Callable[..., Backbone]
) -> None:
    model = detector("coco_fpn_1x")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=r"roi_heads\.box_head\.fc1\.weight is \(16, .*head with 16 channels"):
        load_into(model, with_pyramid(), "detectron2_fpn")
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    model.backbone.add_module("fpn_lateral6", nn.Conv2d(1, 1, 1))
    assert set(fit(model, with_pyramid().extras).lacking) == {
        "backbone.fpn_lateral6.bias",
        "backbone.fpn_lateral6.weight",
    }


def test_which_kind_it_is() -> None:
    assert two_stage(TWO_STAGE)
    assert not two_stage(["fpn.lateral3.weight", "fpn.p6.bias", "head.norm1.weight"])
