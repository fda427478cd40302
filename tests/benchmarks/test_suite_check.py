"""`pixbench suite --check` finds the mistakes of a suite without training."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks.commands.main import main
from pixbench.paths import CONFIGS
from pretrain.models.backbone_spec import BackboneSpec
from transfer import weights
from transfer.initial_weights import random_backbone

PIXPRO = ["pretrain/pixpro_100ep.yaml", "pretrain/mini.yaml"]
QUEUE = ["pretrain/moco_v2_200ep.yaml", "pretrain/mini.yaml", "pretrain/mini_queue.yaml"]
SUPERVISED = ["pretrain/supervised_90ep.yaml", "pretrain/mini_linear.yaml"]
SLURM = {"partition": "gpu", "gpus_per_node": 8, "time": 1440}

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """``check(*words, **suite)`` writes the suite, checks it, and returns the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, **suite: Any) -> tuple[int, str]:
        content = {"scale": "mini", "rows": {"r": None}, "protocols": [], **suite}
        (tmp_path / "suite.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        code = main(["suite", str(tmp_path / "suite.yaml"), "--check", *map(str, words)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out + said.err

    return run


def problems(said: str) -> list[str]:
    """The lines of the table of problems."""
    return said.partition("problem\n")[2].splitlines()


@pytest.mark.parametrize(
    ("words", "suite", "sentence"),
    [
        ((), {"rows": {"r": {"pretrain": PIXPRO, "set": {"no_such": 1}}}}, "pretrain/r .*no_such"),
        (
            ("--launcher", "slurm"),
            {"rows": {"r": {"pretrain": PIXPRO, "set": {"no_such": 1}}}, "slurm": SLURM},
            "pretrain/r .*no_such",
        ),
        (("--gpus", "3"), {"rows": {"r": {"pretrain": PIXPRO}}}, "batch_size 64 cannot be divided among 3 processes"),
        (
            ("--gpus", "8"),
            {"rows": {"r": {"pretrain": PIXPRO, "set": {"accumulate": 5}}}},
            "accumulate 5 does not divide the 8 images of each process",
        ),
        (
            (),
            {"rows": {"r": {"pretrain": QUEUE, "set": {"method.queue_size": 100}}}},
            "queue_size 100 is not a multiple",
        ),
        ((), {"rows": {"r": {"pretrain": ["pretrain/pixpr.yaml"]}}}, "row r: there is no config .*pixpr.yaml"),
        (
            (),
            {"rows": {"r": {"pretrain": PIXPRO, "set": {"init_from": "gone.pth"}}}},
            "pretrain/r .*there is no file gone.pth",
        ),
        (
            ("--launcher", "slurm"),
            {
                "scale": "paper",
                "rows": {"seedling": {"pretrain": PIXPRO[:1]}},
                "slurm": {**SLURM, "time": 10, "max_num_timeout": 2},
            },
            r"it needs at least 5 hours on 8 GPUs \(A100\), but 3 × 10 minutes are 0.5 hours; raise time or max_num",
        ),
        (
            ("--launcher", "slurm"),
            {"rows": {"r": {"pretrain": PIXPRO}}, "slurm": {"gpus_per_node": 8}},
            "the suite's slurm block has no time for pretrain; add a whole number of minutes",
        ),
        (
            ("--launcher", "slurm"),
            {"scale": "paper", "rows": {"r": {"pretrain": PIXPRO[:1]}}, "slurm": {**SLURM, "mem": "8GB"}},
            "batches on each machine, but mem in the slurm block is 8.0 GiB",
        ),
    ],
    ids=lambda x: "" if isinstance(x, tuple | dict) else re.sub(r"\W+", " ", x)[:40],
)
def test_mistakes_in_pretraining(words: tuple[str, ...], suite: dict[str, Any], sentence: str, check: Check) -> None:
    code, said = check(*words, **suite)
    (problem,) = problems(said)
    assert re.search(sentence, problem), said
    assert code == 1


def test_a_suite_without_mistakes(check: Check) -> None:
    code, said = check("--gpus", 8, scale="paper", rows={"a": {"pretrain": PIXPRO[:1]}, "b": {"pretrain": QUEUE[:1]}})
    assert code == 0
    assert said.splitlines()[-1] == "no problems found"
    assert "data not looked at" in said
    assert re.search(r"in all at least 1\d\d GPU-hours \(A100\), .* GiB of checkpoints", said)
    assert len(re.findall(r"^pretrain/\w .* A100 ", said, re.MULTILINE)) == 2


def test_mistakes_in_the_images(check: Check, mini_root: Path, tmp_path: Path) -> None:
    rows: dict[str, Any] = {
        "good": {"pretrain": SUPERVISED, "set": {"batch_size": 4}},
        "large": {"pretrain": SUPERVISED},
        "queue": {"pretrain": QUEUE},
        "blind": {"pretrain": SUPERVISED, "set": {"batch_size": 4, "data.layout": "flat"}},
    }
    code, said = check("--data-root", mini_root, rows=rows)
    assert code == 1
    found = problems(said)
    assert len(found) == 2
    assert re.match(r"pretrain/large, pretrain/queue +there are 12 images but batch_size is 64", found[0])
    assert "the queue has" not in said  # no advice about a run that cannot start
    assert re.match(r"pretrain/blind +this method needs labels", found[1])
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def quarter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a backbone of a quarter of the width."""
    path = tmp_path_factory.mktemp("weights") / "quarter.pth"
    weights.save(random_backbone(BackboneSpec(50, 0.25), seed=0), path, "mmseg")
    return path


@pytest.mark.frameworks
def test_mistakes_in_fine_tuning(check: Check, mini_root: Path, tmp_path: Path, quarter: Path) -> None:
    """All of them at once, each in one line; what is right is not named."""
    (tmp_path / "broken.pth").write_bytes(b"nothing of the kind")
    rows = {
        "random": None,
        "mini": {"pretrain": PIXPRO},
        "pyramid": {"pretrain": ["pretrain/pixpro_fpn_100ep.yaml", "pretrain/mini.yaml", "pretrain/mini_fpn.yaml"]},
        "cifar": {"pretrain": PIXPRO, "set": {"backbone.stem": "3x3", "backbone.output_stride": 8}},
        "gone": {"weights": "no/such.pth"},
        "broken": {"weights": "broken.pth"},
        "file": {"weights": str(quarter)},
    }
    root = tmp_path / "data"
    shutil.copytree(mini_root, root)
    shutil.rmtree(root / "VOC2012")
    code, said = check(
        *("--data-root", root, "--gpus", 3),
        rows=rows,
        protocols=["coco_fpn_1x", "voc_c4", "cityscapes_fcn16s", "voc12aug_fcn16s"],
        overrides={
            "voc_c4": {"SOLVER.IMS_PER_BATCH": 6, "SOLVER.NO_SUCH": 1},
            "coco_fpn_1x": {"SOLVER.IMS_PER_BATCH": 6},
        },
        classes={"voc12aug_fcn16s": "no_classes.txt"},
    )
    assert code == 1
    found = "\n".join(problems(said))
    for sentence in (
        r"no_classes\.txt cannot be read \(No such file or directory\)",
        r"row gone: there is no file no/such\.pth here",
        r"broken\.pth is neither a PyTorch file nor a pickle nor safetensors",
        r"Detectron2 has no setting 'SOLVER\.NO_SUCH'",
        r"a batch of 4 images cannot be split evenly on 3 GPUs",  # cityscapes_fcn16s
        r"VOC2012 is missing; download it",
        r"pretrain/cifar/checkpoint\.pth: a Detectron2 R-CNN FPN supports backbones of variant 7x7, not 3x3",
        r"pretrain/mini, .* batch_size 64 cannot be divided among 3 processes",
    ):
        assert len(re.findall(sentence, found)) >= 1, (sentence, said)
    assert not re.search("^[^ ]*transfer/(random|mini|file|pyramid)/coco_fpn_1x", found, re.MULTILINE)
    assert "defect" not in found


@pytest.mark.frameworks
def test_another_width_than_published(check: Check, quarter: Path) -> None:
    code, said = check(
        scale="paper",
        rows={"mini": {"pretrain": PIXPRO}, "file": {"weights": str(quarter)}},
        protocols=["voc_c4", "cityscapes_fcn16s"],
    )
    assert code == 1
    found = problems(said)
    assert len(found) == 4
    assert all("ResNet-50 of width 0.25, but" in line and "is defined for another backbone" in line for line in found)


def test_frozen_protocols(check: Check, mini_root: Path) -> None:
    """A random row is built like the first one with weights; features that jobs share are counted once."""
    rows = {"random": None, "mini": {"pretrain": PIXPRO, "set": {"batch_size": 4}}}
    code, said = check("--data-root", mini_root, rows=rows, protocols=["imagenet_probe"], seeds=[0, 1])
    assert code == 0, said
    assert len(re.findall(r"imagenet_probe × [24] .* \? +\?$", said, re.MULTILINE)) >= 1
    assert "of checkpoints and features" in said
    code, said = check("--data-root", mini_root, rows=rows, protocols=["imagenet_probe"], features_gb=1e-9)
    assert code == 1
    (problem,) = problems(said)
    assert "but the suite's features_gb is 1e-09; raise it, or lower images.size" in problem


def test_mistakes_in_frozen_protocols(check: Check, mini_root: Path) -> None:
    cifar = {"pretrain": PIXPRO, "set": {"batch_size": 4, "backbone.stem": "3x3", "backbone.output_stride": 8}}
    overrides = {"imagenet_probe": {"images.output_stride": 16}}
    code, said = check("--data-root", mini_root, rows={"c": cifar}, protocols=["imagenet_probe"], overrides=overrides)
    assert code == 1
    assert "whose cells cannot be of 16 pixels" in "".join(problems(said))
    overrides = {"imagenet_probe": {"images.sise": 16}}
    code, said = check(rows={"a": None}, protocols=["imagenet_probe"], overrides=overrides)
    assert "did you mean images.size" in "".join(problems(said))


def test_class_folders_that_will_not_do(check: Check, mini_root: Path, tmp_path: Path) -> None:
    shutil.copytree(mini_root / "imagenet", tmp_path / "data/imagenet")
    shutil.rmtree(tmp_path / "data/imagenet/val")
    code, said = check("--data-root", tmp_path / "data", rows={"a": None}, protocols=["imagenet_probe"])
    assert code == 1
    (problem,) = problems(said)
    assert "imagenet/val is missing" in problem


@pytest.mark.frameworks
def test_settings_that_only_the_model_refuses(check: Check) -> None:
    """They are of the right type; an error of the framework is said with the settings that may have caused it."""
    overrides = {"coco_fpn_1x": {"MODEL.ROI_BOX_HEAD.POOLER_TYPE": "NoSuchPooler"}}
    code, said = check(protocols=["coco_fpn_1x"], rows={"a": None, "b": None}, overrides=overrides)
    assert code == 1
    (problem,) = problems(said)
    assert problem.startswith("transfer/a/coco_fpn_1x, transfer/b/coco_fpn_1x  ")
    assert "NoSuchPooler" in problem
    assert "correct them or leave them out" in problem


@pytest.mark.frameworks
def test_rows_that_cost_the_same_are_one_line(check: Check) -> None:
    code, said = check(
        *("--launcher", "slurm"),
        scale="paper",
        rows={"a": None, "b": {"pretrain": PIXPRO[:1]}},
        protocols=["cityscapes_fcn16s"],
        seeds=[0, 1],
        slurm={**SLURM, "transfer": {"time": 60, "max_num_timeout": 0}},
    )
    assert code == 1
    assert re.search(r"^transfer/\*/cityscapes_fcn16s × 4 .* 664 V100 +20\.8$", said, re.MULTILINE)
    (problem,) = problems(said)
    assert "it needs at least 21 hours on 8 GPUs (V100), but 1 × 60 minutes" in problem


@pytest.mark.frameworks
def test_a_supervised_row_without_the_file(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    code, said = check(scale="paper", rows={"s": {"init": "supervised"}}, protocols=["cityscapes_fcn16s"])
    assert code == 0, said
    assert f"without a network, put it at {tmp_path}/hub/checkpoints/resnet50-" in said
    assert not (tmp_path / "hub").exists()


@pytest.mark.e2e
@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("suite", "words"),
    [("paper", ("--gpus", "8")), ("slurm", ("--launcher", "slurm")), ("demo", ())],
)
def test_the_shipped_suites(suite: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite", str(CONFIGS / "suites" / f"{suite}.yaml"), "--check", *words]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no problems found"
