"""Which folders are classes, and which files are images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from pixbench.errors import UserError
from pretrain.data.folders import image_files
from pretrain.data.sources import open_source


def pictures(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("0.png", "1.png"):
        Image.new("RGB", (6, 5)).save(folder / name, "PNG")
    return folder


HIDDEN = [
    ".ipynb_checkpoints",
    "__MACOSX",
    "@eaDir",
    ".Trash-1000",
    "lost+found",
    "$RECYCLE.BIN",
    "System Volume Information",
]


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("layout", ["class_folder", "flat"])
@pytest.mark.parametrize("below", ["train", "."])
def test_hidden_folders_and_files_are_no_images(tmp_path: Path, name: str, layout: str, below: str) -> None:
    for cls in ("cat", "dog", name):
        pictures(tmp_path / below / cls)
    pictures(tmp_path / below / "cat" / name)
    pictures(tmp_path / below / "dog", "._0.png", ".hidden.jpg")
    (tmp_path / below / "dog" / "Thumbs.db").write_bytes(b"")
    source = open_source(tmp_path, layout)
    prefix = "train/" if (below, layout) == ("train", "flat") else ""
    assert list(source.names) == [f"{prefix}{cls}/{i}.png" for cls in ("cat", "dog") for i in (0, 1)]
    assert set(source.labels.tolist()) == ({-1} if layout == "flat" else {0, 1})


def test_names_of_all_kinds_are_kept_in_order(tmp_path: Path) -> None:
    pictures(tmp_path / "two words", "A.JPG", "b.Png", "ä 1.png", "z\n.png")
    pictures(tmp_path / "two words" / "deeper", "0.png")
    pictures(tmp_path / "日本", "1.png")
    assert list(open_source(tmp_path).names) == [
        *(f"two words/{name}" for name in ("A.JPG", "b.Png", "z\n.png", "ä 1.png", "deeper/0.png")),
        "日本/1.png",
    ]


@pytest.mark.parametrize("name", ["train", "Train", "TRAIN", "tRaIn"])
def test_the_split_folder_is_found_in_any_capitals(tmp_path: Path, name: str) -> None:
    pictures(tmp_path / name / "a")
    pictures(tmp_path / "Test" / "a")
    source = open_source(tmp_path)
    assert (source.root, len(source)) == (tmp_path / name, 2)


def test_two_split_folders_are_asked_about(tmp_path: Path) -> None:
    pictures(tmp_path / "train" / "a")
    pictures(tmp_path / "Train" / "a")
    with pytest.raises(UserError, match="holds Train and train, which differ in capitals only; rename or remove"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["Val", "VALIDATION", "Testing", "labels", "Annotations", "Masks", "COCO", "voc2012"])
def test_parts_of_data_sets_are_no_classes(tmp_path: Path, name: str) -> None:
    pictures(tmp_path / "cat")
    pictures(tmp_path / name)
    with pytest.raises(
        UserError, match=f"has no train/ folder but holds {name}: .*; give the folder that holds train/"
    ):
        open_source(tmp_path)
    pictures(tmp_path / "train" / name)
    assert len(open_source(tmp_path)) == 2  # below train/ any name will do


@pytest.mark.parametrize(("names", "meant"), [(("training", "Testing"), "training"), (("Images", "masks"), "Images")])
def test_the_likely_folder_is_suggested(tmp_path: Path, names: tuple[str, ...], meant: str) -> None:
    for name in names:
        pictures(tmp_path / name / "a")
    with pytest.raises(UserError, match=rf"did you mean {tmp_path}/{meant}\?"):
        open_source(tmp_path)
    assert len(open_source(tmp_path / meant)) == 2


def test_one_level_too_high_in_any_capitals(tmp_path: Path) -> None:
    pictures(tmp_path / "Food" / "Train" / "a")
    with pytest.raises(UserError, match=rf"holds Food/Train: .*did you mean {tmp_path}/Food\?"):
        open_source(tmp_path)


def test_links_that_lead_back_are_walked_once(tmp_path: Path) -> None:
    a, b = pictures(tmp_path / "train" / "a"), pictures(tmp_path / "train" / "b")
    (a / "back").symlink_to("..")
    (a / "self").symlink_to(".")
    (a / "root").symlink_to("/")
    (a / "nowhere").symlink_to("missing")
    (a / "itself").symlink_to("itself")
    (tmp_path / "train" / "again").symlink_to(tmp_path)
    assert list(open_source(tmp_path).names) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    (a / "other").symlink_to(b)
    (b / "other").symlink_to(a)  # each leads to the other, and then back
    assert [*image_files(a)] == ["0.png", "1.png", "other/0.png", "other/1.png"]


def test_links_to_other_folders_are_followed(tmp_path: Path) -> None:
    pictures(tmp_path / "store" / "x")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a").symlink_to(tmp_path / "store")
    (tmp_path / "train" / "b").symlink_to(tmp_path / "store" / "x")
    assert list(open_source(tmp_path).names) == [f"{where}/{i}.png" for where in ("a/x", "b") for i in (0, 1)]


def test_an_empty_class_folder_keeps_its_label(tmp_path: Path) -> None:
    for name in ("a", "c"):
        pictures(tmp_path / "train" / name)
    (tmp_path / "train" / "b").mkdir()
    source = open_source(tmp_path)
    assert (source.labels.tolist(), source.index.empty) == ([0, 0, 2, 2], ("b",))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_root_that_may_be_entered_but_not_listed(tmp_path: Path) -> None:
    pictures(tmp_path / "images" / "train" / "a")
    (tmp_path / "images").chmod(0o311)
    try:
        assert len(open_source(tmp_path / "images")) == 2
    finally:
        (tmp_path / "images").chmod(0o755)
