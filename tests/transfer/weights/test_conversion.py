"""From file to file with proof: what the command prints and stores, and that the proof can fail."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import resource
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.commands import convert as convert_command
from benchmarks.commands import weights as weights_command
from pixbench.errors import UserError, run_command
from pixbench.files import sha256
from pretrain.models.backbone_spec import STAGES, BackboneSpec
from transfer.weights import FRAMEWORKS, Backbone, convert, load, read, save, verify
from transfer.weights.file_format import Pixels
from transfer.weights.models.networks import build_network
from transfer.weights.models.parity import BOUND, compare, probe
from transfer.weights.naming import Naming, is_counter
from transfer.weights.vit_spec import VitSpec

pytestmark = pytest.mark.slow


def pixbench(*words: object, command: tuple[str, ...] = ("convert",)) -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for module in (convert_command, weights_command):
        module.register(commands)
    args = parser.parse_args([*command, *map(str, words)])
    return run_command(lambda: args.run(args), name="pixbench")


BUILDERS = {
    "detectron2_fpn": ("--to", "detectron2"),
    "detectron2_c4": ("--to", "detectron2", "--detector", "c4"),
    "mmseg": ("--to", "mmseg"),
}


@pytest.mark.frameworks
@pytest.mark.parametrize("framework", BUILDERS)
def test_the_command_converts_and_proves(tmp_path, capfd, checkpoint, make_backbone, framework):
    source, output = checkpoint(0.25), tmp_path / "out" / f"backbone{FRAMEWORKS[framework].suffixes[0]}"
    assert pixbench(source, *BUILDERS[framework], "-o", output) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert "PixBench pre-training checkpoint, student branch" in said.out
    assert "ResNet-50 of width 0.25" in said.out
    assert (
        "318 converted, 321 dropped on purpose (2 projector, 318 momentum encoder backbone, 1 EMA counter)" in said.out
    )
    assert all(stage in said.out for stage in STAGES)
    assert "every tensor equal" in said.out

    assert sorted(p.name for p in output.parent.iterdir()) == [output.name, f"{output.name}.json"]
    record = json.loads((tmp_path / "out" / f"{output.name}.json").read_text())
    assert record["source"]["sha256"] == sha256(source)
    assert record["source"]["backbone"] == BackboneSpec(50, 0.25, 16).as_dict()
    assert record["output"]["sha256"] == sha256(output)
    assert record["output"]["framework"] == framework
    assert record["parity"]["ok"] is True
    assert set(record["parity"]["stages"]) == set(STAGES)
    assert all(stage["relative"] <= BOUND for stage in record["parity"]["stages"].values())
    assert record["parity"]["silent"] == []

    back = load(output)
    names = [name for name in back.state if FRAMEWORKS[framework].counters or not is_counter(name)]
    assert all(torch.equal(back.state[name], make_backbone(0.25).state[name]) for name in names)


@pytest.fixture(scope="module")
def full_width(tmp_path_factory, make_backbone) -> Path:
    path = tmp_path_factory.mktemp("full") / "resnet50.pth"
    save(make_backbone(1), path, "torchvision")
    return path


WIDE, NARROW = BackboneSpec(50, 1), BackboneSpec(50, 0.25)
EVERY_TARGET = [
    ("detectron2_c4", WIDE),
    ("detectron2_c4", replace(NARROW, stride_in_1x1=True)),
    ("detectron2_fpn", NARROW),
    ("mmseg", NARROW),
    ("mmseg", replace(NARROW, stride_in_1x1=True)),
    ("mmseg", replace(NARROW, stem="deep")),
    ("mmseg", replace(NARROW, stem="deep", avg_down=True)),
    ("mmdet", NARROW),
    ("mmpretrain", NARROW),
    ("torchvision", WIDE),
    ("timm", WIDE),
    ("timm", replace(WIDE, stem="deep")),
    ("timm", replace(WIDE, stem="deep", avg_down=True)),
    ("huggingface", NARROW),
    ("huggingface", replace(NARROW, stride_in_1x1=True)),
    ("detectron2_vitdet", VitSpec(128, 3, 2, 16, 64)),
]


IN_BOTH_SUFFIXES = [
    (framework, spec, suffix)
    for framework, spec in EVERY_TARGET
    for suffix in (FRAMEWORKS[framework].suffixes[0], ".safetensors")
    if suffix != ".safetensors" or spec != WIDE or framework == "timm"  # the wide ones are slow: one stands for all
]


def by_default(framework: str, spec: BackboneSpec | VitSpec, suffix: str) -> bool:
    """Whether a case is in the default tests: a target's first suffix, and a wide network only where there is no other."""
    first = next(one for name, one in EVERY_TARGET if name == framework)
    narrow = any(name == framework and one.width != 1 for name, one in EVERY_TARGET)
    usual = suffix == FRAMEWORKS[framework].suffixes[0] or (framework, spec) == ("mmseg", NARROW)
    return usual and (spec.width != 1 if narrow else spec == first)


def test_every_framework_is_among_them():
    assert {name for name, _ in EVERY_TARGET} == set(FRAMEWORKS)
    assert {case[0] for case in IN_BOTH_SUFFIXES if by_default(*case)} == set(FRAMEWORKS)


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("framework", "spec", "suffix"),
    [pytest.param(*case, marks=() if by_default(*case) else pytest.mark.e2e) for case in IN_BOTH_SUFFIXES],
    ids=lambda value: getattr(value, "title", value),
)
def test_every_target_computes_the_same_and_gives_the_backbone_back(tmp_path, backbone_of, framework, spec, suffix):
    """Source -> target -> source; the neutral file in between is one that any backbone of the kind can be written to."""
    backbone, neutral = backbone_of(spec), "detectron2_vitdet" if isinstance(spec, VitSpec) else "mmseg"
    source, target, back = (
        tmp_path / f"{name}{FRAMEWORKS[neutral].suffixes[0]}" for name in ("source", "momentum_encoder", "back")
    )
    target = target.with_suffix(suffix)
    save(backbone, source, neutral)
    done = convert(source, target, framework)
    assert done.parity.ok
    assert max(difference.relative for difference in done.parity.stages.values()) <= 1e-5
    convert(target, back, neutral, check_forward=False)
    reading = read(back)
    assert reading.backbone.spec == spec
    kept = [name for name in backbone.state if FRAMEWORKS[framework].counters or not is_counter(name)]
    assert all(torch.equal(reading.backbone.state[name], backbone.state[name]) for name in kept)


@pytest.mark.frameworks
@pytest.mark.parametrize("framework", ["detectron2_c4", "mmseg", "huggingface"])
def test_the_file_tells_its_framework(tmp_path, make_backbone, framework):
    path = tmp_path / f"x{FRAMEWORKS[framework].suffixes[0]}"
    save(make_backbone(0.25), path, framework)
    assert verify(make_backbone(0.25), path).framework == framework
    assert not verify(make_backbone(0.25, seed=1), path).ok


def test_a_file_of_no_framework_runs_in_our_own_network(checkpoint, make_backbone):
    parity = verify(make_backbone(0.25), checkpoint(0.25))
    assert parity.ok
    assert parity.framework is None
    assert set(parity.stages) == set(STAGES)
    assert not verify(make_backbone(0.25, seed=1), checkpoint(0.25)).ok
    with pytest.raises(
        UserError, match=r"holds a ResNet-50 of width 0.25, .* a ResNet-50 of width 0.0625.*different networks"
    ):
        verify(make_backbone(), checkpoint(0.25))


@pytest.mark.frameworks
def test_weights_verify(tmp_path, capsys, checkpoint, make_backbone):
    path, record = tmp_path / "x.pkl", tmp_path / "x.pkl.verified.json"
    save(make_backbone(0.25), path, "detectron2_fpn")
    assert pixbench(checkpoint(0.25), path, command=("weights", "verify")) == 0
    said = capsys.readouterr().out
    assert all(stage in said for stage in STAGES)
    assert "verified in Detectron2 R-CNN FPN: every tensor equal, maps within a relative difference of 1e-05" in said
    found = json.loads(record.read_text())
    assert (found["source"]["sha256"], found["output"]["sha256"]) == (sha256(checkpoint(0.25)), sha256(path))
    assert found["parity"]["ok"] is True
    assert pixbench("--branch", "momentum_encoder", checkpoint(0.25), path, command=("weights", "verify")) == 2
    assert "x.pkl does not reproduce the backbone in Detectron2 R-CNN FPN: stem differs by" in capsys.readouterr().err
    assert json.loads(record.read_text())["parity"]["ok"] is False


@pytest.mark.frameworks
def test_target_branch(tmp_path, checkpoint, make_backbone):
    convert(checkpoint(), tmp_path / "a.pkl", "detectron2_c4", "momentum_encoder")
    back, wanted = load(tmp_path / "a.pkl").state, make_backbone(seed=1).state
    assert all(torch.equal(back[name], wanted[name]) for name in wanted if not is_counter(name))


@pytest.mark.parametrize(
    ("framework", "spec", "pixels", "says"),
    [
        (
            "detectron2_fpn",
            replace(NARROW, stem="deep"),
            {},
            "backbones of variant 7x7, not deep; convert it with --to mmseg",
        ),
        ("huggingface", replace(WIDE, stem="deep"), {}, "backbones of variant 7x7, not deep"),
        ("detectron2_c4", VitSpec(128, 3, 2, 16, 64), {}, "not ViT; convert it with --to detectron2 --detector vitdet"),
        ("mmpretrain", replace(NARROW, stem="deep"), {}, "MMPretrain classifier supports backbones of variant 7x7"),
        ("torchvision", replace(WIDE, stride_in_1x1=True), {}, "no stride in the first 1×1 convolution"),
        ("timm", replace(WIDE, stride_in_1x1=True), {}, "no stride in the first 1×1 convolution"),
        (
            "timm",
            NARROW,
            {},
            r"no backbone of width 0\.25.*; convert it with --to detectron2 --detector fpn or .*--to huggingface",
        ),
        ("torchvision", WIDE, {"std": (1.0, 1.0, 1.0)}, "no pixels other than RGB, mean 123.675"),
    ],
)
def test_what_a_target_cannot_express_is_refused(tmp_path, framework, spec, pixels, says):
    backbone = Backbone(spec, {}, "test", pixels=Pixels(**pixels))
    with pytest.raises(UserError, match=says):
        save(backbone, tmp_path / f"x{FRAMEWORKS[framework].suffixes[0]}", framework)
    assert not list(tmp_path.iterdir())


MSRA = Pixels("BGR", Pixels().mean[::-1], Pixels().std[::-1])


def test_a_bgr_backbone_becomes_rgb_where_that_is_no_setting(tmp_path, make_backbone):
    backbone = replace(make_backbone(1), pixels=MSRA)
    save(backbone, tmp_path / "x.pth", "torchvision")
    back = load(tmp_path / "x.pth")
    assert back.pixels == Pixels()
    images, nets = torch.rand(1, 3, 64, 64), [build_network(BackboneSpec(50, 1)).eval() for _ in range(2)]
    for net, weights in zip(nets, (backbone, back), strict=True):
        net.load_state_dict(weights.state)
    assert compare(nets[0](images.flip(1)), nets[1](images)).ok
    assert verify(backbone, tmp_path / "x.pth", "torchvision").ok


def test_the_same_tensors_for_other_pixels_are_not_the_same_backbone(tmp_path, capsys, checkpoint, make_backbone):
    """And the command says which pixels each takes, whether or not B is of a framework."""
    backbone, bgr = make_backbone(0.25), Pixels("BGR", Pixels().mean[::-1], (1.0, 1.0, 1.0))
    for name, pixels in (("rgb", Pixels()), ("bgr", bgr)):
        save(replace(backbone, pixels=pixels), tmp_path / f"{name}.pth", "mmseg")
    for a, b in (("rgb.pth", "bgr.pth"), ("bgr.pth", "rgb.pth"), ("bgr.pth", checkpoint(0.25).name)):
        assert pixbench(tmp_path / a, tmp_path / b, command=("weights", "verify")) == 2
        said = capsys.readouterr().err
        needs = "(RGB|BGR), mean .*"
        assert re.search(rf"{b} needs input pixels {needs} but .*{a} needs {needs}; choose the format", said)
    assert not list(tmp_path.glob("*.json"))


def test_a_bgr_backbone_and_what_it_became_in_rgb_are_the_same(tmp_path, make_backbone):
    backbone = replace(make_backbone(1), pixels=MSRA)
    save(backbone, tmp_path / "x.pth", "torchvision")
    assert verify(backbone, tmp_path / "x.pth").ok
    assert not verify(replace(backbone, pixels=Pixels()), tmp_path / "x.pth").ok  # the first convolution differs


@pytest.mark.parametrize("framework", ["detectron2_c4", "mmseg"])
def test_pixels_travel_with_the_file_where_they_are_a_setting(tmp_path, make_backbone, framework):
    backbone = replace(make_backbone(), pixels=Pixels("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)))
    for suffix in (FRAMEWORKS[framework].suffixes[0], ".safetensors"):
        save(backbone, tmp_path / f"x{suffix}", framework)
        assert load(tmp_path / f"x{suffix}").pixels == backbone.pixels


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_others_may_read_the_file_if_they_may_read_new_files(tmp_path, make_backbone, suffix):
    (tmp_path / "new").touch()
    save(make_backbone(), tmp_path / f"x{suffix}", "mmseg")
    assert (tmp_path / f"x{suffix}").stat().st_mode == (tmp_path / "new").stat().st_mode


@pytest.mark.frameworks
def test_mmsegs_own_segmentor_takes_the_file(tmp_path, make_backbone, real_model):
    from mmengine.runner import load_checkpoint

    backbone = make_backbone(0.25)
    save(backbone, tmp_path / "x.pth", "mmseg")
    model = real_model("mmseg", backbone.spec)
    load_checkpoint(model, str(tmp_path / "x.pth"), map_location="cpu")
    assert all(torch.equal(model.state_dict()[f"backbone.{name}"], tensor) for name, tensor in backbone.state.items())


def test_torchvisions_own_resnet_takes_the_file_but_for_the_classifier(full_width):
    from torchvision.models import resnet50

    result = resnet50().load_state_dict(torch.load(full_width, weights_only=True), strict=False)
    assert result.missing_keys == ["fc.weight", "fc.bias"]
    assert result.unexpected_keys == []


def _tampered(path: Path, change) -> None:
    content = pickle.loads(path.read_bytes())
    change(content["model"])
    path.write_bytes(pickle.dumps(content, 4))


def _swap(state: dict, a: str, b: str) -> None:
    state[a], state[b] = state[b], state[a]


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("change", "stages"),
    [
        (lambda s: _swap(s, *(f"backbone.res4.5.conv{i}.norm.running_mean" for i in (1, 2))), STAGES[3:]),
        (lambda s: _swap(s, *(f"backbone.res3.1.conv3.norm.{leaf}" for leaf in ("weight", "running_var"))), STAGES[2:]),
        (lambda s: _swap(s, *(f"backbone.stem.conv1.norm.{leaf}" for leaf in ("weight", "running_var"))), STAGES),
        (lambda s: s.update({k: s[k].swapaxes(2, 3) for k in ["backbone.res2.2.conv2.weight"]}), STAGES[1:]),
        (lambda s: s.update({k: s[k].swapaxes(0, 1) for k in ["roi_heads.res5.2.conv2.weight"]}), STAGES[4:]),
        (lambda s: s.update({k: s[k][:, ::-1] for k in ["backbone.stem.conv1.weight"]}), STAGES),  # BGR
        (lambda s: s.pop("roi_heads.res5.2.conv3.norm.running_var"), STAGES[4:]),
    ],
)
def test_the_proof_fails_in_the_stages_a_change_reaches(tmp_path, make_backbone, change, stages):
    path = tmp_path / "x.pkl"
    save(make_backbone(0.25), path, "detectron2_c4")
    _tampered(path, change)
    parity = verify(make_backbone(0.25), path, "detectron2_c4")
    assert not parity.ok
    assert [stage for stage, difference in parity.stages.items() if not difference.ok] == list(stages)
    assert 1 <= len(parity.unequal) <= 2
    with pytest.raises(UserError, match=rf"x\.pkl does not reproduce the backbone .*{stages[0]} differs by"):
        parity.require(path)


@pytest.fixture
def wrong_map(monkeypatch):
    """A name map that is a bijection and fits all shapes, and yet is wrong: two norms of each block are exchanged."""
    real = FRAMEWORKS["detectron2_fpn"].variants["7x7"]
    block = {f"conv{i}": f"conv{i}" for i in (1, 2, 3)} | {
        "bn1": "conv2.norm",
        "bn2": "conv1.norm",
        "bn3": "conv3.norm",
    }
    names = Naming(
        {"conv1": "backbone.bottom_up.stem.conv1", "bn1": "backbone.bottom_up.stem.conv1.norm"},
        real.stages,
        block | {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"},
    )
    monkeypatch.setitem(FRAMEWORKS, "detectron2_fpn", replace(FRAMEWORKS["detectron2_fpn"], variants={"7x7": names}))


@pytest.mark.frameworks
def test_a_wrong_name_map_is_caught_by_the_maps_alone(tmp_path, checkpoint, wrong_map):
    output = tmp_path / "out.pkl"
    with pytest.raises(UserError, match="layer1 differs by") as error:
        convert(checkpoint(), output, "detectron2_fpn")
    assert "tensors differ from the backbone's" not in str(error.value)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.frameworks
def test_what_was_there_survives_a_failure(tmp_path, checkpoint, wrong_map):
    output, record = tmp_path / "out.pkl", tmp_path / "out.pkl.json"
    output.write_bytes(b"precious")
    record.write_text("precious too")
    assert pixbench(checkpoint(), "--to", "detectron2", "-o", output) == 2
    assert output.read_bytes() == b"precious"
    assert record.read_text() == "precious too"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "out.pkl", "out.pkl.json"]


def test_a_bad_source_leaves_the_output_alone(tmp_path, checkpoint, capsys):
    source, output = checkpoint(), tmp_path / "out.pkl"
    output.write_bytes(b"precious")
    source.write_bytes(source.read_bytes()[:-1000])
    assert pixbench(source, "--to", "detectron2", "-o", output) == 2
    said = capsys.readouterr().err
    assert "truncated or damaged" in said
    assert "Traceback" not in said
    assert output.read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "out.pkl"]


@pytest.mark.parametrize(
    ("target", "name"), [("detectron2", "x.pkl"), ("mmseg", "x.pth"), ("huggingface", "x.safetensors")]
)
def test_a_disk_that_is_full(tmp_path, checkpoint, capsys, target, name):
    source, (soft, hard) = checkpoint(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no file may grow beyond this
    try:
        assert pixbench(source, "--to", target, "-o", tmp_path / name, "--no-verify") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--to", "detectron2", "-o", "x.pth"), r"files end in \.pkl"),
        (("--to", "mmseg", "-o", "x.pkl"), r"files end in \.pth or \.pt"),
        (("--to", "mmseg", "--detector", "c4", "-o", "x.pth"), "does not apply to mmseg"),
        (("--to", "torchvision", "-o", "x.pth"), "a torchvision ResNet supports no backbone of width 0.0625"),
        (("--to", "mmseg", "-o", "checkpoint.pt"), "is the source and would be overwritten"),
        (("--to", "mmseg", "-o", "folder.pth"), "is a folder"),
        (("--to", "mmseg", "--branch", "momentum_encoder", "-o", "x.pth"), "holds no momentum_encoder backbone"),
    ],
)
def test_what_the_command_refuses(tmp_path, monkeypatch, capsys, checkpoint, words, says):
    (tmp_path / "folder.pth").mkdir()
    checkpoint(edit=lambda c: [c["model"].pop(k) for k in list(c["model"]) if k.startswith("momentum_encoder")])
    monkeypatch.chdir(tmp_path)
    assert pixbench("checkpoint.pt", *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("pixbench: error: ")
    assert re.search(says, said)
    assert not (tmp_path / "x.pth").exists()


def test_without_verification_no_framework_is_needed(tmp_path, checkpoint, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("detectron2.")] + ["detectron2"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert pixbench(checkpoint(), "--to", "detectron2", "-o", tmp_path / "x.pkl", "--no-verify") == 0
    assert "verified no" in capsys.readouterr().out
    assert json.loads((tmp_path / "x.pkl.json").read_text())["parity"] is None
    assert pixbench(checkpoint(), "--to", "detectron2", "-o", tmp_path / "y.pkl") == 2
    assert "--no-verify" in capsys.readouterr().err
    assert not (tmp_path / "y.pkl").exists()


@pytest.mark.frameworks
def test_blocks_that_compute_nothing_are_named(tmp_path, make_backbone):
    state = {n: torch.zeros_like(t) if n.endswith("2.bn3.weight") else t for n, t in make_backbone().state.items()}
    backbone = Backbone(make_backbone().spec, state, "test")
    save(backbone, tmp_path / "x.pth", "mmseg")
    parity = verify(backbone, tmp_path / "x.pth", "mmseg")
    assert parity.ok
    assert parity.silent == [f"layer{i}.2" for i in (1, 2, 3, 4)]


def test_verification_leaves_the_random_state_alone(full_width, make_backbone):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    assert verify(make_backbone(1), full_width, "torchvision").ok
    assert torch.equal(torch.rand(3), wanted)


def test_a_file_of_other_names_does_not_load(tmp_path, make_backbone):
    torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="does not load as torchvision"):
        verify(make_backbone(1), tmp_path / "x.pth", "torchvision")


def test_compare():
    ones = torch.ones(1, 2, 3, 3)
    assert compare(ones, ones).ok
    assert not compare(ones + 2 * BOUND, ones).ok
    assert not compare(1e-3 * ones + 1e-6, 1e-3 * ones).ok  # small maps do not slip through
    assert not compare(ones * float("nan"), ones).ok
    assert not compare(ones, ones * float("nan")).ok
    assert not compare(0 * ones, 0 * ones).ok  # a map of zeros proves nothing
    assert not compare(ones[..., :2], ones).ok


def test_probe_is_always_the_same_and_like_a_normalised_image():
    images = probe()
    assert torch.equal(images, probe())
    assert images.shape == (2, 3, 64, 96)
    assert 0.5 < images.std() < 1.5
