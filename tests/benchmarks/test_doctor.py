"""The doctor: sees what works, survives what does not, and says what to do."""

from __future__ import annotations

import argparse
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import nvidia
from benchmarks.commands import data as command
from benchmarks.commands import doctor
from pixbench.errors import UserError
from pixbench.paths import CONFIGS


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    doctor.register(commands)
    command.register(commands)
    args = parser.parse_args(list(map(str, words)))
    return args.run(args) or 0


@pytest.mark.frameworks
def test_everything_is_there(mini_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "--data-root", mini_root) == 0
    said = capsys.readouterr().out
    assert "MISSING" not in said
    assert "BROKEN" not in said
    for word in (
        "torch 2",
        "torchvision 0",
        "mmcv",
        "mmengine",
        "mmsegmentation",
        "mmdetection",
        "detectron2",
        "cityscapes in",
    ):
        assert word in said
    assert len(said.splitlines()) <= 40  # one screen


def test_one_bad_import_stops_nothing() -> None:
    problems = doctor.probe(
        [
            "import json; print('chatter')",
            "import no_such_module",
            "import os; os.abort()",  # what a module compiled for another torch may do
            "raise SystemExit('left')",
            "1 + 1",
        ]
    )
    assert problems[0] == problems[4] == ""
    assert "no_such_module" in problems[1]
    assert "crashed Python" in problems[2]
    assert "left" in problems[3]


def test_verdicts() -> None:
    mmcv = next(package for package in doctor.PACKAGES if "mmcv" in package.label)
    assert doctor.judge(mmcv, "onedl-mmcv 2.3.6", "")[0] == "ok"
    state, what, advice = doctor.judge(mmcv, "onedl-mmcv 2.3.6", "ImportError: undefined symbol")
    assert state == "BROKEN"
    assert "undefined symbol" in what
    assert "install.sh" in advice
    assert doctor.judge(mmcv, None, "ModuleNotFoundError: mmcv") == ("MISSING", "mmcv with ops", doctor.INSTALL)


def test_versions_under_either_name() -> None:
    assert doctor.version(("no-such-distribution", "numpy")).startswith("numpy ")
    assert doctor.version(("no-such-distribution",)) is None


def test_every_declared_dependency_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    names = doctor.other_requirements()
    assert {"numpy", "pillow", "jsonargparse", "safetensors", "submitit"} <= {name.lower() for name in names}
    assert not {"torch", "torchvision", "pytest", "ruff"} & set(names)  # probed, or wanted by developers only
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: doctor.metadata.distribution("no-such-distribution"))
    assert doctor.other_requirements() == ["pixbench"]  # a bare checkout


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the slow imports; what they find is tested above."""
    monkeypatch.setattr(doctor, "PACKAGES", ())
    monkeypatch.setattr(doctor, "GPUS", "raise SystemExit('no GPU')")
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)


@pytest.mark.usefixtures("healthy")
def test_data_sets_count_only_if_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("doctor") == 0
    assert "not looked for" in capsys.readouterr().out
    assert run("doctor", "--data-root", tmp_path) == 1
    said = capsys.readouterr().out
    assert said.count("MISSING") == len(command_names())
    assert "cocodataset.org" in said
    assert "no GPU" in said
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert run("doctor") == 0
    assert capsys.readouterr().out.count("absent") == len(command_names())


@pytest.mark.usefixtures("healthy")
def test_a_missing_package_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lost = doctor.Package("lost", ("no-such-distribution",), "import no_such_module")
    monkeypatch.setattr(doctor, "PACKAGES", (lost,))
    monkeypatch.setattr(doctor, "other_requirements", lambda: ["numpy", "no-such-distribution"])
    assert run("doctor") == 1
    said = capsys.readouterr().out
    assert said.count("MISSING") == 2
    assert "scripts/install.sh" in said


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for a moment only, on a machine with room for everything."""
    monkeypatch.setattr("benchmarks.input_rate.MEASURED_S", 0.01)
    for module in ("benchmarks.needs", "pretrain.data.in_flight"):
        monkeypatch.setattr(f"{module}.free_shared", lambda: 10**15)
        monkeypatch.setattr(f"{module}.free_memory", lambda: 10**15)


def of_recipe(*names: str) -> list[str]:
    return [word for name in names for word in ("--config", str(CONFIGS / "pretrain" / f"{name}.yaml"))]


@pytest.mark.usefixtures("healthy", "quick")
def test_what_a_run_needs_of_a_machine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(10_000))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=2**40))
    assert run("doctor", *of_recipe("simclr_1000ep"), "--gpus", 8) == 0
    said = capsys.readouterr().out
    for sentence in (
        r"simclr: 4096 images per step on 8 GPUs, with 16 data workers each",
        r"ok +/dev/shm: up to \d+ GiB of finished batches",
        r"ok +memory: \d+ GiB \(\d+ GiB batches in flight, \d+ MiB list of 1,281,167 images\)",
        r"each GPU: about \d+ GiB",
        r"ok +disk: .* for all checkpoints",
        r"ok +cores: one A100 takes about \d+ images/s of this recipe, one core here makes \d+",
    ):
        assert re.search(sentence, said), said


@pytest.mark.usefixtures("healthy", "quick")
def test_too_little_is_said_with_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("benchmarks.needs", "pretrain.data.in_flight"):
        monkeypatch.setattr(f"{module}.free_shared", lambda: 20 * 2**30)
        monkeypatch.setattr(f"{module}.free_memory", lambda: 80 * 2**30)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(2))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=2**30))
    assert run("doctor", *of_recipe("simclr_1000ep"), "--gpus", 8) == 1
    said = capsys.readouterr().out
    for sentence in (
        r"SHORT +/dev/shm: .*, 20 GiB free\n +-> lower data.workers to [1-9]\b",
        r"SHORT +memory: .*, 80 GiB available\n +-> lower data.workers to [1-9]\b",
        r"SHORT +disk: .*, 1\.0 GiB free .*\n +-> raise keep_every \(now 100; ",
        r"SHORT +cores: .*; 2 here\n +-> set augment.device to cuda or store smaller images, or the GPUs will wait",
        r"Something needed is missing",
    ):
        assert re.search(sentence, said), said


@pytest.mark.usefixtures("healthy", "quick")
def test_a_run_on_images_that_are_here(mini_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = of_recipe("pixpro_100ep", "mini")
    run("doctor", "--data-root", mini_root, *recipe)
    said = capsys.readouterr().out
    assert re.search(r"ok +memory: .* list of 12 images, \d+ MiB decoded images \(data.cache\)\)", said), said
    assert re.search(r" cores: one makes \d+ images/s of this recipe; \d+ here", said), said
    run("doctor", *recipe)
    assert "decoded images (data.cache): not known without data.root" in capsys.readouterr().out


@pytest.mark.usefixtures("healthy", "quick")
def test_with_a_config_only_its_own_data_count(
    mini_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = of_recipe("pixpro_100ep", "mini")
    root = tmp_path / "images_only"
    root.mkdir()
    (root / "imagenet").symlink_to(mini_root / "imagenet")
    run("doctor", "--data-root", root, *recipe)
    said = capsys.readouterr().out
    assert "list of 12 images" in said
    assert "VOC" not in said
    assert "MISSING" not in said
    assert run("doctor", "--data-root", tmp_path / "gone", *recipe) == 1
    said = capsys.readouterr().out
    assert said.count("MISSING") == 1
    assert re.search(r"MISSING +images: there is no folder .*gone/imagenet\n +-> correct --data-root", said)


@pytest.mark.parametrize(
    ("cuda", "driver", "what", "advice"),
    [
        ("13.0", "570.86.15", "driver 570.86.15 is too old: this PyTorch, for CUDA 13.0, needs 580 or newer", "update"),
        ("12.6", "570.86.15", "there are GPUs (driver 570.86.15), but PyTorch, for CUDA 12.6, cannot", "prints why"),
        ("None", "570.86.15", "a build without CUDA", "docs/dependencies.md"),
        ("99.0", "[N/A]", "cannot use them", "prints why"),
    ],
)
def test_why_gpus_are_not_used(cuda: str, driver: str, what: str, advice: str) -> None:
    found = nvidia.problem(cuda, driver)
    assert what in found[0]
    assert advice in found[1]


def test_the_page_names_the_drivers() -> None:
    """Those of the versions of CUDA for which the PyTorch that we install is built."""
    page = (Path(__file__).parents[2] / "docs" / "dependencies.md").read_text()
    assert all(f"| {cuda}.x | {nvidia.LEAST_DRIVER[cuda]} |" in page for cuda in (12, 13))


@pytest.mark.usefixtures("healthy")
def test_gpus_that_pytorch_does_not_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 390.10\necho 390.10\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert run("doctor") == 1
    assert len(re.findall(r"^BROKEN .*(390\.10|without CUDA)", capsys.readouterr().out, re.MULTILINE)) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    assert run("doctor") == 0


@pytest.mark.usefixtures("healthy", "quick")
def test_a_run_that_could_not_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", *of_recipe("pixpro_100ep"), "--gpus", 3) == 1
    assert re.search(r"BROKEN +batch_size 1024 cannot be divided among 3 processes", capsys.readouterr().out)
    own = tmp_path / "own.yaml"
    own.write_text(f"data: {{root: {tmp_path}/nowhere}}\nout: {own}/run\n")
    assert run("doctor", *of_recipe("pixpro_100ep"), "--config", own) == 1
    said = capsys.readouterr().out
    assert f"data.root {tmp_path}/nowhere does not exist" in said
    assert f"{own} is a file" in said
    with pytest.raises(UserError, match=r"config no\.yaml cannot be read"):
        run("doctor", "--config", "no.yaml")
    with pytest.raises(UserError, match="give its --config too"):
        run("doctor", "--gpus", 8)


def test_data_check_command(mini_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "check", "--root", mini_root) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split() for line in said if not line.startswith(" ")] == [[name, "ok"] for name in command_names()]
    assert all(line.split()[0] == "note:" for line in said if line.startswith(" "))
    assert run("data", "check", "--root", tmp_path, "--only", "coco", "VOC2007") == 2
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_data_check_of_what_a_protocol_reads(
    mini_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.txt").write_text("thing\n")
    assert run("data", "check", "--root", mini_root, "--protocol", "voc_c4") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split() for line in said if not line.startswith(" ")] == [["VOC2007", "ok"], ["VOC2012", "ok"]]
    assert any("note: 14 classes without an object to measure in ImageSets/Main/test.txt" in line for line in said)
    assert run("data", "check", "--root", mini_root, "--protocol", "voc_c4", "--classes", tmp_path / "own.txt") == 2
    assert "is not in " in capsys.readouterr().out
    own = "--root", mini_root, "--classes", tmp_path / "own.txt"
    with pytest.raises(UserError, match="lvis_fpn cannot run on classes of your own"):
        run("data", "check", *own, "--protocol", "lvis_fpn")
    with pytest.raises(UserError, match="--classes needs --protocol NAME or --only NAME"):
        run("data", "check", *own)


def command_names() -> list[str]:
    from transfer.datasets.layout import SETS

    return list(SETS)
