"""What people give that is nearly right is read as they mean it, or a sentence says what to do. Nothing is lost in silence."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE
from pretrain import checkpoint, engine
from pretrain.data.index import Index
from pretrain.data.sources import Source, open_source
from pretrain.resume import list_images
from pretrain.settings import RootConfig, RunConfig


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 36)).save(folder / name)
    return folder


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    return path


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def both(folder: Path) -> list[Path]:
    """The folder, and a zip of what is in it."""
    return [folder, zipped(folder, folder.with_suffix(".zip"))]


@pytest.mark.parametrize("below", ["", "train/"])
def test_images_beside_class_folders_are_asked_about(tmp_path: Path, below: str) -> None:
    home = pictures(tmp_path / "mine", *(f"{below}{n}.png" for n in range(3)), f"{below}sub/a.png", f"{below}sub/b.png")
    for root in both(home):
        with pytest.raises(UserError, match=r"3 images \(for example 0\.png\) .*layout flat .*class_folder"):
            open_source(root)
        for source in (open_source(root, "class_folder"), open_source(root, begun=True)):
            assert list(source.names) == ["sub/a.png", "sub/b.png"]
            assert source.index.classes == ("sub",)
            assert [note for note in source.index.notes if "3 images (for example 0.png)" in note]
        assert len(open_source(root, "flat")) == 5
        assert open_source(root, "flat").index.notes == ()


@pytest.mark.slow
def test_a_stray_image_does_not_stop_a_run_that_has_begun(
    tiny: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny("run", epochs=1)
    config = replace(config, data=replace(config.data, layout="auto"))
    engine.train(config)
    before = capsys.readouterr().out
    pictures(Path(config.data.root) / "train", "stray.png")
    assert engine.train(replace(config, epochs=2)) == 0
    assert "warning: 1 image (for example stray.png)" in capsys.readouterr().out
    assert "warning" not in before
    mixture = [RootConfig(config.data.root)]
    mixed = replace(config, data=replace(config.data, root="", mixture=mixture), out=f"{config.out}2")
    with pytest.raises(UserError, match="1 image "):
        list_images(mixed, None)
    explicit = replace(mixed, data=replace(mixed.data, mixture=[RootConfig(config.data.root, layout="class_folder")]))
    _, source, notes = list_images(explicit, None)
    assert (len(source), ["stray.png" in note for note in notes]) == (24, [True])


def test_every_kind_of_folder_says_what_it_may_be(tmp_path: Path) -> None:
    loose = pictures(tmp_path / "loose", "a.png")
    for root in both(loose):
        with pytest.raises(UserError, match=r"no class folders; .*1 image.*layout flat"):
            open_source(root)
    for where, pattern in (("shards", "*.tar"), ("shards/train", "*.tar"), ("deep/part0", "*.tar")):
        (tmp_path / where).mkdir(parents=True)
        tarfile.open(tmp_path / where / "0.tar", "w").close()
        said = re.escape(f"'{tmp_path / where}/{pattern}'")
        for layout in ("auto", "class_folder"):
            with pytest.raises(UserError, match=said):
                open_source(tmp_path / where, layout)
    said = re.escape(f"'{tmp_path}/deep/*/*.tar'")
    for layout in ("auto", "class_folder", "flat", "webdataset"):
        with pytest.raises(UserError, match=said):
            open_source(tmp_path / "deep", layout)
    with pytest.raises(UserError, match=r"shards is a folder; .*'.*/shards/\*\.tar'"):
        open_source(tmp_path / "shards", "webdataset")
    (tmp_path / "zips").mkdir()
    zipped(loose, tmp_path / "zips" / "a.zip")
    with pytest.raises(UserError, match=r"holds zips, for example .*a\.zip; give one of them"):
        open_source(tmp_path / "zips")
    (tmp_path / "zips" / "a.zip").rename(tmp_path / "zips" / "a.tar.gz")
    with pytest.raises(UserError, match=r"a\.tar\.gz.*unpack"):
        open_source(tmp_path / "zips")


def test_a_shard_in_capitals(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "A.TAR", "w") as archive:
        archive.add(pictures(tmp_path, "0.png") / "0.png", "0.png")
    assert list(open_source(tmp_path / "A.TAR").names) == ["A.TAR/0.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pictures(tmp_path / "images", "0.png", "deep/1.png", "a;b.png")


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", [["path", "label"], ["id", "class", "filename"], [], ["", "Image", "x", "label"]])
def test_the_separator_is_found(folder: Path, suffix: str, separator: str, header: list[str]) -> None:
    """In what Excel and pandas write, whatever the name of the file says."""
    rows = []
    for name, label in (("0.png", "7"), ("deep/1.png", "3")):
        place = {"filename": name, "path": name, "image": name, "label": label, "class": label}
        rows.append([place.get(word.lower(), "5") for word in header] if header else [name, label])
    lines = [separator.join(row) for row in ([header] if header else []) + rows]
    source = open_source(write(folder / f"l{suffix}", *lines))
    assert (list(source.names), source.labels.tolist()) == (["0.png", "deep/1.png"], [7, 3])


def test_a_separator_in_a_path_is_none(folder: Path) -> None:
    assert list(open_source(write(folder / "l.csv", "a;b.png,1")).names) == ["a;b.png"]
    assert list(open_source(write(folder / "l.csv", "a;b.png")).names) == ["a;b.png"]
    assert list(open_source(write(folder / "l.txt", "a;b.png")).names) == ["a;b.png"]


def test_a_blank_line_at_the_top(folder: Path) -> None:
    source = open_source(write(folder / "l.csv", "", ",", "path,label", "0.png,7"))
    assert (list(source.names), source.labels.tolist()) == (["0.png"], [7])


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("l.csv", ["id,where,what", "0,0.png,cat"], r"line 1 of .* column names \(id, where, what\); .*path .*label"),
        ("l.csv", ["id;where;what", "0;0.png;cat"], r"line 1 of .* column names \(id, where, what\)"),
        ("l.csv", ["", "where,what", "0.png,1"], r"line 2 of .* column names"),
        (
            "l.csv",
            ["id,class", "0,cat"],
            r"column 'class' but none for the paths; call that path \(or .*file_name, filename",
        ),
        ("l.txt", ["where what", "0.png cat"], r"line 1 of .* column names \(where, what\); delete"),
        ("l.txt", ["path label", "0.png 3"], r"line 1 of .* column names \(path, label\); delete"),
        ("l.txt", ["filename", "0.png"], r"line 1 of .* column names \(filename\); delete"),
        ("l.txt", ["0.png,cat", "deep/1.png,dog"], r"not in .*call it \.csv"),
        ("l.txt", ["0.png;3", "deep/1.png;4"], r"not in .*call it \.csv"),
        ("l.txt", ["deep\\1.png", "deep\\2.png"], r"not in .*/ instead of \\"),
        ("l.csv", ["deep\\1.png,3", "deep\\2.png,4"], r"not in .*/ instead of \\"),
    ],
)
def test_misleading_lists_are_explained(folder: Path, name: str, lines: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_source(write(folder / name, *lines))


def test_a_column_of_labels_that_is_not_known_is_said(folder: Path) -> None:
    source = open_source(write(folder / "l.csv", "id,img_path,y,split", "7,0.png,3,train"))
    assert (list(source.names), source.labels.tolist()) == (["0.png"], [-1])
    assert "no column called label (or class, " in source.index.notes[0]
    assert "but id, img_path, y, split, so its images have no labels" in source.index.notes[0]
    assert open_source(write(folder / "l.csv", "path", "0.png")).index.notes == ()


@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_a_list_in_utf_16(folder: Path, suffix: str) -> None:
    (folder / f"l{suffix}").write_text("path,label\n0.png,1\n", encoding="utf-16")
    with pytest.raises(UserError, match="is in UTF-16; save it in UTF-8"):
        open_source(folder / f"l{suffix}")


@pytest.mark.parametrize(
    "lines", [["img.dat 3", "x/img2.dat 4"], ["img.dat", "x/img2.dat"], ["one 3", "two 4"], ["a.gif 0", "b.png 1"]]
)
@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_paths_with_other_suffixes_are_no_column_names(tmp_path: Path, lines: list[str], suffix: str) -> None:
    for line in lines:
        path = tmp_path / line.split()[0]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    if suffix == ".csv":
        lines = [line.replace(" ", ",") for line in lines]
    assert list(open_source(write(tmp_path / f"l{suffix}", *lines)).names) == [
        re.split("[ ,]", line)[0] for line in lines
    ]


def test_a_label_is_not_swallowed(folder: Path) -> None:
    with pytest.raises(UserError, match=r"line 2 of .*l\.txt has a label \(3\), but the first line has none"):
        open_source(write(folder / "l.txt", "0.png", "deep/1.png 3"))
    with pytest.raises(UserError, match=r"line 3 of .*l\.txt: there is no label; write -1"):
        open_source(write(folder / "l.txt", "0.png 2", "deep/1.png 3", "a;b.png"))
    with pytest.raises(UserError, match=r"line 2 of .*l\.csv has 1 column; it must have 2"):
        open_source(write(folder / "l.csv", "0.png,2", "deep/1.png"))


def said_missing(source: Source) -> list[str]:
    return [note for note in source.index.notes if "that were looked for are not in" in note]


def test_paths_that_are_not_there_are_counted(folder: Path, tmp_path: Path) -> None:
    paths = ["0.png", "no.png", "deep/1.png", "neither.png"]
    source = open_source(write(folder / "l.txt", *paths))
    assert len(source) == 4
    (note,) = said_missing(source)
    assert "2 of 4 paths of" in note
    assert "no.png" in note
    content = {"images": [{"file_name": path} for path in paths]}
    (folder / "l.json").write_text(json.dumps(content))
    assert len(said_missing(open_source(folder / "l.json"))) == 1
    assert open_source(write(folder / "ok.txt", "0.png", "deep/1.png")).index.notes == ()
    many = write(folder / "many.txt", "0.png", *(f"x{n}.png" for n in range(999)))
    assert "99 of 100 paths" in said_missing(open_source(many))[0]
    source.index.write(tmp_path / "l.index")
    assert Index.read(tmp_path / "l.index").notes == source.index.notes


@pytest.mark.slow
def test_a_run_says_which_paths_are_missing(tiny: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny("run", epochs=1)
    images = open_source(config.data.root)
    listed = write(images.root / "l.txt", *images.names, "gone.png")
    config = replace(config, data=replace(config.data, root=str(listed), layout="auto"))
    assert engine.train(config) == 0
    printed = capsys.readouterr().out
    assert "warning: 1 of 25 paths of" in printed
    assert checkpoint.load(Path(config.out) / CHECKPOINT_FILE)["config"]["data"]["layout"] == "list"


def test_no_message_names_an_option_of_one_command(folder: Path, tmp_path: Path) -> None:
    """They are read in `pixbench pretrain` (--data.layout), `pixbench data index` (--layout) and data.mixture (layout)."""
    outside = write(folder / "o.txt", "../x.png")
    for root, layout, more in [
        ("", "auto", ""),
        (tmp_path / "nowhere", "auto", ""),
        (tmp_path / "nowhere", "flat", ""),
        (tmp_path / "nowhere.index", "auto", ""),
        (folder, "listing", ""),
        (folder, "list", ""),
        (folder, "flat", "x"),
        (folder, "auto", ""),
        (outside, "auto", ""),
        (write(folder / "n.txt", "x.png"), "auto", ""),
        (f"{folder}/*.tar", "auto", ""),
        (f"{folder}/{{0,1}}.tar", "auto", ""),
        (write(folder / "a.tgz", ""), "auto", ""),
        (write(folder / "a.bin", ""), "auto", ""),
        (folder / "none.zip", "auto", ""),
        ("memory://bucket/folder", "auto", ""),
        ("memory://bucket/none.zip", "auto", ""),
    ]:
        with pytest.raises(UserError) as caught:
            open_source(root, layout, more)
        assert "data." not in str(caught.value).replace("docs/data.md", ""), str(caught.value)
        assert "--" not in str(caught.value)
