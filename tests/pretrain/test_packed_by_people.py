"""Archives as people and tools pack them: "tar -cf x.tar .", links, empty class folders."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from pixbench.errors import UserError
from pretrain.data.sources import open_source


def picture(path: Path, red: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (red, 0, 0)).save(path)


def reds(root: Path) -> list[int]:
    source = open_source(str(root))
    return [source.load(index).getpixel((0, 0))[0] for index in range(len(source))]  # type: ignore[index]


@pytest.mark.parametrize("named", [".", "./a.png ./sub", "../in/a.png ../in/sub", "-P {full}/a.png {full}/sub"])
def test_a_tar_whose_names_begin_with_a_dot_or_a_slash(named: str, tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", 10)
    picture(tmp_path / "in" / "sub" / "b.png", 20)
    words = named.format(full=tmp_path / "in").split()
    subprocess.run(
        ["tar", "-cf", tmp_path / "x.tar", "--sort=name", *words],
        cwd=tmp_path / "in",
        check=True,
        env={**os.environ, "LC_ALL": "C"},
        stderr=subprocess.DEVNULL,
    )
    assert reds(tmp_path / "x.tar") == [10, 20]


def test_links_in_a_tar_are_images_too(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture(folder / "a.png", 10)
    os.link(folder / "a.png", folder / "hard.png")
    (folder / "soft.png").symlink_to("a.png")
    subprocess.run(["tar", "-cf", tmp_path / "x.tar", "--sort=name", "."], cwd=folder, check=True)
    assert reds(tmp_path / "x.tar") == [10, 10, 10]
    (folder / "lost.png").symlink_to("nowhere.png")
    subprocess.run(["tar", "-cf", tmp_path / "x.tar", "--sort=name", "."], cwd=folder, check=True)
    with pytest.raises(UserError, match=r"lost\.png in .*x\.tar is a link to nowhere\.png, which is not in it"):
        open_source(str(tmp_path / "x.tar"))


def test_a_shard_without_images_among_others(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", 10)
    (tmp_path / "in" / "b.txt").write_text("x")
    for name, member in (("ok", "a.png"), ("odd", "b.txt")):
        subprocess.run(["tar", "-cf", tmp_path / f"{name}.tar", member], cwd=tmp_path / "in", check=True)
    with pytest.raises(UserError, match=r"shard .*odd\.tar holds no images"):
        open_source(f"{tmp_path}/{{odd,ok}}.tar")


@pytest.mark.parametrize("top", ["", "train/", "set/"])
def test_an_empty_class_folder_in_a_zip_keeps_its_number(top: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / top / "A").mkdir(parents=True)
    for number, name in enumerate("BC"):
        picture(folder / top / name / "x.png", number)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    packed, unpacked = open_source(str(tmp_path / "x.zip")), open_source(str(folder / ("set" if top == "set/" else "")))
    assert packed.labels.tolist() == unpacked.labels.tolist() == [1, 2]
    assert packed.index.classes == unpacked.index.classes == ("A", "B", "C")
    assert packed.index.empty == unpacked.index.empty == ("A",)
