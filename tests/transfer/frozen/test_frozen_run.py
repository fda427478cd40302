"""Runs of a frozen protocol on label maps, with a method of a few lines: each class is recognised by its mean feature."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pixbench.errors import UserError
from pixbench.file_versions import MINI_WORLD_FILE
from pixbench.files import sha256
from pixbench.results import read_result
from transfer.datasets.check import OF_A_MINI_WORLD
from transfer.datasets.classes import Classes
from transfer.datasets.mask_numbers import IGNORED
from transfer.frozen.method import Measured, Run, Split
from transfer.frozen.methods import METHODS
from transfer.frozen.scoring import Confusion, labels_to_score, predicted
from transfer.job import TransferJob
from transfer.protocols import Protocol, find_protocol
from transfer.run import checked_data, run_transfer

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Settings:
    score_at: int = 32
    train_list: str | None = None


def evaluate(splits: dict[str, Split], settings: Settings, run: Run) -> Measured:
    train, test = splits["train"], splits["test"]
    classes = len(train.views.scenes.classes)
    sums = torch.zeros(classes, train.features.channels)
    for place in range(len(train)):
        cells, stride = train.features.map(place), train.features.stride
        labels = torch.from_numpy(train.views.labels(place)).long()[stride // 2 :: stride, stride // 2 :: stride]
        known = labels != IGNORED
        sums.index_add_(0, labels[known], cells[known])
    confusion = Confusion(classes)
    for place in range(len(test)):
        shares = test.features.map(place) @ torch.nn.functional.normalize(sums, dim=1).T
        labels = labels_to_score(test.views, place, settings.score_at)
        confusion.add(labels, predicted(shares, labels.shape))
    return Measured(confusion.metrics(), {"score_at": settings.score_at}, ("a method for tests",))


@pytest.fixture
def job(mini_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TransferJob:
    """The method on a copy of Cityscapes of the mini world."""
    module: ModuleType = sys.modules[__name__]
    monkeypatch.setitem(METHODS, "mean", module)
    shutil.copytree(mini_root / "cityscapes", tmp_path / "data/cityscapes")
    (tmp_path / "mean.yaml").write_text(yaml.safe_dump({"method": "mean", "images": {"size": 64}}))
    protocol = Protocol(
        "mean",
        "Classes by their mean",
        "frozen",
        tmp_path / "mean.yaml",
        ("cityscapes",),
        {"mIoU": "mIoU"},
        "here",
        mini={"images.size": 32},
    )
    return TransferJob(protocol, tmp_path / "data", tmp_path / "run", scale="mini", workers=0)


def masks(job: TransferJob) -> list[Path]:
    return sorted(job.data_root.glob("cityscapes/gtFine/*/*/*_labelTrainIds.png"))


def test_what_was_done_is_recorded(job: TransferJob) -> None:
    result = run_transfer(job)
    assert (result["kind"], result["framework"], result["iterations"]) == ("frozen", "frozen", 0)
    assert 0 <= result["metrics"]["mIoU"] <= 100
    assert result["deviations"] == ["images.size 32 instead of 64", "a method for tests"]
    found = result["evaluation"]
    assert (found["stride"], found["ignored"], found["score_at"], len(found["classes"])) == (16, [255], 32, 19)
    assert found["images"] == {
        **found["images"],
        "size": 32,
        "resize": "squash",
        "interpolation": "bilinear",
        "output_stride": None,
    }
    assert found["pictures"] == {"train": 12, "test": 12}
    assert {name: about["from"] for name, about in found["features"].items()} == {
        "train": "computed",
        "test": "computed",
    }
    assert read_result(job.out / "result.json")["evaluation"]["random"]["calibrated_pictures"] == 12


def test_at_paper_scale_a_mini_world_is_recorded(job: TransferJob, capsys: pytest.CaptureFixture[str]) -> None:
    (job.data_root / MINI_WORLD_FILE).touch()
    result = run_transfer(replace(job, scale="paper"))
    assert result["deviations"] == [OF_A_MINI_WORLD, "a method for tests"]
    assert f"data: {OF_A_MINI_WORLD}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cityscapes_knn", "cityscapes_fcn16s"])
def test_at_paper_scale_counts_are_compared_with_the_published_ones(job: TransferJob, name: str) -> None:
    """Frozen and fine-tuned alike: 12 pictures are no Cityscapes, unless somebody says so."""
    one = replace(job, protocol=find_protocol(name), scale="paper")
    for trust in (False, True, True):
        with pytest.raises(
            UserError,
            match=r"leftImg8bit/train\S* holds 12 images instead of 2975 \(data of your own needs --classes\); unpack",
        ):
            checked_data(one, trust)
        assert checked_data(replace(one, scale="mini"), trust).differs == []
    own = Classes(tuple(f"class {number}" for number in range(19)), "classes.txt")
    assert checked_data(replace(one, classes=own), False).differs == []
    assert not job.out.exists()


def larger(paths: list[Path]) -> None:
    with Image.open(paths[0]) as image:
        image.resize((image.width * 2, image.height)).save(paths[0])


def another_class(paths: list[Path]) -> None:
    with Image.open(paths[0]) as image:
        Image.fromarray(np.full_like(np.array(image), 19)).save(paths[0])


def all_ignored(paths: list[Path]) -> None:
    for path in paths:
        if "/val/" in str(path):
            with Image.open(path) as image:
                Image.fromarray(np.full_like(np.array(image), IGNORED)).save(path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (all_ignored, "ignored pixels only: there is nothing to measure"),
        (larger, r"pixels.*label map|label map.*pixels"),
        (another_class, r"19.*19 classes|the numbers of .* are 0 to 18"),
    ],
)
def test_label_maps_that_do_not_fit_are_refused_before_anything_is_computed(
    damage: object, sentence: str, job: TransferJob
) -> None:
    damage(masks(job))  # type: ignore[operator]
    with pytest.raises(UserError, match=sentence):
        run_transfer(job)
    assert not job.out.exists()


def test_a_wrong_setting_is_refused(job: TransferJob) -> None:
    for overrides, sentence in (
        ({"images.sise": 3}, "mean has no setting 'images.sise'; did you mean images.size"),
        ({"images.size": "large"}, 'mean with its overrides: images.size "large" is not possible; give an integer$'),
        ({"method": "mean"}, "mean has no setting 'method'"),
        ({"images.output_stride": 5}, "whose cells cannot be of 5 pixels"),
    ):
        with pytest.raises(UserError, match=sentence):
            run_transfer(replace(job, overrides=overrides))


@pytest.mark.parametrize("name", ["ade20k_incontext", "voc12aug_logistic", "voc12aug_foreground"])
def test_inputs_of_parts_of_cells_are_refused_before_anything_is_computed(
    mini_root: Path, tmp_path: Path, name: str
) -> None:
    job = TransferJob(find_protocol(name), mini_root, tmp_path / "run", scale="mini", workers=0)
    with pytest.raises(UserError, match=r"72 × 72 pixels, which is no multiple of the 16 pixels of a cell"):
        run_transfer(replace(job, overrides={"images.size": 72}))


def test_more_classes_than_label_maps_have_room_for_are_refused(job: TransferJob) -> None:
    names = Classes(tuple(f"n{number}" for number in range(255)), "classes.txt")
    with pytest.raises(UserError, match=r"classes.txt has 255 classes, but label maps have room for 254"):
        run_transfer(replace(job, classes=names))


def test_a_finished_run_says_which_data_it_had(
    job: TransferJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_transfer(job)
    shutil.copytree(job.data_root, tmp_path / "more")
    capsys.readouterr()
    run_transfer(replace(job, data_root=tmp_path / "more"))
    assert f" with the data in {job.data_root}, not {tmp_path / 'more'}, nothing to do" in capsys.readouterr().out
    (tmp_path / "link").symlink_to(job.data_root)
    assert run_transfer(replace(job, data_root=tmp_path / "link"))["data"]["root"] == str(job.data_root)
    assert "with the data in" not in capsys.readouterr().out


def test_an_edited_list_makes_another_run(job: TransferJob, tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    job = replace(job, overrides={"settings.train_list": str(path)})
    found = []
    for content in ("one", "two"):
        path.write_text(content)
        found.append(run_transfer(replace(job, out=tmp_path / content)))
        assert found[-1]["files"] == {"settings.train_list": sha256(path)}
    assert f"settings.train_list {path} (content {sha256(path)[:12]})" in found[1]["deviations"]
    assert found[0]["deviations"] != found[1]["deviations"]
    with pytest.raises(
        UserError, match=r"another run \(content of files settings.train_list was \w{12}…, now \w{12}…\)"
    ):
        run_transfer(replace(job, out=tmp_path / "one"))


def test_a_run_of_before_its_data_was_recorded_is_the_same_run(job: TransferJob, tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_text("one")
    job = replace(job, overrides={"settings.train_list": str(path)})
    result = run_transfer(job)
    identity = json.loads((job.out / "job.json").read_text(encoding="utf-8"))
    del identity["content of files"]
    (job.out / "job.json").write_text(json.dumps(identity), encoding="utf-8")
    assert run_transfer(job)["finished"] == result["finished"]
