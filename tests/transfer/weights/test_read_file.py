"""Reading: which format, which branch, where each key goes, and what is refused."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import FRAMEWORKS, Backbone, check, load, read, save
from transfer.weights.models.networks import build_network
from transfer.weights.naming import is_counter


def same(a: Backbone, b: Backbone, counters: bool = True) -> bool:
    names = [name for name in a.state if counters or not is_counter(name)]
    return a.state.keys() == b.state.keys() and all(torch.equal(a.state[name], b.state[name]) for name in names)


def test_student_and_target_of_our_checkpoint(checkpoint, make_backbone):
    reading = read(checkpoint())
    assert (reading.format, reading.branch) == ("pixbench", "student")
    assert reading.backbone.spec == BackboneSpec(50, 1 / 16, output_stride=16)
    assert same(reading.backbone, make_backbone())
    assert reading.counts.converted == 318
    assert reading.counts.dropped == {"projector": 2, "momentum encoder backbone": 318, "EMA counter": 1}
    other = read(checkpoint(), branch="momentum_encoder")
    assert same(other.backbone, make_backbone(seed=1))
    assert other.counts.dropped["student backbone"] == 318


@pytest.mark.parametrize(
    ("framework", "width"),
    [("detectron2_c4", 0.25), ("detectron2_fpn", 0.25), ("mmseg", 0.25), ("huggingface", 0.25), ("torchvision", 1)],
)
def test_written_and_read_again_it_is_the_same_bit_for_bit(tmp_path, make_backbone, framework, width):
    backbone, path = make_backbone(width), tmp_path / f"x{FRAMEWORKS[framework].suffixes[0]}"
    written = save(backbone, path, framework)
    reading = read(path)
    assert reading.format == framework
    assert reading.backbone.spec == backbone.spec
    assert same(reading.backbone, backbone, counters=FRAMEWORKS[framework].counters)
    assert written.converted == reading.counts.converted == (318 if FRAMEWORKS[framework].counters else 265)
    if not FRAMEWORKS[framework].counters:  # dropped by design, and said so, on both ways
        assert written.dropped == {"num_batches_tracked": 53}
        assert reading.counts.initialised == {"BatchNorm counters": 53}
        assert all(reading.backbone.state[name] == 0 for name in reading.backbone.state if is_counter(name))


def test_the_order_in_memory_is_no_part_of_a_backbone(checkpoint, make_backbone):
    def channels_last(content):
        order = torch.channels_last
        content["model"] = {k: t.to(memory_format=order) if t.dim() == 4 else t for k, t in content["model"].items()}

    backbone = load(checkpoint(edit=channels_last))
    assert same(backbone, make_backbone())
    assert all(tensor.stride() == torch.empty(tensor.shape).stride() for tensor in backbone.state.values())


def test_same_backbone_same_bytes(tmp_path, make_backbone):
    for framework, suffix in (("detectron2_fpn", ".pkl"), ("mmseg", ".pth")):
        save(make_backbone(), tmp_path / f"a{suffix}", framework)
        save(make_backbone(), tmp_path / f"b{suffix}", framework)
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.fixture(scope="module")
def states():
    """The spec of a backbone, and the state dict of every method that takes it."""
    from tiny import ON_RESNETS

    spec = BackboneSpec(18, 1 / 16, 16)
    return spec, {
        name: method(build_network(spec), method.Config(), total_steps=10).state_dict()
        for name, method in ON_RESNETS.items()
    }


def test_every_method_of_this_project_can_be_read(tmp_path, states):
    """A new method with a new part must be entered in the list of what is dropped."""
    spec, states = states
    for name, state in states.items():
        path = tmp_path / f"{name}.pt"
        content = {"format": "pixbench-pretrain", "version": 1, "backbone": spec.as_dict(), "model": state}
        torch.save(content, path)
        reading = read(path)
        assert reading.counts.converted + sum(reading.counts.dropped.values()) == len(state), name


@pytest.mark.parametrize("container", [None, "model", "model_state_dict"])
def test_the_state_dict_of_every_method_of_this_project(tmp_path, states, container):
    for name, state in states[1].items():
        torch.save({container: state, "epoch": 1} if container else state, tmp_path / "x.pt")
        reading = read(tmp_path / "x.pt")
        assert reading.format == "pixbench_learner", name
        assert reading.counts.converted + sum(reading.counts.dropped.values()) == len(state), name
        assert torch.equal(reading.backbone.state["conv1.weight"], state["backbone.conv1.weight"]), name


def test_a_pixel_learner_of_this_project(tmp_path):
    from torchvision.models import resnet18

    from pretrain import PixelLearner

    learner = PixelLearner(resnet18(), 64, hidden_layer_pixel="layer4")
    torch.save({"model": learner.state_dict()}, tmp_path / "x.pt")
    for branch, prefix in (("student", "backbone.net."), ("momentum_encoder", "momentum_encoder.backbone.net.")):
        found = load(tmp_path / "x.pt", branch).state["layer2.0.conv1.weight"]
        assert torch.equal(found, learner.state_dict()[f"{prefix}layer2.0.conv1.weight"])


def test_the_branch_that_a_file_holds(tmp_path, make_backbone):
    state = make_backbone().state
    head = {"head.mlp.0.weight": torch.ones(2)}
    torch.save({"teacher": head | {f"backbone.{name}": tensor for name, tensor in state.items()}}, tmp_path / "x.pth")
    reading = read(tmp_path / "x.pth")
    assert (reading.format, reading.branch) == ("dino", "momentum_encoder")


def test_torchvisions_own_state_dict(tmp_path):
    from torchvision.models import resnet50

    state = resnet50().state_dict()
    torch.save(state, tmp_path / "new.pth")
    old = {name: tensor for name, tensor in state.items() if not is_counter(name)}  # as published before 2019
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("new.pth", "old.pth"):
        reading = read(tmp_path / name)
        assert reading.format == "torchvision"
        assert reading.counts.dropped == {"classifier": 2}
        assert torch.equal(reading.backbone.state["layer4.2.conv3.weight"], state["layer4.2.conv3.weight"])


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c["model"].pop("backbone.layer3.5.bn2.bias"), r"1 missing \(layer3\.5\.bn2\.bias\)"),
        (lambda c: c["model"].update({"neck.weight": torch.ones(1)}), r"1 unknown \(neck\.weight\)"),
        (lambda c: c["model"].update({"backbone.fc.weight": torch.ones(1)}), r"1 unknown \(backbone\.fc\.weight\)"),
        (
            lambda c: c["model"].update({"backbone.layer1.7.bn1.bias": torch.ones(16)}),
            r"stages of \(4, 4, 6, 3\) blocks",
        ),
        (
            lambda c: c["model"].update({"backbone.bn1.weight": torch.ones(8), "backbone.bn1.bias": torch.ones(1, 4)}),
            r"2 of the wrong shape \(bn1\.weight is \(8,\), should be \(4,\), bn1\.bias is \(1, 4\)",
        ),
        (lambda c: c["model"]["backbone.conv1.weight"].mul_(float("nan")), r"NaN or infinite values \(conv1\.weight\)"),
        (
            lambda c: c["model"]["backbone.bn1.running_var"].fill_(float("inf")),
            r"NaN or infinite values \(bn1\.running_var",
        ),
        (
            lambda c: c["model"].update({"backbone.bn1.weight": torch.ones(4).double() / 3}),
            r"bn1\.weight is float64",
        ),
        (lambda c: c["model"].update({"backbone.bn1.weight": "text"}), r"1 not a plain tensor \(bn1\.weight\)"),
        (
            lambda c: c["model"].update({"backbone.conv1.weight": torch.ones(24, 3, 7, 7)}),
            r"behind a stem of 24 channels the convolutions of layer1\.0 are \(4, 4, 1, 1\)",
        ),
        (
            lambda c: c["model"].update({"backbone.conv1.weight": torch.ones(1).expand(2**36, 3, 7, 7)}),
            "larger than their stored data",
        ),
        (
            lambda c: c["model"].update({"backbone.conv1.weight": torch.ones(0, 3, 7, 7)}),
            "is not a 4-D kernel of sizes",
        ),
        (lambda c: c["backbone"].update(width=0.5), "but its weights are those of"),
        (lambda c: c["backbone"].update(depth=20), "does not describe its backbone correctly"),
        (lambda c: c["backbone"].update(depth=18), "but its weights are those of"),
        (lambda c: c["backbone"].update(groups=32), "but its weights are those of"),
        (lambda c: c.pop("backbone"), "does not describe its backbone correctly"),
        (lambda c: c.update(version=3), "version 3"),
        (lambda c: c.update(model=[1]), r"of no known format\. It holds:\n  no tensors: format \(str\), version"),
        (lambda c: c.update(model={"projector.x": torch.ones(1)}), "of no known format"),
    ],
)
def test_what_is_wrong_is_named(checkpoint, edit, says):
    def on_copies(content):
        content["model"] = {name: tensor.clone() for name, tensor in content["model"].items()}
        edit(content)

    with pytest.raises(UserError, match=says):
        load(checkpoint(edit=on_copies))


def test_all_problems_are_in_one_error(make_backbone):
    state = dict(make_backbone().state)
    state["extra.weight"] = state.pop("bn1.weight")
    state["bn1.bias"] = torch.ones(3)
    with pytest.raises(
        UserError, match=r"1 missing \(bn1\.weight\); 1 unexpected \(extra\.weight\); 1 of the wrong shape"
    ):
        check(Backbone(BackboneSpec(50, 1 / 16), state, "x"))


def test_only_some_counters_is_not_a_whole_backbone(checkpoint):
    with pytest.raises(UserError, match=r"1 missing \(layer4\.2\.bn3\.num_batches_tracked\)"):
        load(checkpoint(edit=lambda c: c["model"].pop("backbone.layer4.2.bn3.num_batches_tracked")))


def without_momentum_encoder(content):
    content["model"] = {k: v for k, v in content["model"].items() if not k.startswith("momentum_encoder")}


def test_a_branch_that_is_not_there(checkpoint, tmp_path, make_backbone):
    with pytest.raises(UserError, match="holds no momentum_encoder backbone"):
        load(checkpoint(edit=without_momentum_encoder), "momentum_encoder")
    save(make_backbone(), tmp_path / "x.pth", "mmseg")
    with pytest.raises(UserError, match="has no branch 'momentum_encoder'"):
        load(tmp_path / "x.pth", "momentum_encoder")


@pytest.mark.parametrize(
    "content", [[1, 2], {"a": 1}, {}, 7, {"state_dict": {"head.x": 1}}, {"model": {}, "__author__": 1}]
)
def test_foreign_content(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"(?s)of no known format\. It holds:\n  no tensors.*docs/weights\.md"):
        load(tmp_path / "x.pth")


def test_a_detector_is_not_taken_for_a_backbone(tmp_path, make_backbone):
    save(make_backbone(), tmp_path / "x.pkl", "detectron2_fpn")
    content = pickle.loads((tmp_path / "x.pkl").read_bytes())
    content["model"]["backbone.fpn_lateral2.weight"] = np.ones(3, np.float32)
    del content["pixbench"]["sha256"]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"1 unexpected \(fpn\.lateral2\.weight\)"):
        load(tmp_path / "x.pkl")


def test_importing_costs_no_framework():
    script = (
        "import sys; from benchmarks.commands import convert, weights; assert 'torch' not in sys.modules; "
        "import transfer.weights.conversion, transfer.weights.models.load_into; "
        "bad = {'detectron2', 'mmseg', 'mmcv', 'mmengine', 'torchvision'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
