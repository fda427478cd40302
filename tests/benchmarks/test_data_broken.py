"""`pixbench data broken` finds before a run what the run would skip."""

from __future__ import annotations

import re
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.commands.main import main
from pixbench.file_versions import SKIPPED_LIST
from pretrain import engine
from pretrain.config import from_dict
from pretrain.data.sources import open_source


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twenty-four pictures in two folders, of which four are broken."""
    rng = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "pictures" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{number:02}.jpg")
    home = tmp_path / "pictures"
    (home / "class0" / "04.jpg").write_bytes(b"")
    (home / "class0" / "06.jpg").write_bytes((home / "class0" / "06.jpg").read_bytes()[:500])
    (home / "class1" / "07.jpg").write_text("no image")
    (home / "class1" / "09.jpg").rename(home / "class1" / "ä\n.jpg")
    (home / "class1" / "ä\n.jpg").write_bytes(b"")
    return home


@pytest.mark.slow
def test_the_list_is_that_of_a_run(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "broken", "--root", str(pictures)]) == 1
    found = capsys.readouterr()
    lines = found.out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        "class0/04.jpg",
        "class0/06.jpg",
        "class1/07.jpg",
        r"class1/\xe4\n.jpg",
    ]
    assert "4 of 24 images broken" in found.err
    assert "a run skips up to 1 of them (data.max_skipped)" in found.err

    run = {
        "method": {"name": "pixpro", "hidden": 8, "dim": 8},
        "data": {
            "root": str(pictures),
            "image_size": 32,
            "min_scale": 0.2,
            "workers": 0,
            "cache": True,
            "max_skipped": 1,
        },
        "backbone": {"depth": 18, "width": 0.0625, "output_stride": 16},
        "schedule": {"warmup_epochs": 0},
        **{"epochs": 1, "batch_size": 8, "out": str(tmp_path / "run")},
    }
    assert engine.train(from_dict(run)) == 0
    assert sorted((tmp_path / "run" / SKIPPED_LIST).read_text().splitlines()) == lines
    printed = capsys.readouterr().out
    told = printed.index(f"4 of 24 images cannot be decoded: {pictures}/class0/04.jpg (it is empty), ")
    assert told < printed.index("is skipped")


def test_good_images_of_other_kinds(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("00", "02", "04"):
            archive.write(pictures / "class0" / f"{name}.jpg", f"a/{name}.jpg")
    open_source(tmp_path / "a.zip").index.write(tmp_path / "a.index")
    monkeypatch.chdir(tmp_path)
    for root in ("a.zip", "a.index"):
        assert main(["data", "broken", "--root", root, "--workers", "1"]) == 1
        assert capsys.readouterr().out == "a/04.jpg\tit is empty\n"
    (tmp_path / "l.txt").write_text("00.jpg\n02.jpg\ngone.jpg\n")
    assert main(["data", "broken", "--root", "l.txt", "--folder", "pictures/class0"]) == 1
    said = capsys.readouterr()
    assert said.out == "gone.jpg\tgone\n"
    assert "warning: 1 of 3 paths of" in said.err
    (tmp_path / "l.txt").write_text("00.jpg\n02.jpg\n")
    assert main(["data", "broken", "--root", "l.txt", "--folder", "pictures/class0"]) == 0
    said = capsys.readouterr()
    assert (said.out, "l.txt: none of 2 images broken" in said.err) == ("", True)
    for words, sentence in [
        (["--root", "nowhere"], "nowhere does not exist"),
        (["--root", "l.txt", "--workers", "0"], "--workers 0 is not possible"),
    ]:
        assert main(["data", "broken", *words]) == 2
        assert sentence in capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.write(pictures / "class0" / "00.jpg", "b/00.jpg")
    open_source(tmp_path / "b.zip").index.write(tmp_path / "b.index")
    (tmp_path / "b.zip").write_bytes((tmp_path / "b.zip").read_bytes() + b"more")
    assert main(["data", "broken", "--root", "b.index"]) == 2
    assert "b.zip has" in capsys.readouterr().err


def test_wide_images_need_a_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The range is found in a sample of 256 images, as in a run; an image of another kind outside of the sample ends a run."""
    (tmp_path / "wide").mkdir()
    for number in range(512):
        Image.new("L", (4, 4)).save(tmp_path / "wide" / f"{number:03}.png")
    Image.new("F", (4, 4), 0.5).save(tmp_path / "wide" / "001.tif")
    (tmp_path / "wide" / "001.png").unlink()
    words = ["data", "broken", "--root", str(tmp_path / "wide"), "--layout", "flat"]
    assert main(words) == 1
    assert "is of mode F, and the range of its values is not known" in capsys.readouterr().out
    assert main([*words, "--pixel_range", "0", "1"]) == 0
    assert main([*words, "--pixel_range", "1", "0"]) == 2


@pytest.mark.slow
def test_the_first_run_in_the_docs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands, with smaller views and fewer epochs."""
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    broken, pretrain = (shlex.split(line, comments=True) for line in block.splitlines())
    rng = np.random.default_rng(0)
    folder = tmp_path / broken[broken.index("--root") + 1]
    for number in range(32):
        (folder / f"{number % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{number % 3}" / f"{number}.jpg")
    monkeypatch.chdir(tmp_path)
    assert main(broken[1:]) == 0
    smaller = ["--epochs", "1", "--data.image_size", "32", "--data.workers", "0", "--backbone.width", "0.0625"]
    assert main([*pretrain[1:], *smaller]) == 0
    assert "pixpro: 32 images, 1 epoch of 1 step of 32 images" in capsys.readouterr().out
    assert (tmp_path / "runs" / "first" / "checkpoint.pth").exists()
