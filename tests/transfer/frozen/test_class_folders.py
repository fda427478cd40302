"""Class folders that people have, and those that will not do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixbench.errors import UserError
from transfer.frozen.class_folders import class_folders
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.run import run_transfer


def tree(home: Path, names: str, *splits: str, wide: bool = False) -> Path:
    """Write two images of noise for each class in ``names`` and each of ``splits``."""
    rng = np.random.default_rng(0)
    for split in splits:
        for number, name in enumerate(names.split()):
            for image in range(2):
                path = home / split / name / f"{image}.{'png' if wide else 'jpg'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                values = rng.integers(0, 40 * (number + 1), (40, 40, 3))
                if wide:
                    Image.fromarray((values[..., 0] * 16).astype(np.uint16)).save(path)
                else:
                    Image.fromarray(values.astype(np.uint8)).save(path)
    return home


def test_any_suffix_any_capitals_and_what_systems_leave_there(tmp_path: Path) -> None:
    train, val = class_folders(tree(tmp_path / "imagenet", "cat dog .ipynb_checkpoints __MACOSX", "Train", "val"))
    assert train.source.root == tmp_path / "imagenet" / "Train"
    assert [(name, int(label)) for name, label in zip(val.source.names, val.source.labels, strict=True)] == [
        ("cat/0.jpg", 0),
        ("cat/1.jpg", 0),
        ("dog/0.jpg", 1),
        ("dog/1.jpg", 1),
    ]
    assert (train.name, val.name) == ("imagenet, train", "imagenet, test")


def empty_all(home: Path) -> None:
    for path in (home / "train").iterdir():
        shutil.rmtree(path)


def one_class(home: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(home / split / "dog")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (shutil.rmtree, r"imagenet/train is missing, as .*imagenet is not a folder; .*mini world"),
        (
            lambda home: shutil.rmtree(home / "val"),
            r"imagenet/val is missing; it must hold a folder of images for each class",
        ),
        (lambda home: shutil.rmtree(home / "val" / "dog"), r"contain different classes \(dog\); add the missing ones"),
        (lambda home: (home / "val/dog").rename(home / "val/Dog"), r"\(Dog, dog\); give them the same capitals"),
        (lambda home: (home / "train" / "a").mkdir(), r"imagenet/train/a holds no images \(\.jpg, "),
        (empty_all, r"imagenet/train holds no images"),
        (lambda home: (home / "Val").mkdir(), r"imagenet holds Val and val, which differ in capitals only"),
        (one_class, r"imagenet/train holds one class, cat, so there is nothing to tell apart; add a folder"),
    ],
    ids=["no data", "no val", "no class", "capitals", "empty class", "no classes", "two vals", "one class"],
)
def test_folders_that_will_not_do_are_refused_before_the_weights_are_read(
    tmp_path: Path, damage: Callable[[Path], Any], sentence: str
) -> None:
    damage(tree(tmp_path / "imagenet", "cat dog", "train", "val"))
    job = TransferJob(find_protocol("imagenet_probe"), tmp_path, tmp_path / "run", Path("no_such_file.pth"))
    with pytest.raises(UserError, match=sentence):
        run_transfer(job)
    assert not (tmp_path / "run").exists()


def test_wide_images_of_val_have_the_range_of_train(tmp_path: Path) -> None:
    train, val = class_folders(tree(tmp_path, "cat dog", "train", "val", wide=True))
    assert train.source.pixel_range == val.source.pixel_range == (0, 4095)
    assert 10 < np.asarray(val.picture(0)).max() < 40


def test_a_changed_picture_changes_the_fingerprint(tmp_path: Path) -> None:
    home = tree(tmp_path, "cat dog", "train", "val")
    train, val = class_folders(home)
    before = train.fingerprint(), val.fingerprint()
    Image.new("RGB", (40, 40)).save(home / "val/dog/1.jpg")
    assert (train.fingerprint(), val.fingerprint() == before[1]) == (before[0], False)
