"""The Detectron2 protocols: their published values, their overrides, and short runs of the real trainer and evaluators."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from quick_detection import QUARTER, QUICK, converted_backbone
from started import output

from pixbench.errors import UserError
from pixbench.results import read_arrays
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.fpn import FPN, Tower
from transfer import weights
from transfer.datasets.classes import Classes, read_classes
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob
from transfer.protocols import differences, find_protocol, leaves, protocols
from transfer.published_config import published_config
from transfer.run import run_transfer
from transfer.samples import unpacked
from transfer.weights import Backbone, load, load_into, to_framework
from transfer.weights.file_format import Pixels
from transfer.weights.vit_spec import VitSpec

pytestmark = pytest.mark.frameworks
PUBLIC = yaml.safe_load((Path(__file__).parent / "public_detection.yaml").read_text(encoding="utf-8"))
OURS = ("VITDET", "TRAIN", "MODEL.NAMED")
"""Sections that Detectron2's own config does not have."""
SMALL_VIT = VitSpec(64, 4, 1, 16, 64)
NAMES = [protocol.name for protocol in protocols().values() if protocol.framework == "detectron2"]


def make_job(name: str, root: Path, out: Path, **overrides: Any) -> TransferJob:
    more = {key.replace("__", "."): value for key, value in overrides.items()}
    return TransferJob(find_protocol(name), root, out, scale="mini", overrides={**QUICK, **more})


# --- configs -----------------------------------------------------------------------------------------------------------


def public(files: list[str]) -> dict[str, Any]:
    """What Detectron2 makes of these stored public definitions, one over the other."""
    from detectron2.config import get_cfg

    from transfer.detection.config import config_as_dict

    cfg, values = get_cfg(), [pair for file in files for pair in PUBLIC["files"][file]["values"].items()]
    cfg.merge_from_list([word for pair in values if not pair[0].startswith(OURS) for word in pair])
    found = config_as_dict(cfg)
    for key, value in values:
        *parents, last = key.split(".")
        node = found
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return found


@pytest.mark.parametrize("name", NAMES)
def test_paper_config_is_the_public_definition(name: str) -> None:
    """Every field of the resolved config, not only those we set: a changed default of Detectron2 shows too."""
    found = differences(public(PUBLIC["protocols"][name]), published_config(find_protocol(name)))
    allowed = {**PUBLIC["differences"]["all"], **PUBLIC["differences"].get(name, {})}
    assert {key: ours for key, (_, ours) in found.items()} == {key: value for key, (value, _) in allowed.items()}


def test_every_protocol_has_its_public_definition() -> None:
    assert set(NAMES) == set(PUBLIC["protocols"])


@pytest.mark.parametrize("file", PUBLIC["in_the_package"])
def test_the_stored_definitions_of_detectron2_are_those_of_the_package(file: str) -> None:
    import detectron2
    from detectron2.config import get_cfg

    from transfer.detection.config import config_as_dict

    package = get_cfg()
    package.merge_from_file(str(Path(detectron2.__file__).parent / "model_zoo" / "configs" / file), allow_unsafe=True)
    assert differences(config_as_dict(package), public(PUBLIC["in_the_package"][file])) == {}


def test_our_fcos_is_that_of_detectron2s_lazy_config() -> None:
    from detectron2 import model_zoo
    from detectron2.config import instantiate
    from detectron2.modeling import build_model

    import transfer.detection.models  # noqa: F401  registers FCOS
    from transfer.detection.config import build_config

    lazy = model_zoo.get_config("COCO-Detection/fcos_R_50_FPN_1x.py")
    cfg = build_config(TransferJob(find_protocol("coco_fcos_1x"), Path("data"), Path("run")), None)
    cfg.MODEL.DEVICE, cfg.MODEL.RESNETS.NORM, cfg.MODEL.FPN.NORM = "cpu", "FrozenBN", ""
    theirs, ours = instantiate(lazy.model), build_model(cfg)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    for name in ("num_classes", "head_in_features", "center_sampling_radius", "focal_loss_alpha", "focal_loss_gamma"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("test_score_thresh", "test_topk_candidates", "test_nms_thresh", "max_detections_per_image"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert type(ours) is type(theirs)
    assert str(ours.head) == str(theirs.head)
    assert str(ours.anchor_generator) == str(theirs.anchor_generator)
    assert ours.backbone.top_block.in_feature == theirs.backbone.top_block.in_feature == "p5"
    assert lazy.optimizer.lr == cfg.SOLVER.BASE_LR


def test_our_fcos_takes_a_pretrained_pyramid_and_head() -> None:
    from detectron2.modeling import build_model

    import transfer.detection.models  # noqa: F401  registers FCOS
    from transfer.detection.config import build_config

    cfg = build_config(TransferJob(find_protocol("coco_fcos_1x"), Path("data"), Path("run"), scale="mini"), None)
    cfg.MODEL.DEVICE = "cpu"
    width, model = cfg.MODEL.FPN.OUT_CHANNELS, build_model(cfg)
    parts = {"fpn": FPN(QUARTER.stage_channels, width), "head": Tower(width, norm=True)}
    extras = {
        f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()
    }
    counts = load_into(model, replace(random_backbone(QUARTER, seed=0), extras=extras), "detectron2_fpn")
    assert set(counts.dropped) == {"num_batches_tracked", "biases without effect (a norm follows)"}
    placed = model.state_dict()
    assert torch.equal(placed["backbone.top_block.p6.weight"], extras["fpn.p6.weight"])
    for tower in ("cls_subnet", "bbox_subnet"):
        assert torch.equal(placed[f"head.{tower}.6.weight"], extras["head.conv3.weight"])


def test_our_vitdet_is_that_of_detectron2s_lazy_config() -> None:
    """What our file writes out of the model equals the package's; all else of the model is read from there."""
    from detectron2 import model_zoo
    from detectron2.modeling import build_model
    from omegaconf import OmegaConf

    from transfer.detection import vitdet
    from transfer.detection.config import build_config

    lazy = model_zoo.get_config(vitdet.LAZY).model
    published = published_config(find_protocol("coco_vitdet"))
    written = {
        key: value for key, value in leaves(published["VITDET"]["MODEL"]) if not key.endswith("pretrain_img_size")
    }
    assert {key: OmegaConf.select(lazy, key) for key in written} == written
    assert [list(lazy.pixel_mean), list(lazy.pixel_std)] == [
        published["MODEL"][key] for key in ("PIXEL_MEAN", "PIXEL_STD")
    ]

    cfg = build_config(TransferJob(find_protocol("coco_vitdet"), Path("data"), Path("run"), scale="mini"), None)
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    groups = {id(one): group for group in vitdet.optimizer(cfg, model).param_groups for one in group["params"]}
    found = {name: groups[id(parameter)] for name, parameter in model.named_parameters()}
    expected = {  # name -> blocks above it, weight decay
        "backbone.net.pos_embed": (5, 0.0),
        "backbone.net.blocks.0.attn.qkv.weight": (4, 0.1),
        "backbone.net.blocks.3.norm1.weight": (1, 0.0),
        "roi_heads.box_head.fc1.weight": (0, 0.1),
    }
    for name, (above, decay) in expected.items():
        assert found[name]["lr"] == pytest.approx(1e-4 * 0.7**above), name
        assert found[name]["weight_decay"] == decay, name


@pytest.mark.parametrize("name", NAMES)
def test_mini_overrides_resolve_and_make_a_small_backbone(name: str) -> None:
    from transfer.detection.config import backbone_spec, build_config

    cfg = build_config(TransferJob(find_protocol(name), Path("data"), Path("run"), scale="mini", seed=3), None)
    if not find_protocol(name).networks:
        assert backbone_spec(cfg) == (SMALL_VIT if name == "coco_vitdet" else BackboneSpec(50, 0.25))
    assert (cfg.SEED, cfg.OUTPUT_DIR) == (3, "run")


def test_width_follows_the_backbone_at_mini_scale_and_is_fixed_at_paper_scale() -> None:
    from transfer.detection.config import backbone_spec, build_config

    job = TransferJob(find_protocol("voc_c4"), Path("data"), Path("run"), Path("backbone.pth"), scale="mini")
    assert backbone_spec(build_config(job, Backbone(BackboneSpec(50, 0.5), {}, ""))) == BackboneSpec(50, 0.5)
    paper = replace(job, scale="paper")
    assert backbone_spec(
        build_config(paper, Backbone(BackboneSpec(50, 1.0, output_stride=16), {}, ""))
    ) == BackboneSpec(50, 1.0)
    with pytest.raises(UserError, match=r"backbone.pth holds a ResNet-50 of width 0.25.*STEM_OUT_CHANNELS=16"):
        build_config(paper, Backbone(QUARTER, {}, ""))
    knowing = {"MODEL.RESNETS.STEM_OUT_CHANNELS": 16, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64}
    build_config(replace(paper, overrides={**knowing, "MODEL.RESNETS.WIDTH_PER_GROUP": 16}), Backbone(QUARTER, {}, ""))


@pytest.mark.parametrize(
    ("spec", "pixels", "message"),
    [
        (BackboneSpec(stem="deep"), Pixels(), "variant deep; Detectron2 has only the 7x7 stem"),
        (BackboneSpec(stride_in_1x1=True), Pixels(), r"another backbone.*'MODEL.RESNETS.STRIDE_IN_1X1=true'"),
        (VitSpec(64, 2, 2, 16, 64), Pixels(), "holds a ViT of width 64.* it is for ResNet-50 of width 1"),
        (
            BackboneSpec(),
            Pixels("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)),
            r"expects BGR.*'INPUT.FORMAT=\"BGR\"'",
        ),
    ],
)
def test_a_backbone_of_another_kind_says_what_to_do(spec: Any, pixels: Pixels, message: str) -> None:
    from transfer.detection.config import build_config

    job = TransferJob(find_protocol("voc_c4"), Path("data"), Path("run"), Path("backbone.pth"))
    with pytest.raises(UserError, match=message):
        build_config(job, Backbone(spec, {}, "", pixels=pixels))


def test_the_settings_that_other_pixels_need_are_taken() -> None:
    from transfer.detection.config import build_config

    msra = Pixels("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
    settings = {"INPUT.FORMAT": "BGR", "MODEL.PIXEL_MEAN": list(msra.mean), "MODEL.PIXEL_STD": list(msra.std)}
    job = TransferJob(find_protocol("voc_c4"), Path("data"), Path("run"), overrides=settings)
    assert build_config(job, Backbone(BackboneSpec(), {}, "", pixels=msra)).INPUT.FORMAT == "BGR"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER.MAX_ITERS", 4, "did you mean SOLVER.MAX_ITER"),
        ("SOLVER.MAX_ITER", "many", "SOLVER.MAX_ITER cannot be 'many'"),
        ("SOLVER", 4, "has no setting 'SOLVER'"),
        ("OUTPUT_DIR", "x", "set by --out"),
        ("MODEL.WEIGHTS", "x", "set by --weights"),
        ("MODEL.RESNETS.STEM_OUT_CHANNELS", 32, "must be four times"),
    ],
)
def test_an_override_that_cannot_be_names_itself(key: str, value: Any, message: str) -> None:
    from transfer.detection.config import build_config

    job = TransferJob(find_protocol("voc_c4"), Path("data"), Path("run"), scale="mini", overrides={key: value})
    with pytest.raises(UserError, match=message):
        build_config(job, None)


def test_a_whole_number_will_do_for_a_float() -> None:
    from transfer.detection.config import build_config

    job = TransferJob(find_protocol("voc_c4"), Path("data"), Path("run"), overrides={"SOLVER.BASE_LR": 1})
    assert build_config(job, None).SOLVER.BASE_LR == 1.0


# --- the model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["voc_c4", "coco_c4_1x", "coco_fpn_1x", "coco_fpn_1x_2fc"])
def test_norms_are_where_the_protocol_wants_them(name: str) -> None:
    from detectron2.modeling import build_model
    from torch.nn import SyncBatchNorm

    import transfer.detection.models  # noqa: F401  registers the head
    from transfer.detection.config import build_config

    cfg = build_config(TransferJob(find_protocol(name), Path("data"), Path("run"), scale="mini"), None)
    cfg.MODEL.DEVICE = "cpu"
    modules = dict(build_model(cfg).named_modules())
    norms = {key for key, module in modules.items() if isinstance(module, SyncBatchNorm)}
    assert not [key for key in modules if type(modules[key]).__name__ in ("FrozenBatchNorm2d", "BatchNorm2d")]
    if "fpn" in name:
        heads = {f"roi_heads.box_head.conv{i}.norm" for i in (1, 2, 3, 4)}
        heads |= {f"roi_heads.mask_head.mask_fcn{i}.norm" for i in (1, 2, 3, 4)}
        wanted = {f"backbone.fpn_{kind}{i}.norm" for kind in ("lateral", "output") for i in (2, 3, 4, 5)}
        wanted |= set() if name.endswith("2fc") else heads
        assert {key for key in norms if not key.startswith("backbone.bottom_up")} == wanted
        assert "roi_heads.box_head.fc1" in modules
        assert ("roi_heads.box_head.fc2" in modules) == name.endswith("2fc")
    else:
        assert modules["roi_heads.res5.norm"].num_features == 512
        assert ("roi_heads.mask_head" in modules) == (name == "coco_c4_1x")


# --- runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def c4_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted_backbone(tmp_path_factory.mktemp("weights") / "backbone.pkl", "detectron2_c4")


def test_a_run_starts_from_its_backbone_and_heads_do_not_depend_on_it(
    mini_root: Path, tmp_path: Path, c4_file: Path
) -> None:
    """With learning rate 0 the final checkpoint holds what training began with."""
    from transfer.detection.run import run

    still = {"SOLVER__BASE_LR": 0.0, "SOLVER__MAX_ITER": 1, "SOLVER__STEPS": [], "TEST__PRECISE_BN__ENABLED": False}
    final = {}
    backbones: dict[str, Backbone | None] = {"file": load(c4_file), "random": None}
    for start, backbone in backbones.items():
        outcome = run(make_job("coco_c4_1x", mini_root, tmp_path / start, **still), backbone)
        assert outcome.iterations == 1
        assert {"bbox/AP", "bbox/AP50", "segm/AP", "segm/AP50"} <= set(outcome.metrics)  # NaN when nothing is predicted
        final[start] = torch.load(tmp_path / start / "model_final.pth", weights_only=True)["model"]
        check_masks(outcome.kept.arrays["samples"])
    backbones["random"] = random_backbone(QUARTER, seed=0)
    for start, backbone in backbones.items():
        assert backbone is not None
        expected = to_framework(backbone, "detectron2_c4")
        learnt = [key for key in expected if not key.endswith(("running_mean", "running_var", "num_batches_tracked"))]
        assert len(learnt) == 159
        assert all(torch.equal(final[start][key], expected[key]) for key in learnt)
    heads = [key for key in final["file"] if key.startswith(("proposal_generator", "roi_heads.box", "roi_heads.mask"))]
    assert len(heads) == 6 + 4 + 4
    assert all(torch.equal(final["file"][key], final["random"][key]) for key in heads)


def check_masks(samples: dict[str, np.ndarray]) -> None:
    """The true masks that are kept fill the true boxes, and the found ones belong to boxes."""
    assert len(samples["images"]) == 6
    for number in range(6):
        with Image.open(io.BytesIO(samples[f"picture_{number}"].tobytes())) as picture:
            size = picture.size
        masks, boxes = unpacked(samples[f"truth_masks_{number}"], size), samples[f"truth_boxes_{number}"]
        assert len(masks) == len(boxes) > 0
        for mask, box in zip(masks, boxes, strict=True):
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            ends = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            assert ends == pytest.approx(box * (size * 2), abs=2.5)
        assert len(samples[f"found_masks_{number}"]) == len(samples[f"found_scores_{number}"])


@pytest.mark.e2e
@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_starts_and_finishes(mini_root: Path, tmp_path: Path, name: str) -> None:
    result = run_transfer(make_job(name, mini_root, tmp_path / "run"))
    assert (result["status"], result["iterations"]) == ("ok", QUICK["SOLVER.MAX_ITER"])
    assert set(result["metrics"]) == set(find_protocol(name).metrics)
    samples = read_arrays(tmp_path / "run/result.json", result, "samples.npz")
    assert len(samples["images"]) == 6
    assert ("truth_keypoints_0" in samples) == ("found_keypoints_0" in samples) == ("keypoint" in name)


def test_a_backbone_that_does_not_fit_stops_the_run_before_its_first_iteration(mini_root: Path, tmp_path: Path) -> None:
    from transfer.detection.run import run

    backbone = random_backbone(QUARTER, seed=0)
    lacking = {name: tensor for name, tensor in backbone.state.items() if name != "layer4.2.conv3.weight"}
    with pytest.raises(UserError, match=r"layer4\.2\.conv3\.weight"):
        run(make_job("coco_fpn_1x", mini_root, tmp_path / "run"), Backbone(backbone.spec, lacking, "a torn file"))
    assert not list((tmp_path / "run").glob("*.pth"))
    assert "iteration" not in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")


def test_a_loss_that_is_not_finite_says_what_to_lower(mini_root: Path, tmp_path: Path) -> None:
    from transfer.detection.run import run

    with pytest.raises(UserError, match=r"diverged at iteration \d.*lower SOLVER.BASE_LR \(now 1e\+08\)"):
        run(make_job("voc_c4", mini_root, tmp_path / "run", SOLVER__BASE_LR=1e8, SOLVER__MAX_ITER=20), None)


def test_an_interrupted_run_goes_on_and_ends_with_all_its_iterations(
    mini_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    settings = {**QUICK, "SOLVER.MAX_ITER": 12, "SOLVER.STEPS": [10]}
    command = [
        *(
            sys.executable,
            "-m",
            "benchmarks.commands",
            "transfer",
            "coco_fpn_1x",
            "--init",
            "random",
            "--scale",
            "mini",
        ),
        *("--data-root", str(mini_root), "--out", str(out)),
        *(word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    deadline = time.monotonic() + 240
    while not (out / "last_checkpoint").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = output(process)[0]
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
    assert not (out / "result.json").exists()

    job = TransferJob(find_protocol("coco_fpn_1x"), mini_root, out, scale="mini", overrides=settings)
    result = run_transfer(job)
    said = capsys.readouterr().out
    assert "going on from iteration" in said
    assert "backbone from" not in said
    assert torch.load(out / "model_final.pth", weights_only=True)["iteration"] == 11
    assert (result["status"], result["iterations"], result["resumed"]) == ("ok", 12, True)
    periodic = set(out.glob("model_*.pth")) - {out / "model_final.pth", out / "model_stopped.pth"}
    assert len(periodic) <= 4  # two of either start at most, and no half-written file
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_named(mini_root: Path, tmp_path: Path, workers: int) -> None:
    from transfer.detection.run import run

    root = tmp_path / "data"
    shutil.copytree(mini_root / "coco", root / "coco")
    for image in (root / "coco" / "train2017").iterdir():
        image.write_bytes(image.read_bytes()[:600])
    job = make_job("coco_fpn_1x", root, tmp_path / "run", DATALOADER__NUM_WORKERS=workers)
    with pytest.raises(UserError, match=r"^image \S+train2017/\d+\.jpg cannot be used \(.*\); replace it$"):
        run(job, None)


def test_annotations_that_are_torn_are_named(mini_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(mini_root / "coco", root / "coco")
    path = root / "coco" / "annotations" / "instances_train2017.json"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=f"{path}: is not a complete annotation file of COCO's format"):
        run_transfer(make_job("coco_fpn_1x", root, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_picture_that_breaks_the_last_phase_is_the_reason_given(mini_root: Path, tmp_path: Path) -> None:
    """Precise BN reads it first, in the last step; an evaluation after that would fail too, and its error would be shown."""
    from transfer.detection.run import run

    root = Path(shutil.copytree(mini_root / "coco", tmp_path / "data" / "coco"))
    few = {"SOLVER__MAX_ITER": 2, "TEST__PRECISE_BN__NUM_ITER": 6}
    picture = sorted((root / "train2017").iterdir())[7]
    picture.write_bytes(picture.read_bytes()[:900])
    with pytest.raises(UserError, match=f"image {picture} cannot be used"):
        run(make_job("coco_fpn_1x", root.parent, tmp_path / "run", **few), None)
    assert "Starting inference" not in (tmp_path / "run" / "log.txt").read_text()


def test_settings_that_follow_from_the_data_cannot_contradict_it(mini_root: Path, tmp_path: Path) -> None:
    from transfer.detection.config import build_config

    for name, key in (
        ("voc_c4", "MODEL.ROI_HEADS.NUM_CLASSES"),
        ("coco_fcos_1x", "MODEL.RETINANET.NUM_CLASSES"),
        ("coco_vitdet", "VITDET.MODEL.roi_heads.num_classes"),
    ):
        job = TransferJob(find_protocol(name), mini_root, tmp_path, scale="mini", overrides={key: 3})
        with pytest.raises(UserError, match=rf"{key} is 3, but the data has (20|80) classes; leave it out"):
            build_config(job, None)
        own = replace(job, classes=Classes(("a", "b", "c"), "own.txt", own=True))
        assert dict(leaves(build_config(own, None)))[key] == 3
        assert dict(leaves(build_config(replace(own, overrides={}), None)))[key] == 3


def test_run_lengths_are_read_as_bitmaps_and_said(mini_root: Path, tmp_path: Path) -> None:
    from transfer.datasets.prepared import Prepared
    from transfer.detection.config import build_config
    from transfer.detection.data_settings import read_masks

    job, data = make_job("coco_fpn_1x", mini_root, tmp_path), Prepared(run_lengths=True)
    cfg = build_config(job, None)
    assert read_masks(cfg, job, Prepared()) == ()
    assert read_masks(cfg, job, data) == (
        "INPUT.MASK_FORMAT bitmask instead of polygon, because masks of the data are run lengths",
    )
    assert cfg.INPUT.MASK_FORMAT == "bitmask"
    boxes = make_job("coco_retinanet_1x", mini_root, tmp_path)
    assert read_masks(build_config(boxes, None), boxes, data) == ()
    told = make_job("coco_fpn_1x", mini_root, tmp_path, INPUT__MASK_FORMAT="polygon")
    with pytest.raises(UserError, match=r"INPUT.MASK_FORMAT is polygon, but masks of the data are run lengths"):
        read_masks(build_config(told, None), told, data)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "DATASETS.TEST",
            ["coco_2017_train"],
            "DATASETS.TEST cannot be overridden; the protocol says what it is tested on",
        ),
        ("MODEL.MASK_ON", False, "MODEL.MASK_ON cannot be overridden; choose another protocol"),
        ("TEST.AUG.ENABLED", True, "PixBench does not use it"),
        ("SOLVER.IMS_PER_BATCH", 0, "SOLVER.IMS_PER_BATCH cannot be 0; it must be above 0"),
        ("INPUT.MIN_SIZE_TRAIN", [], "must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    mini_root: Path, tmp_path: Path, key: str, value: Any, said: str
) -> None:
    from transfer.detection.config import build_config

    job = TransferJob(find_protocol("coco_fpn_1x"), mini_root, tmp_path, scale="mini", overrides={key: value})
    with pytest.raises(UserError, match=said):
        build_config(job, None)


def test_an_error_of_the_framework_names_the_settings_of_the_users_own(mini_root: Path, tmp_path: Path) -> None:
    job = make_job("coco_fpn_1x", mini_root, tmp_path / "run", SOLVER__LR_SCHEDULER_NAME="Foo")
    with pytest.raises(
        UserError, match=r"stopped \(ValueError: .*Foo.*--set SOLVER.LR_SCHEDULER_NAME=Foo; correct them"
    ):
        run_transfer(job)


def test_own_data_may_be_in_one_folder_of_voc(mini_root: Path, tmp_path: Path) -> None:
    from transfer.datasets.classes import published_classes
    from transfer.detection.config import build_config

    own = replace(published_classes("voc.txt"), own=True)
    root = tmp_path / "data"
    shutil.copytree(mini_root / "VOC2007", root / "VOC2007")
    job = replace(make_job("voc_c4", root, tmp_path / "run"), classes=own)
    assert build_config(job, None).DATASETS.TRAIN == ("voc_2007_trainval",)
    with pytest.raises(UserError, match="VOC2012 is missing"):
        run_transfer(replace(job, classes=None))
    assert any(
        "VOC2012/ImageSets/Main/trainval.txt is not there" in note for note in run_transfer(job)["data"]["notes"]
    )


def test_deviations_are_those_of_the_config_that_ran(mini_root: Path, tmp_path: Path) -> None:
    """A backbone of another width than the mini scale has is recorded as it is."""
    narrow = random_backbone(BackboneSpec(50, 0.0625), seed=0)
    path = tmp_path / "narrow.pkl"
    weights.save(narrow, path, "detectron2_fpn")
    job = replace(make_job("coco_fpn_1x", mini_root, tmp_path / "run"), weights=path)
    texts = run_transfer(job)["deviations"]
    assert any("MODEL.RESNETS.STEM_OUT_CHANNELS 4 instead of 64" in text for text in texts)


def test_a_run_on_own_classes(mini_root: Path, tmp_path: Path) -> None:
    """Categories of another number, with ids from 7 downwards, in files without iscrowd and area, and masks as run lengths."""
    root = tmp_path / "data"
    shutil.copytree(mini_root / "coco", root / "coco")
    for path in (root / "coco/annotations").glob("instances_*"):
        content = json.loads(path.read_text())
        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        content["categories"] = [{"id": 7, "name": "odd"}, {"id": 3, "name": "even"}]
        for thing in content["annotations"]:
            thing["category_id"] = 7 if thing["category_id"] % 2 else 3
            if isinstance(thing["segmentation"], list):
                thing["segmentation"] = run_lengths(thing["segmentation"], sizes[thing["image_id"]])
            del thing["iscrowd"], thing["area"]
        path.write_text(json.dumps(content))
    job = make_job("coco_fpn_1x", root, tmp_path / "run", MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0)
    with pytest.raises(UserError, match="to run on the categories of this file, add --classes"):
        run_transfer(job)
    own = replace(job, classes=read_classes(root / "coco/annotations/instances_train2017.json"))
    result = run_transfer(own)
    assert result["classes"] == ["even", "odd"]
    assert result["config"]["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 2
    assert {"2 classes (even, odd) of its own instead of those of the protocol"} < set(result["deviations"])
    assert any("MASK_FORMAT bitmask" in text for text in result["deviations"])
    assert any("without iscrowd, taken as 0" in text for text in result["data"]["notes"])
    with pytest.raises(UserError, match="belongs to another run"):
        run_transfer(replace(own, classes=Classes(("even", "odds"), "own.txt", own=True)))


def run_lengths(polygons: list[list[float]], size: tuple[int, int]) -> dict[str, Any]:
    from pycocotools import mask

    whole = mask.merge(mask.frPyObjects(polygons, *size))
    return {"size": list(whole["size"]), "counts": whole["counts"].decode()}


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    from transfer.detection.trainer import Checkpointer

    checkpointer = Checkpointer(torch.nn.Linear(100, 100), str(tmp_path))
    checkpointer.save("model_0", iteration=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))  # a full disk, as far as a process can make one
        with pytest.raises(
            UserError, match=r"checkpoint \S+model_1\.pth cannot be written \(File too large\); free some disk space"
        ):
            checkpointer.save("model_1", iteration=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last_checkpoint", "model_0.pth"]
    assert checkpointer.resume_or_load("")["iteration"] == 0


@pytest.mark.e2e
def test_two_machines_on_loopback_train_as_one(mini_root: Path, tmp_path: Path) -> None:
    """Two ``torchrun`` of one process each, over gloo: one result, and naiveSyncBN on record."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "run"
    nodes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={node}"),
                *("--nproc_per_node=1", "--master-addr=127.0.0.1", f"--master-port={port}"),
                *("-m", "benchmarks.commands", "transfer", "voc_c4", "--init", "random", "--scale", "mini"),
                *("--data-root", str(mini_root), "--out", str(out)),
                *(word for key, value in QUICK.items() for word in ("--set", f"{key}={json.dumps(value)}")),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        for node in (0, 1)
    ]
    said = [output(node)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
    stored = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert (stored["status"], stored["host"]["processes"], stored["iterations"]) == ("ok", 2, 4)
    assert "naiveSyncBN instead of SyncBN, as several CPU processes need" in stored["deviations"]
    assert stored["config"]["MODEL"]["RESNETS"]["NORM"] == "naiveSyncBN"
    assert (out / "log.rank1.txt").exists()


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("voc_c4", 265),
        *(pytest.param(*more, marks=pytest.mark.e2e) for more in (("coco_fpn_1x", 265), ("coco_vitdet", 51))),
    ],
)
def test_a_frozen_backbone_stays_as_it_was_loaded(mini_root: Path, tmp_path: Path, name: str, tensors: int) -> None:
    from transfer.detection.run import run

    framework = find_protocol(name).weights_framework
    backbone = random_backbone(SMALL_VIT if name == "coco_vitdet" else QUARTER, seed=7)
    short = {"SOLVER__MAX_ITER": 2, "SOLVER__STEPS": [], "SOLVER__BASE_LR": 0.001}
    run(replace(make_job(name, mini_root, tmp_path / "run", **short), freeze="backbone"), backbone)
    final = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)["model"]
    before = {key: value for key, value in to_framework(backbone, framework).items() if key in final}
    assert len(before) == tensors  # all but the counters
    assert [key for key, value in before.items() if not torch.equal(final[key], value)] == []
    if name == "coco_vitdet":
        assert final["backbone.net.blocks.1.attn.rel_pos_h"].any()
    else:
        added = "roi_heads.res5.norm" if name == "voc_c4" else "backbone.fpn_output2.norm"
        assert final[f"{added}.num_batches_tracked"] > 0


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    from detectron2.utils.events import EventStorage

    from transfer.detection.trainer import Accumulator

    class Model(torch.nn.Linear):
        def forward(self, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"loss": super().forward(torch.stack(batch)).square().mean()}

    images, ends = list(torch.randn(8, 3)), []
    for parts in (1, 4):
        torch.manual_seed(0)
        model = Model(3, 2)
        batches = [images[i : i + 8 // parts] for i in range(0, 8, 8 // parts)]
        trainer = Accumulator(model, batches, torch.optim.SGD(model.parameters(), 0.1), parts, half=False)
        with EventStorage() as storage:
            trainer.iter = 19  # written every 20
            trainer.run_step()
            ends.append((model.weight.detach(), storage.history("total_loss").latest()))
    assert torch.allclose(ends[0][0], ends[1][0])
    assert ends[0][1] == pytest.approx(ends[1][1])


def test_a_batch_in_parts_takes_as_many_images(mini_root: Path, tmp_path: Path) -> None:
    job = replace(make_job("voc_c4", mini_root, tmp_path / "run"), accumulate=2)
    result = run_transfer(job)
    assert result["iterations"] == QUICK["SOLVER.MAX_ITER"]
    assert result["scaling"]["accumulate"] == 2
    lists = [
        mini_root / f"VOC{name}.txt"
        for name in ("2007/ImageSets/Main/trainval", "2012/ImageSets/Main/trainval", "2007/ImageSets/Main/test")
    ]
    *train, test = (len(path.read_text().splitlines()) for path in lists)
    assert result["evaluation"]["pictures"] == {"train": sum(train), "test": test}
    assert result["evaluation"]["spec"]["width"] == 0.25
    said = "batch of 2 in 2 parts, gradients accumulated: BatchNorm sees 1 images"
    assert said in result["deviations"]
    with pytest.raises(UserError, match="2 images cannot be split evenly into 3 parts on 1 GPUs"):
        run_transfer(replace(job, accumulate=3, out=tmp_path / "other"))
    with pytest.raises(UserError, match="accumulate was 2, now 1"):
        run_transfer(replace(job, accumulate=1))


def test_data_sets_follow_the_data_root(mini_root: Path, tmp_path: Path) -> None:
    from transfer.datasets.prepared import Prepared
    from transfer.detection.datasets import register

    register(TransferJob(find_protocol("voc_c4"), tmp_path, tmp_path), Prepared())
    from detectron2.data import MetadataCatalog

    assert MetadataCatalog.get("voc_2007_test").dirname == str(tmp_path / "VOC2007")
    register(TransferJob(find_protocol("voc_c4"), mini_root, tmp_path), Prepared())
    assert MetadataCatalog.get("voc_2007_test").dirname == str(mini_root / "VOC2007")
    assert MetadataCatalog.get("coco_2017_val").image_root == str(mini_root / "coco" / "val2017")


def test_perfect_detections_on_few_classes_have_ap_100(mini_root: Path, tmp_path: Path) -> None:
    from detectron2.data import DatasetCatalog
    from detectron2.structures import Boxes, Instances

    from transfer.datasets.prepared import Prepared
    from transfer.detection.datasets import register
    from transfer.detection.evaluators import VocEvaluator

    register(TransferJob(find_protocol("voc_c4"), mini_root, tmp_path), Prepared())
    evaluator = VocEvaluator("voc_2007_test")
    evaluator.reset()
    for record in DatasetCatalog.get("voc_2007_test"):
        found = Instances((record["height"], record["width"]))
        found.pred_boxes = Boxes(torch.tensor([thing["bbox"] for thing in record["annotations"]]))
        found.pred_classes = torch.tensor([thing["category_id"] for thing in record["annotations"]])
        found.scores = torch.ones(len(found.pred_classes))
        evaluator.process([record], [{"instances": found}])
    scores = evaluator.evaluate()["bbox"]
    assert 0 < scores["classes"] < 20
    assert scores["AP"] == pytest.approx(100)
    assert scores["AP75"] == pytest.approx(100)
