"""`pixbench suite --check` finds the mistakes of a suite without training."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from benchmarks.check.findings import Findings
from benchmarks.check.transfer import TransferChecks
from benchmarks.commands.main import main
from pixbench.paths import CONFIGS
from pretrain.models.backbone_spec import BackboneSpec
from transfer import weights
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob
from transfer.protocols import find_protocol

PIXPRO = ["pretrain/pixpro_100ep.yaml", "pretrain/mini.yaml"]
QUEUE = ["pretrain/moco_v2_200ep.yaml", "pretrain/mini.yaml", "pretrain/mini_queue.yaml"]
SUPERVISED = ["pretrain/supervised_90ep.yaml", "pretrain/mini_linear.yaml"]
SLURM = {"partition": "gpu", "gpus_per_node": 8, "time": 1440}

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """``check(*words, **suite)`` writes the suite, checks it, and returns the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=2**40))

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
            "slurm block +the suite's slurm block has no time for pretrain; add whole minutes",
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
    assert said.splitlines()[-1] == "no problems found, 1 warning"
    assert "warning: data not looked at: give their folder with --data-root" in said
    assert re.search(r"^one after another, each on its GPUs: at least \d\.\d days$", said, re.MULTILINE)
    assert re.search(r"in all at least 1\d\d GPU-hours \(A100\), .* GiB of checkpoints", said)
    assert len(re.findall(r"^pretrain/\w .* A100 ", said, re.MULTILINE)) == 2


def test_all_mistakes_of_a_slurm_block_are_the_blocks(check: Check) -> None:
    """Those that would be refused at submission only, too; the jobs are checked all the same."""
    block = {**SLURM, "memory": "400GB", "setup": "module load cuda", "convert": 30, "mem": "8GB"}
    code, said = check("--launcher", "slurm", scale="paper", rows={"r": {"pretrain": PIXPRO[:1]}}, slurm=block)
    assert code == 1
    found = problems(said)
    assert len(found) == 4, said
    assert re.match(r"slurm block +there is no option 'memory'; did you mean mem\?", found[0])
    assert re.match(r"slurm block +setup is 'module load cuda'; it must be a list", found[1])
    assert re.match(r"slurm block, convert +30 must be a mapping", found[2])
    assert re.match(r"pretrain/r +its data workers may hold", found[3])


def test_a_time_that_is_wrong_is_not_missing_too(check: Check) -> None:
    code, said = check("--launcher", "slurm", rows={"r": {"pretrain": PIXPRO}}, slurm={**SLURM, "time": "soon"})
    (problem,) = problems(said)
    assert code == 1
    assert re.match(r"slurm block +time is 'soon'; it must be whole minutes", problem)


def test_what_is_asked_of_slurm(check: Check) -> None:
    """With the workers that fit into the CPUs, and a warning that nothing is said of memory."""
    rows = {"r": {"pretrain": PIXPRO[:1]}, "s": {"pretrain": PIXPRO[:1]}}
    words = ("--launcher", "slurm")
    _, enough = check(*words, scale="paper", rows=rows, slurm={**SLURM, "time": "4-00"})
    assert re.search(r"^pretrain × 2 +4-00:00:00 +1 +8 +\d+ +1 of up to 2 +partition gpu$", enough, re.MULTILINE)
    assert re.search("^warning: the slurm block has no mem, but the batches of a job may take ", enough, re.MULTILINE)
    code, fewer = check(*words, scale="paper", rows=rows, slurm={**SLURM, "cpus_per_task": 16, "mem": "400GB"})
    assert code == 0
    assert re.search("^warning: pretrain/r: 1 data workers per training process instead of ", fewer, re.MULTILINE)
    assert "no mem" not in fewer
    assert host_memory(fewer) < host_memory(enough)
    assert fewer.splitlines()[-1] == "no problems found, 3 warnings"


def host_memory(said: str) -> float:
    """GiB of batches of pretrain/r."""
    (found,) = re.findall(r"^pretrain/r .*? images/s|^pretrain/r .*", said, re.MULTILINE)
    return float(found.split()[4])


def test_checkpoints_that_do_not_fit(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"r": {"pretrain": PIXPRO}}
    code, said = check(rows=rows)
    needed = re.search(r"([\d.]+) MiB of checkpoints", said)
    assert code == 0
    assert needed, said
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=2**20))
    code, said = check(rows=rows)
    assert code == 1
    assert re.search(r"^all jobs +checkpoints and features need .*, but .* has room for 1 MiB", said, re.MULTILINE)
    written = tmp_path / "runs" / "suite" / "pretrain" / "r" / "checkpoint.pth"  # of this suite: it goes on
    written.parent.mkdir(parents=True)
    written.touch()
    os.truncate(written, int(float(needed[1]) * 2**20))
    assert check(rows=rows)[0] == 0


def test_a_mini_world_says_nothing_of_the_cost(check: Check, mini_root: Path) -> None:
    rows = {"r": {"pretrain": PIXPRO[:1], "set": {"batch_size": 4}}}
    _, real = check(scale="paper", rows=rows)
    code, said = check("--data-root", mini_root, scale="paper", rows=rows)
    assert code == 0
    assert "is a mini world: hours are those of ImageNet with 1,281,167 images" in said
    line = re.compile("^in all .*", re.MULTILINE)
    assert line.findall(said) == line.findall(real)


@pytest.mark.parametrize("scale", ["paper", "mini"])
def test_at_paper_scale_counts_of_data_are_the_published_ones(scale: str, mini_root: Path, tmp_path: Path) -> None:
    """As the runs find them (`transfer.run.checked_data`)."""
    shutil.copytree(mini_root / "VOC2007", tmp_path / "VOC2007")
    for root, wrong in ((mini_root, False), (tmp_path, scale == "paper")):
        found = Findings()
        job = TransferJob(find_protocol("voc07_discovery"), root, tmp_path / "run", scale=scale)
        TransferChecks(found).check_data("a job", job)
        assert ("trainval.txt holds 12 images instead of 5011" in str(found.problems)) == bool(found.problems) == wrong


def test_a_data_root_that_is_not_here(check: Check) -> None:
    code, said = check("--data-root", "/no/such/folder")
    assert code == 0
    assert "there is no folder /no/such/folder here; correct --data-root, or check where it is" in said


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
    few = {"imagenet_probe": {"settings.neighbours": 12}}
    code, said = check("--data-root", mini_root, rows=rows, protocols=["imagenet_probe"], seeds=[0, 1], overrides=few)
    assert code == 0, said
    assert len(re.findall(r"imagenet_probe × [24] .* \? +\?$", said, re.MULTILINE)) >= 1
    assert "of checkpoints and features" in said
    assert re.search(
        r"jobs of unknown GPU-hours \(.*no rate of frozen protocols on a GPU is published or measured", said
    )
    code, said = check(
        "--data-root", mini_root, rows=rows, protocols=["imagenet_probe"], overrides=few, features_gb=1e-9
    )
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
def test_the_shipped_suites(
    suite: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=2**40))
    assert main(["suite", str(CONFIGS / "suites" / f"{suite}.yaml"), "--check", *words]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("no problems found, ")
