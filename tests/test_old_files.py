"""Files that earlier versions wrote are still read: one of each kind, see tests/golden/README.md."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.miniworld.generate import World, is_there
from benchmarks.results.merge import upgrade
from benchmarks.tables.collected import collect
from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE, CHECKPOINT_VERSION, MINI_WORLD_FILE, RESULT_FILE
from pixbench.files import sha256
from pixbench.results import read_result, rewrite_result
from pretrain import checkpoint, engine
from pretrain.config import from_dict, parse
from transfer.run_folder import claim, finished_result
from transfer.weights import load, read
from transfer.weights.conversion import convert

pytestmark = pytest.mark.slow

OLD = Path(__file__).parent / "golden" / "old_files"
NEW_NAMES = {"trunk": "backbone", "target": "momentum_encoder"}


def test_a_checkpoint_of_version_1_is_continued(tmp_path: Path, mini_root: Path) -> None:
    shutil.copyfile(OLD / "checkpoint_v1.pth", tmp_path / CHECKPOINT_FILE)
    content = checkpoint.load(tmp_path / CHECKPOINT_FILE)
    places = {"data": {**content["config"]["data"], "root": str(mini_root / "imagenet")}, "out": str(tmp_path)}
    engine.train(from_dict({**content["config"], **places}))
    continued = checkpoint.load(tmp_path / CHECKPOINT_FILE)
    assert (continued["version"], continued["step"], continued["finished"]) == (CHECKPOINT_VERSION, 6, True)
    golden = np.load(OLD / "checkpoint_v1_continued.npz")  # what the version that wrote it went on to
    for name in golden:
        now = ".".join(NEW_NAMES.get(part, part) for part in name.split("."))
        np.testing.assert_allclose(continued["model"][now].numpy(), golden[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("branch", ["student", "momentum_encoder"])
def test_a_checkpoint_of_version_1_is_converted(branch: str) -> None:
    reading = read(OLD / "checkpoint_v1.pth", branch)
    content = torch.load(OLD / "checkpoint_v1.pth", weights_only=True)
    prefix = {"student": "trunk.", "momentum_encoder": "target.trunk."}[branch]
    assert reading.backbone.spec.output_stride == 16  # of what the file says of its "trunk"
    for name, tensor in reading.backbone.state.items():
        assert torch.equal(tensor, content["model"][prefix + name])


def test_converted_files_of_before_hold_the_same_backbone() -> None:
    backbones = [load(OLD / name) for name in ("detectron2_c4.pkl", "mmseg.pth", "huggingface.safetensors")]
    for backbone in backbones:
        assert (backbone.spec.width, backbone.spec.output_stride) == (1 / 64, 16)
    for name, tensor in backbones[0].state.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, backbones[1].state[name])
            assert torch.equal(tensor, backbones[2].state[name])


@pytest.mark.parametrize("kind", ["pretrain", "transfer", "probe"])
def test_results_are_left_out_until_they_are_upgraded(kind: str, tmp_path: Path) -> None:
    path = tmp_path / RESULT_FILE
    shutil.copyfile(OLD / f"{kind}.result.json", path)
    with pytest.raises(UserError, match="has schema 1 instead of 2; `pixbench results upgrade`"):
        read_result(path)
    done, left = upgrade([tmp_path])
    if kind == "probe":  # it has become the kind frozen, with other settings
        assert [file.reason for file in left] == [
            "cannot be upgraded (there are no results of the kind 'probe' any more)"
        ]
        return
    assert (done, left) == ([path], [])
    before, now = json.loads((OLD / f"{kind}.result.json").read_text()), read_result(path)
    assert now["upgraded_from"] == 1
    assert {key for key in before if before[key] != now[key]} <= {"schema", "freeze"}


def test_an_upgraded_transfer_result_stands_in_the_table(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copyfile(OLD / "transfer.result.json", tmp_path / "run" / RESULT_FILE)
    upgrade([tmp_path])
    groups, left_out = collect(tmp_path)
    assert left_out == []
    assert [list(group.rows) for group in groups] == [["pixpro"]]


def test_a_run_folder_of_before_belongs_to_the_same_job(tmp_path: Path) -> None:
    shutil.copyfile(OLD / "job.json", tmp_path / "job.json")
    shutil.copyfile(OLD / "transfer.result.json", tmp_path / RESULT_FILE)
    identity = json.loads((OLD / "job.json").read_text())
    assert claim(tmp_path, {**identity, "freeze": "backbone"})  # which was "trunk"


def test_a_finished_run_of_before_is_finished_and_stays_of_its_schema(tmp_path: Path) -> None:
    shutil.copyfile(OLD / "transfer.result.json", tmp_path / RESULT_FILE)
    before = finished_result(tmp_path)
    assert before is not None
    rewrite_result(tmp_path / RESULT_FILE, {**before, "label": "new"})  # as another --label does
    assert json.loads((tmp_path / RESULT_FILE).read_text()) == {**before, "label": "new"}


def test_a_mini_world_of_before_is_recognised(tmp_path: Path) -> None:
    shutil.copyfile(OLD / MINI_WORLD_FILE, tmp_path / MINI_WORLD_FILE)
    assert is_there(tmp_path, World(seed=0, images=12, name="shapes"))


@pytest.mark.parametrize(("name", "framework"), [("detectron2_c4.pkl", "detectron2_c4"), ("mmseg.pth", "mmseg")])
def test_converting_again_keeps_the_bytes_of_an_equal_file(tmp_path: Path, name: str, framework: str) -> None:
    """Runs that started from it identify their weights by them."""
    output = tmp_path / name
    shutil.copyfile(OLD / name, output)
    done = convert(OLD / "mmseg.pth", output, framework, check_forward=False)
    assert output.read_bytes() == (OLD / name).read_bytes()
    assert json.loads(done.record.read_text())["output"]["sha256"] == sha256(OLD / name)
    convert(OLD / "checkpoint_v1.pth", output, framework, check_forward=False)  # other weights
    assert output.read_bytes() != (OLD / name).read_bytes()


def test_converting_again_replaces_a_file_that_holds_more(tmp_path: Path) -> None:
    output = tmp_path / "mmseg.pth"
    content = torch.load(OLD / "mmseg.pth", weights_only=True)
    content["state_dict"]["decode_head.conv_seg.weight"] = torch.ones(1)
    torch.save(content, output)
    assert read(output).backbone.state.keys() == read(OLD / "mmseg.pth").backbone.state.keys()
    convert(OLD / "mmseg.pth", output, "mmseg", check_forward=False)
    assert "decode_head.conv_seg.weight" not in torch.load(output, weights_only=True)["state_dict"]


@pytest.mark.parametrize("missing", ["config", "trunk", "model"])
def test_a_damaged_checkpoint_of_version_1_is_one_sentence(tmp_path: Path, missing: str) -> None:
    content = torch.load(OLD / "checkpoint_v1.pth", weights_only=True)
    del content[missing]
    torch.save(content, tmp_path / CHECKPOINT_FILE)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path / CHECKPOINT_FILE)


def test_old_settings_are_named_by_their_new_names(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("method: {name: pixpro}\ntrunk: {width: 0.5}\n")
    with pytest.raises(UserError, match=r"since version 0\.2 it is called backbone"):
        parse(["--config", str(tmp_path / "old.yaml")])
    with pytest.raises(UserError, match=r"since version 0\.2 it is called --backbone\.width"):
        parse(["--method.name", "pixpro", "--trunk.width=0.5"])
