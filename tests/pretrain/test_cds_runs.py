"""Runs of Contrastive Deep Supervision with a teacher, and on images some of which have no label."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.commands.main import main as pixbench
from benchmarks.dry_step import dry_step
from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE
from pretrain import checkpoint, engine
from pretrain.config import from_dict
from pretrain.settings import RunConfig
from pretrain.teacher import find_teacher
from transfer.weights import read

pytestmark = pytest.mark.slow

Make = Callable[..., RunConfig]


@pytest.fixture
def make(image_tree: Callable[..., Path], tmp_path: Path) -> Make:
    """Configs of runs on 24 images, 3 steps an epoch, 2 epochs, with a ResNet-18 on images of 32 pixels."""
    tree = image_tree(2, 12, size=(40, 36))

    def config(out: str, root: Path = tree, width: float = 0.125, epochs: int = 2, **method: Any) -> RunConfig:
        return from_dict(
            {
                "method": {"name": "cds", "classes": 2, "last_stage": True, **method},
                "data": {"root": str(root), "image_size": 32, "min_scale": 0.5, "recipe": "cds", "workers": 0},
                "backbone": {"depth": 18, "width": width, "stem": "3x3", "output_stride": 8},
                "optimizer": {"name": "sgd", "base_lr": 0.5},
                "schedule": {"warmup_epochs": 0},
                **{"epochs": epochs, "batch_size": 8, "log_every": 1, "out": str(tmp_path / out)},
            }
        )

    return config


@pytest.fixture
def teacher(make: Make, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run of one epoch with twice as many channels; trained once for all tests."""
    kept, path = tmp_path_factory.getbasetemp() / "teacher_of_cds.pth", tmp_path / "teacher" / CHECKPOINT_FILE
    if not kept.exists():
        engine.train(make("teacher", width=0.25, epochs=1))
        shutil.copyfile(path, kept)
    path.parent.mkdir(exist_ok=True)
    shutil.copyfile(kept, path)
    return path


def content_of(config: RunConfig) -> dict[str, Any]:
    return checkpoint.load(Path(config.out) / CHECKPOINT_FILE)


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch, config: RunConfig) -> None:
    """Train ``config`` until Ctrl-C in step number ``steps``."""
    original, done = engine.train_step, []

    def train_step(run: engine.Run, views: Any) -> dict[str, Any]:
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return original(run, views)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "train_step", train_step)
        with pytest.raises(KeyboardInterrupt):
            engine.train(config)


def assert_same_state(one: RunConfig, other: RunConfig) -> None:
    left, right = content_of(one), content_of(other)
    assert (left["step"], left["finished"]) == (right["step"], right["finished"]) == (6, True)
    assert left["model"].keys() == right["model"].keys()
    assert [name for name in left["model"] if not left["model"][name].equal(right["model"][name])] == []


def test_distilling_goes_on_bit_for_bit_without_the_file(
    make: Make, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    straight, broken = (replace(make(name, teacher=str(teacher)), accumulate=2) for name in ("straight", "broken"))
    engine.train(straight)
    said = capsys.readouterr().out
    assert f"teacher: {teacher} (ResNet-18 of width 0.25, 3×3 stem (CIFAR); sha256 " in said
    stop_after(4, monkeypatch, broken)
    teacher.unlink()
    engine.train(broken)
    assert_same_state(straight, broken)

    before = torch.load(shutil.copy(straight.out + "/" + CHECKPOINT_FILE, tmp_path / "copy.pth"), weights_only=True)
    assert before["teacher"]["source"] == str(teacher)
    assert {"teacher", "adaptation", "classifier"} <= set(before["left_behind"])
    reading = read(tmp_path / "copy.pth")  # what conversion takes: the student alone
    assert reading.backbone.spec.width == 0.125
    assert not reading.backbone.extras


def test_the_teachers_weights_are_those_of_its_run_to_the_end(make: Make, teacher: Path) -> None:
    held = checkpoint.load(teacher)["model"]
    student = make("student", teacher=str(teacher))
    engine.train(student)
    found = content_of(student)["model"]
    own = {name.removeprefix("teacher."): value for name, value in found.items() if name.startswith("teacher.")}
    assert own.keys() == held.keys()
    assert all(own[name].equal(held[name]) for name in held)

    pupil = make("pupil", teacher=str(Path(student.out) / CHECKPOINT_FILE), epochs=1)  # a teacher that had one
    engine.train(pupil)
    names = content_of(pupil)["model"].keys()
    assert {name.split(".")[1] for name in names if name.startswith("teacher.")} == {
        *("backbone", "classifier", "projector_layer1", "projector_layer2", "projector_layer3"),
    }


def test_a_dry_step_counts_the_teacher(make: Make, teacher: Path) -> None:
    alone, taught = dry_step(make("a")), dry_step(make("b", teacher=str(teacher)))
    size = sum(x.numel() * x.element_size() for x in checkpoint.load(teacher)["model"].values())
    adaptation = 4 * (64 * 128 + 128) * 4
    assert taught.parameters + taught.buffers == alone.parameters + alone.buffers + size + adaptation
    assert taught.trained == alone.trained + adaptation
    assert taught.operations > alone.operations


def test_files_that_are_no_teacher(make: Make, teacher: Path, tmp_path: Path) -> None:
    def refused(**method: Any) -> str:
        with pytest.raises(UserError) as caught:
            find_teacher(make("x", **method).method.settings)
        return str(caught.value)

    assert "nowhere.pth, but there is no such file; a teacher is the checkpoint.pth of a run of cds" in refused(
        teacher="nowhere.pth"
    )
    assert "has 2 classes, but method.classes is 3; choose a teacher" in refused(teacher=str(teacher), classes=3)
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "foreign.pth")
    assert "cannot be read (it is of another kind or version); a teacher is" in refused(
        teacher=f"{tmp_path}/foreign.pth"
    )
    content = checkpoint.load(teacher)
    checkpoint.save(tmp_path / "other.pth", content | {"method": "simclr"})
    assert "other.pth is of a run of simclr; a teacher is the checkpoint.pth" in refused(
        teacher=f"{tmp_path}/other.pth"
    )
    data = bytearray(teacher.read_bytes())
    data[len(data) // 2] ^= 1
    teacher.write_bytes(data)
    assert "cannot be read (" in refused(teacher=str(teacher))


@pytest.fixture
def some_labelled(image_tree: Callable[..., Path], tmp_path: Path) -> Path:
    """The list that docs/methods/cds.md writes: every third image keeps the name of its class as its label."""
    root = image_tree(2, 12, size=(40, 36), name="semi") / "train"
    files = sorted(path.relative_to(root) for path in root.rglob("*.JPEG"))
    rows = [f"{file},{file.parent if number % 3 == 0 else -1}\n" for number, file in enumerate(files)]
    (root / "semi.csv").write_text("".join(rows))
    return root / "semi.csv"


def test_images_without_labels(make: Make, some_labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight, broken = (
        replace(make(name, some_labelled, semi_supervised=True), accumulate=4) for name in ("one", "two")
    )
    engine.train(straight)
    stop_after(4, monkeypatch, broken)
    engine.train(broken)
    assert_same_state(straight, broken)


def test_they_must_be_asked_for(
    make: Make, some_labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        *("--config=configs/pretrain/cds_cifar_300ep.yaml", "--config=configs/pretrain/mini_linear.yaml"),
        *("--config=configs/pretrain/mini_cifar.yaml", "--backbone.width=0.125", "--epochs=1", "--batch_size=8"),
        *("--method.classes=2", f"--data.root={some_labelled}", f"--out={tmp_path / 'run'}", "--data.workers=0"),
    ]
    assert pixbench(["pretrain", *words]) == 2
    assert "some have none; leave those out, or use method cds with method.semi_supervised" in capsys.readouterr().err
    semi = [word.replace("cds_cifar", "cds_semi_cifar") for word in words]
    assert pixbench(["pretrain", *semi]) == 0
    assert "finished 1 epochs" in capsys.readouterr().out
