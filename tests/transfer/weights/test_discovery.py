"""Files of no known format: every complete backbone is found by its own names, and nothing is left out in silence."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_format import behind, detectron2, linear, norm, sequential
from torch import Tensor, nn

from benchmarks.commands.main import main
from pixbench.errors import UserError
from transfer.weights import Backbone, inspection, load, read

State = dict[str, Tensor]
FSDP = "_fsdp_wrapped_module"


@pytest.fixture(scope="module")
def one(make_backbone: Callable[..., Backbone]) -> State:
    return make_backbone().state


@pytest.fixture(scope="module")
def two(make_backbone: Callable[..., Backbone]) -> State:
    return make_backbone(seed=1).state


def wrapped(state: State, inside: str, wrapper: str) -> State:
    return {name.replace(inside, f"{inside}{wrapper}."): tensor for name, tensor in state.items()}


def same(path: Path, wanted: State, **choice: Any) -> bool:
    found = read(path, **choice).backbone.state
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


BY_THEMSELVES: dict[str, Callable[[State], Any]] = {
    "a prefix": lambda s: {"state_dict": behind("model.", s)},
    "two prefixes": lambda s: behind("net.resnet.", s),
    "a container": lambda s: {"model_state_dict": s, "optimizer_state_dict": {}, "loss": 0.1},
    "containers in containers": lambda s: {"checkpoint": {"weights": {"student": behind("encoder.", s)}}},
    "Detectron2's names": lambda s: {"net": behind("trunk.", {n: torch.tensor(a) for n, a in detectron2(s).items()})},
    "names of nn.Sequential": lambda s: {"net": behind("features.", sequential(s))},
    "an official PixPro file that was stripped": lambda s: {"model": behind("module.encoder.", s)},
    "torch.compile within a module": lambda s: {"state_dict": behind("model._orig_mod.", s)},
    "DistributedDataParallel within a module": lambda s: {"model": behind("encoder.module.", s)},
    "FSDP and compile": lambda s: {"model": behind("_fsdp_wrapped_module._orig_mod.", wrapped(s, "layer2.", FSDP))},
    "activation checkpointing": lambda s: {"state_dict": wrapped(s, "layer3.", "_checkpoint_wrapped_module")},
    "a classifier in the backbone's names": lambda s: behind("net.", s | linear("fc", "head.0", "last_linear")),
    "an average alone": lambda s: {"n_averaged": torch.tensor(5), **behind("module.", s)},
    "a teacher alone": lambda s: {"teacher": s, "epoch": 3},
    "an average in a container": lambda s: {"ema": behind("module.", s), "step": 3},
    "weights beside an average": lambda s: {"net": s, "ema": {name: tensor + 1 for name, tensor in s.items()}},
}  # fmt: skip


@pytest.mark.parametrize("title", BY_THEMSELVES)
def test_the_only_backbone_is_taken_by_itself(tmp_path: Path, one: State, title: str) -> None:
    torch.save(BY_THEMSELVES[title](one), tmp_path / "x.pth")
    assert same(tmp_path / "x.pth", one)


def test_a_network_that_was_saved_whole(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    model = resnet18()
    torch.save({"model": nn.DataParallel(model), "epoch": 3}, tmp_path / "x.pth")
    reading = read(tmp_path / "x.pth")
    wanted = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}
    assert all(torch.equal(reading.backbone.state[name], tensor) for name, tensor in wanted.items())
    assert reading.dropped == {"classifier": ["model/module.fc.weight", "model/module.fc.bias"]} or reading.dropped
    assert "torchvision.models.resnet.ResNet" in reading.asked


@pytest.mark.parametrize(
    ("choice", "which"),
    [
        ({"prefix": "module.encoder."}, 0),
        ({"prefix": "encoder"}, 0),
        ({"prefix": "module.target.net."}, 1),
        ({"container": "weights", "prefix": "target.net."}, 1),
    ],
)
def test_a_prefix_takes_one_of_several_and_names_the_rest(
    tmp_path: Path, one: State, two: State, choice: dict[str, str], which: int
) -> None:
    content = behind("module.", behind("encoder.", one) | behind("target.net.", two) | linear("projector.0", "centers"))
    torch.save({"weights": content, "epoch": 1}, tmp_path / "x.pth")
    with pytest.raises(UserError) as error:
        load(tmp_path / "x.pth")
    assert "weights: module.* (640)" in str(error.value)
    assert "--container weights --prefix module.encoder.: ResNet-50 of width 0.0625, 318 tensors" in str(error.value)
    assert "--container weights --prefix module.target.net.: ResNet-50" in str(error.value)
    assert same(tmp_path / "x.pth", (one, two)[which], **choice)
    left_out = read(tmp_path / "x.pth", **choice).dropped["beside the backbone"]
    assert len(left_out) == 318 + 4
    assert {"module.projector.0.weight", "module.centers.bias"} <= set(left_out)


def test_what_stands_within_the_backbone_is_never_left_out(tmp_path: Path, one: State) -> None:
    torch.save(behind("net.", one | linear("layer1.0.se.fc1", "projector")), tmp_path / "x.pth")
    for choice in ({}, {"prefix": "net."}):
        with pytest.raises(UserError, match=r"squeeze-and-excitation \((net\.)?layer1\.0\.se\.fc1\.weight\)"):
            read(tmp_path / "x.pth", **choice)


def test_a_backbone_that_is_not_complete_says_what_it_lacks(tmp_path: Path, one: State) -> None:
    torch.save({"net": {k: t for k, t in behind("a.", one).items() if "layer4.2.bn3" not in k}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"No backbone in it is complete:\n.*it lacks layer4\.2\.bn3\.weight"):
        load(tmp_path / "x.pth")
    with pytest.raises(
        UserError, match=r"no backbone for --prefix 'a\.' that can be converted: it lacks layer4\.2\.bn3"
    ):
        load(tmp_path / "x.pth", prefix="a.")
    with pytest.raises(UserError, match=r"no backbone for --prefix 'b\.'; it holds:\n  --container net --prefix a\."):
        load(tmp_path / "x.pth", prefix="b.")


@pytest.mark.parametrize("name", ["resnet18d", "resnet50d"])
def test_averaged_shortcuts_under_a_prefix(tmp_path: Path, name: str) -> None:
    import timm

    torch.save({"net": behind("model.", timm.create_model(name, num_classes=0).state_dict())}, tmp_path / "x.pth")
    for choice in ({}, {"prefix": "model."}):
        reading = read(tmp_path / "x.pth", **choice)
        assert reading.format == "prefix"
        assert reading.backbone.resnet.avg_down


def test_a_place_and_a_branch_exclude_each_other(tmp_path: Path, one: State) -> None:
    torch.save(one, tmp_path / "x.pth")
    with pytest.raises(UserError, match="leave out --branch"):
        read(tmp_path / "x.pth", prefix="", branch="momentum_encoder")


def test_what_the_format_knows_holds_for_the_prefix_too(tmp_path: Path, one: State) -> None:
    """An unknown key must not turn BGR into RGB, nor strides in the 1×1 into strides in the 3×3."""
    caffe = (
        "style='caffe')), data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)"
    )
    state = behind("backbone.", one) | linear("roi_head.fc", "mystery")
    torch.save({"meta": {"cfg": f"backbone=dict(type='ResNet', {caffe}"}, "state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"--container state_dict --prefix backbone\."):
        load(tmp_path / "x.pth")
    backbone = load(tmp_path / "x.pth", prefix="backbone.")
    assert backbone.resnet.stride_in_1x1
    assert backbone.pixels.order == "BGR"
    detector = {
        "model": {f"backbone.bottom_up.{n}": torch.tensor(a) for n, a in detectron2(one).items()}
        | linear("roi_heads.x")
    }
    torch.save(detector, tmp_path / "y.pth")
    with pytest.raises(UserError, match="add --from detectron2_fpn_own or --from detectron2_fpn_zoo"):
        load(tmp_path / "y.pth", prefix="backbone.bottom_up.")
    taken = load(tmp_path / "y.pth", format_name="detectron2_fpn_zoo", prefix="backbone.bottom_up.")
    assert taken.resnet.stride_in_1x1
    with pytest.raises(UserError, match="there is no format 'nonsense'"):
        load(tmp_path / "y.pth", format_name="nonsense", prefix="backbone.bottom_up.")


def test_what_the_configuration_says_holds_if_a_classifier_stands_beside(tmp_path: Path, one: State) -> None:
    caffe = "style='caffe', mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0]"
    torch.save({"meta": {"cfg": caffe}, "state_dict": behind("backbone.", one | linear("fc"))}, tmp_path / "x.pth")
    backbone = load(tmp_path / "x.pth")
    assert backbone.resnet.stride_in_1x1
    assert backbone.pixels.order == "BGR"


def test_a_format_that_is_no_text(tmp_path: Path, one: State) -> None:
    content = {"model": {name: tensor.numpy() for name, tensor in one.items()}, "format": np.zeros(2)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    assert same(tmp_path / "x.pkl", one)


def test_a_pre_training_checkpoint_keeps_what_it_declares(
    tmp_path: Path, make_backbone: Callable[..., Backbone]
) -> None:
    spec = {**make_backbone(stem="deep").spec.as_dict(), "stride_in_1x1": True}
    model = behind("backbone.", make_backbone(stem="deep").state) | linear("projector.0")
    content = {"format": "pixbench-pretrain", "version": 2, "backbone": spec, "model": model}
    torch.save(content | {"exports": ["backbone"], "left_behind": ["projector"]}, tmp_path / "x.pt")
    for choice in ({}, {"prefix": "backbone."}, {"container": "model"}):
        reading = read(tmp_path / "x.pt", **choice)
        assert reading.backbone.resnet.stride_in_1x1
    assert read(tmp_path / "x.pt").format == "pixbench"  # though VICReg's files have such a projector


@pytest.mark.parametrize(
    "content", [lambda s: (s, 3), lambda s: {"models": [s]}, lambda s: {0: s, 1: 3}, lambda s: {"a/b": s}]
)
def test_unusual_containers(tmp_path: Path, one: State, content: Callable[[State], Any]) -> None:
    torch.save(content(one), tmp_path / "x.pth")
    assert same(tmp_path / "x.pth", one)


def test_what_stands_beside_inner_containers_is_named(tmp_path: Path, one: State) -> None:
    torch.save(
        {"model": {"backbone": one, "projector": linear("a")}, "log": {i: i for i in range(200_000)}},
        tmp_path / "x.pth",
    )
    assert read(tmp_path / "x.pth").beside == ["log", "model/projector"]


def test_an_average_takes_the_place_of_the_weights(tmp_path: Path, one: State, two: State) -> None:
    for other in ({"params": {"lr": 0.1}}, {"encoder": {"a": torch.ones(2)}}):
        torch.save({**other, "model": one, "ema": two}, tmp_path / "x.pth")
        assert same(tmp_path / "x.pth", two, branch="ema")


def test_two_backbones_are_never_chosen_between(tmp_path: Path, one: State, two: State) -> None:
    torch.save({"student": one, "teacher": two}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"--container student: ResNet-50.*\n  --container teacher: ResNet-50"):
        load(tmp_path / "x.pth")
    assert same(tmp_path / "x.pth", two, container="teacher")
    with pytest.raises(UserError, match="several complete backbones for --prefix ''"):
        load(tmp_path / "x.pth", prefix="")


AVERAGES = {
    "timm": lambda a, b: {"arch": "resnet50", "state_dict": a, "state_dict_ema": b, "epoch": 1},
    "torchvision": lambda a, b: {"model": a, "model_ema": {"n_averaged": torch.tensor(9), **behind("module.", b)}},
    "a program of one's own": lambda a, b: {"net": behind("m.", a), "ema": {"state_dict": behind("m.", b)}, "step": 2},
    "Lightning's callback": lambda a, b: {
        "state_dict": behind("model.", a),
        "callbacks": {"EMA": {"decay": 0.9, "ema_state_dict": behind("model.", b)}},
    },
    "MoCo's names": lambda a, b: {
        "state_dict": behind("module.encoder_q.", a) | linear("module.encoder_q.fc"),
        "ema_state_dict": behind("module.encoder_q.", b) | linear("module.encoder_q.fc"),
    },
}


@pytest.mark.parametrize("title", AVERAGES)
def test_the_average_beside_the_weights_is_named_and_taken_on_request(
    tmp_path: Path, one: State, two: State, title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pth"
    torch.save(AVERAGES[title](one, two), path)
    assert same(path, one)
    assert same(path, two, branch="ema")
    assert main(["convert", str(path), "--to", "mmseg", "-o", str(tmp_path / "y.pth"), "--no-verify"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"average  [\w/]*ema[\w/]* was not taken; --branch ema takes it", printed)
    assert main(["weights", "inspect", str(path)]) == 0
    assert re.search(r"average  [\w/]*ema[\w/]*, by --branch ema", capsys.readouterr().out)


def test_mmengine_swaps_the_average_into_the_weights(tmp_path: Path, one: State, two: State) -> None:
    content = {"meta": {"cfg": ""}, "message_hub": {}, "state_dict": behind("backbone.", one)}
    torch.save(
        content | {"ema_state_dict": {"steps": torch.tensor(3), **behind("module.backbone.", two)}}, tmp_path / "x.pth"
    )
    assert same(tmp_path / "x.pth", one)
    assert same(tmp_path / "x.pth", one, branch="ema")
    assert same(tmp_path / "x.pth", two, container="ema_state_dict", prefix="module.backbone.")
    assert "state_dict is the moving average" in read(tmp_path / "x.pth").notes[0]


def test_no_average_is_said(tmp_path: Path, one: State) -> None:
    torch.save(one, tmp_path / "x.pth")
    with pytest.raises(UserError, match="holds no moving average of its weights"):
        load(tmp_path / "x.pth", "ema")


def test_inspect_lists_every_backbone(tmp_path: Path, one: State, two: State) -> None:
    torch.save({"state_dict": behind("backbone.", one) | behind("momentum.", two) | linear("neck")}, tmp_path / "x.pth")
    found = inspection.inspect(tmp_path / "x.pth", prefix="backbone.")["backbones"]
    assert [inside["options"] for inside in found] == [
        "--container state_dict --prefix backbone.",
        "--container state_dict --prefix momentum.",
    ]
    assert all(not inside["problem"] for inside in found)


def test_the_nearest_format_and_what_it_lacks(tmp_path: Path, one: State) -> None:
    torch.save({"model": behind("module.encoder.", one) | norm("module.mystery")}, tmp_path / "x.pth")
    with pytest.raises(
        UserError, match=r"(?s)Nearest format: \w+ \(.*\), but such a file has .*--prefix module\.encoder\."
    ):
        load(tmp_path / "x.pth")
