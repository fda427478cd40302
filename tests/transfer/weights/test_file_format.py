"""Each format of `transfer/weights/formats`: a file of exactly that framework is written here, by hand, and read again."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_format import (
    Case,
    State,
    caffe2,
    cases,
    detectron2,
    folded,
    vit,
    without_counters,
)
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.commands.main import main
from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import contents, inspection, read, recognition
from transfer.weights.contents import Contents
from transfer.weights.file_format import formats, parse
from transfer.weights.models.networks import build_network
from transfer.weights.naming import is_counter
from transfer.weights.vit_spec import VitSpec


@pytest.fixture(scope="session")
def all_cases(make_backbone, two_stage_extras) -> dict[str, Case]:
    neck = two_stage_extras(BackboneSpec(50, 1 / 16))
    return cases(make_backbone().state, make_backbone(seed=1).state, make_backbone(stem="deep").state, neck)


def write(content: dict[str, Any], path: Path) -> Path:
    """As such files are written: Detectron2's own are pickles of arrays, all others come from torch.save."""
    if content.get("__author__") or "conv1_w" in content:
        path.write_bytes(pickle.dumps(_each(content, lambda v: v.numpy() if isinstance(v, Tensor) else v), 2))
    else:
        torch.save(_each(content, lambda v: torch.from_numpy(v) if isinstance(v, np.ndarray) else v), path)
    return path


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    return {key: _each(v, change) for key, v in value.items()} if isinstance(value, dict) else change(value)


def same(found: State, wanted: State) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("name", sorted(name for name, fmt in formats().items() if fmt.naming not in ("own", "named")))
def test_a_file_of_exactly_that_layout_gives_the_backbone_back(tmp_path, all_cases, make_backbone, name):
    case, path = all_cases[name], write(all_cases[name].content, tmp_path / "x.pth")
    form = name if case.forced else None
    if formats()[name].on_request:
        assert read(path).format == "torchvision"
    elif case.forced:
        other = name.replace("own", "x").replace("zoo", "own").replace("x", "zoo")
        with pytest.raises(UserError, match="its keys do not show which one; choose with --from") as error:
            read(path)
        assert name in str(error.value)
        assert other in str(error.value)
    for number, branch in enumerate(case.branches):
        reading = read(path, branch, form)
        on_vit = isinstance(case.spec, VitSpec)
        backbone = vit(number, case.spec) if on_vit else make_backbone(seed=number, stem=case.spec.stem).state
        wanted = (
            folded(backbone)
            if "caffe2" in name
            else without_counters(backbone)
            if "_c4" in name or "_fpn" in name
            else backbone
        )
        assert same(reading.backbone.state, wanted)
        assert (reading.format, reading.branch) == (name, branch)
        assert (reading.backbone.spec, reading.backbone.pixels) == (case.spec, case.pixels)
        if branch == "student":
            assert reading.counts.dropped == case.dropped
    found = inspection.inspect(path, form)["formats"][name]
    assert set(found["branches"]) == set(case.branches)
    assert found["unknown"] == []
    if found["branches"][0] == "student":
        assert found["dropped"] == case.dropped
    assert found["backbone"] == {"title": case.spec.title, **case.spec.as_dict()}
    assert found["pixels"] == asdict(case.pixels)


def test_every_format_is_complete_and_its_patterns_compile():
    for name, kind in formats().items():
        assert kind.title, name
        assert kind.source, name
        assert kind.checked in ("generated file", "real file", "published file"), name
        assert "student" in kind.branches, name
        for pattern in (*kind.required, *kind.forbidden, *kind.beside.values(), *kind.dropped.values(), *kind.rename):
            re.compile(pattern)


def test_bare_weights_are_not_taken_for_a_checkpoint_of_ours(tmp_path, make_backbone):
    """They are MMSegmentation's or solo-learn's, as before our checkpoints had the same prefix."""
    state = {f"backbone.{name}": tensor for name, tensor in make_backbone().state.items()}
    head = {"projector.0.weight": torch.ones(1), "classifier.weight": torch.ones(1)}
    for content, name in ((state, "mmseg"), (state | head, "solo_learn")):
        assert read(write(content, tmp_path / "x.pth")).format == name


def test_a_wrong_format_file_is_named_with_its_keys(tmp_path):
    (tmp_path / "toynet.yaml").write_text("title: Toynet\nsource: here\ndroped: {head: 'fc.*'}\n")
    with pytest.raises(
        UserError, match=r"toynet.yaml: there is no key 'droped' .* mean dropped\?; the key 'checked' is missing"
    ):
        parse(tmp_path / "toynet.yaml")


def test_files_that_timm_and_transformers_wrote(tmp_path):
    import timm
    from transformers import ResNetConfig, ResNetForImageClassification

    model = timm.create_model("resnet50d")
    torch.save(model.state_dict(), tmp_path / "x.pth")
    reading = read(tmp_path / "x.pth")
    assert reading.format == "timm_d"
    images = torch.rand(1, 3, 64, 64)
    ours = build_network(reading.backbone.spec)
    ours.load_state_dict(reading.backbone.state)
    assert torch.equal(ours.eval()(images), model.eval().forward_features(images))

    config = ResNetConfig(embedding_size=8, hidden_sizes=[32, 64, 128, 256], depths=[3, 4, 6, 3])
    ResNetForImageClassification(config).save_pretrained(tmp_path)
    reading = read(tmp_path / "model.safetensors")
    assert reading.format == "huggingface"
    assert reading.backbone.spec == BackboneSpec(50, 1 / 8)


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("framework", "form", "container"),
    [
        ("detectron2_c4", "detectron2_c4_own", "model"),
        ("detectron2_fpn", "detectron2_fpn_own", "model"),
        ("mmseg", None, "state_dict"),
    ],
)
def test_whole_models_of_the_frameworks(tmp_path, real_model, framework, form, container):
    state = real_model(framework, BackboneSpec(50, 1 / 8)).state_dict()
    torch.save({container: state, "iteration": 1}, tmp_path / "x.pth")
    reading = read(tmp_path / "x.pth", format_name=form)
    assert reading.format == (form or "mmseg_model")
    assert reading.beside == ["iteration"]
    assert reading.backbone.spec == BackboneSpec(50, 1 / 8)
    assert reading.counts.converted + sum(reading.counts.dropped.values()) == len(state)


@pytest.mark.frameworks
@pytest.mark.parametrize("name", ["detectron2_caffe2", "detectron2_backbone"])
def test_detectron2_itself_finds_the_same_in_the_same_file(tmp_path, make_backbone, real_model, name):
    from detectron2.checkpoint import DetectionCheckpointer

    state = make_backbone(1 / 8).state
    backbone = {"model": detectron2(state), "__author__": "torchvision", "matching_heuristics": True}
    path = write(caffe2(state) if name == "detectron2_caffe2" else backbone, tmp_path / "x.pkl")
    model = real_model("detectron2_fpn", BackboneSpec(50, 1 / 8))
    DetectionCheckpointer(model).load(str(path))
    reading, theirs = read(path), model.state_dict()
    assert reading.format == name
    ours = detectron2(reading.backbone.state, counters=False)
    assert all(np.array_equal(theirs[f"backbone.bottom_up.{n}"].numpy(), array) for n, array in ours.items())


FLAT = ("moco_v2", "barlow_twins", "torchvision", "huggingface", "mmpretrain", "solo_learn", "pixpro", "swav")


@pytest.mark.parametrize("name", FLAT)
def test_the_same_weights_in_safetensors(tmp_path, all_cases, make_backbone, name):
    kind = formats()[name]
    held = recognition.match(Contents(all_cases[name].content), kind)
    save_file({key: t.clone() for key, t in held.table.weights.items()}, tmp_path / "x.safetensors")
    reading = read(tmp_path / "x.safetensors")
    assert reading.format == name
    assert same(reading.backbone.state, make_backbone().state)
    assert inspection.inspect(tmp_path / "x.safetensors")["formats"][name]["types"] == {"float32": 265, "int64": 53}


def test_forcing_a_format(tmp_path, all_cases):
    path = write(all_cases["moco_v2"].content, tmp_path / "x.pth")
    assert read(path, format_name="moco_v2").format == "moco_v2"
    with pytest.raises(UserError, match=r"the format moco_v1 \(MoCo v1 checkpoint\); it looks like moco_v2 \("):
        read(path, format_name="moco_v1")
    with pytest.raises(UserError, match=r"there is no format 'moco'; did you mean \w+\? \(known: barlow_twins, "):
        read(path, format_name="moco")
    torch.save({"a": 1}, path)
    with pytest.raises(UserError, match="it looks like no known format"):
        inspection.inspect(path, "moco_v1")


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (
            lambda m: m.update({"module.mystery": torch.ones(2)}),
            r"\(PixPro checkpoint\), .*1 unknown \(module\.mystery\)",
        ),
        (
            lambda m: m.update({"encoder.bn1.weight": torch.ones(4)}),
            r"1 unknown \(module\.encoder\.bn1\.weight\)",
        ),
        (
            lambda m: m.update({"module.encoder.bn1.weight": torch.full((4,), 1 / 3, dtype=torch.float64)}),
            r"bn1\.weight is float64, should be float32",
        ),
        (
            lambda m: m.update({"module.encoder.bn1.weight": torch.tensor([1, 2, 3, float("nan")]).half()}),
            r"1 with NaN or infinite values \(bn1\.weight\)",
        ),
        (lambda m: m.pop("module.encoder.bn1.num_batches_tracked"), r"1 missing \(bn1\.num_batches_tracked\)"),
        (lambda m: m.pop("module.encoder.bn1.running_var"), r"1 missing \(bn1\.running_var\)"),
    ],
    ids=["unknown", "duplicate", "inexact", "NaN", "a counter", "a statistic"],
)
def test_what_is_wrong_is_named(tmp_path, all_cases, edit, says):
    content = dict(all_cases["pixpro"].content)
    content["model"] = dict(content["model"])
    edit(content["model"])
    with pytest.raises(UserError, match=says):
        read(write(content, tmp_path / "x.pth"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_cast_where_no_value_changes(tmp_path, make_backbone, dtype):
    state = make_backbone().state
    content = {name: t if is_counter(name) else t.to(dtype) for name, t in state.items()}
    reading = read(write(content, tmp_path / "x.pth"))
    assert reading.counts.cast == {f"{dtype} to torch.float32".replace("torch.", ""): 265}
    assert f"265 cast (265 {str(dtype)[6:]} to float32)" in str(reading.counts)
    assert all(
        torch.equal(reading.backbone.state[name].to(dtype), content[name]) for name in state if not is_counter(name)
    )


def test_a_file_that_no_format_knows_fully_is_named_by_the_one_that_knows_most(tmp_path, all_cases):
    content = {**all_cases["torchvision"].content, "mystery": torch.ones(1)}
    with pytest.raises(UserError, match=r"torchvision's names .*1 unknown \(mystery\)"):
        read(write(content, tmp_path / "x.pth"))
    assert inspection.inspect(tmp_path / "x.pth")["formats"]["torchvision"]["unknown"] == ["mystery"]


def test_the_commands(tmp_path, all_cases, capsys):
    path, output = write(all_cases["detectron2_fpn_own"].content, tmp_path / "x.pth"), tmp_path / "y.pth"
    assert main(["weights", "inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "format   detectron2_fpn_own: " in printed
    assert "format   detectron2_fpn_zoo: " in printed
    assert "choose one with --from" in printed
    convert = ["convert", str(path), "--to", "mmseg", "-o", str(output), "--no-verify"]
    assert main(convert) == 2
    assert not output.exists()
    assert main([*convert, "--from", "detectron2_fpn_own"]) == 0
    assert "318 converted" in capsys.readouterr().out
    assert main(["weights", "inspect", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["formats"]["mmseg"]["converted"] == 318
    assert main(["weights", "formats"]) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"^moco_v2 +MoCo v2 checkpoint +student encoder_q\., momentum_encoder +projector, queue$", printed, re.M
    )
    assert "|" not in printed
    assert "`" not in printed


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:9] + b"\xff" * 200 + b[209:]]
)
@pytest.mark.parametrize("kind", ["zip", "old", "pickle"])
def test_a_damaged_file_is_one_sentence(tmp_path, all_cases, kind, damage: Callable[[bytes], bytes]):
    path = tmp_path / "x"
    if kind == "pickle":
        write(all_cases["detectron2_fpn"].content, path)
    else:
        torch.save(all_cases["torchvision"].content, path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"x is (truncated or damaged|empty|of no known format)"):
        inspection.inspect(path)


def test_containers_that_seem_endless(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "_MOST", 10_000)
    content: dict[str, Any] = {"a": torch.ones(1)}
    for _ in range(40):
        content = {"a": content, "b": content}
    torch.save(content, tmp_path / "x.pth")
    for look in (read, inspection.inspect):
        with pytest.raises(UserError, match="10000 entries or more"):
            look(tmp_path / "x.pth")


def test_a_file_that_asks_for_code_is_not_obeyed(tmp_path):
    class Runs:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": Runs()}))
    with pytest.raises(UserError, match=r"builtins\.exec"):
        inspection.inspect(tmp_path / "x.pkl")
    assert not (tmp_path / "ran").exists()
