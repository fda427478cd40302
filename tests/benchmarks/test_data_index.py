"""`pixbench data index`: an index of what people have, for runs that start at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.commands.main import main
from pretrain.data.sources import open_source


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(4):
        folder = tmp_path / "pictures" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def test_an_index_works_from_everywhere(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pictures.parent)
    (pictures / "nothing").mkdir()
    assert main(["data", "index", "--root", "pictures", "--out", "a.index"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("a.index: 4 images, 4 with a label, 3 classes (layout class_folder), ")
    assert "note: the class folder nothing holds no images" in printed
    monkeypatch.chdir("/")
    source = open_source(pictures.parent / "a.index")
    assert source.fingerprint() == open_source(pictures).fingerprint()
    assert source.load(3).size == (8, 8)
    monkeypatch.chdir(pictures)
    Path("l.csv").write_text("class0/0.png\n")
    Path("l.csv").rename("../l.csv")
    assert main(["data", "index", "--root", "../l.csv", "--folder", ".", "--out", "../l.index"]) == 0
    monkeypatch.chdir("/")
    assert open_source(pictures.parent / "l.index").load(0).size == (8, 8)


def test_what_cannot_be_indexed_leaves_the_old_index(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = pictures.parent / "a.index"
    assert main(["data", "index", "--root", str(pictures), "--layout", "flat", "--out", str(out)]) == 0
    before = out.read_bytes()
    for root, name, said in [
        (pictures / "nowhere", out, "does not exist"),
        (out, out, "is an index already; give the images themselves"),
        (pictures, pictures.parent / "a.idx", "must end with .index"),
        ("", out, "the root of the images is not set"),
    ]:
        assert main(["data", "index", "--root", str(root), "--out", str(name)]) == 2
        assert said in capsys.readouterr().err
    assert out.read_bytes() == before
    assert sorted(path.name for path in pictures.parent.iterdir()) == ["a.index", "pictures"]


def test_help_for_newcomers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "index", "--help"])
    printed = capsys.readouterr().out
    for words in (
        "pixbench pretrain --data.root imagenet.index",
        "share the index in memory",
        "Make it again when images",
    ):
        assert words in printed


def test_what_an_index_leaves_out_is_said(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = pictures.parent / "a.index"
    Image.new("RGB", (8, 8)).save(pictures / "loose.png")
    words = ["data", "index", "--out", str(out), "--root"]
    assert main([*words, str(pictures)]) == 2
    assert "1 image (for example loose.png) lies directly in" in capsys.readouterr().err
    assert not out.exists()
    assert main([*words, str(pictures), "--layout", "class_folder"]) == 0
    assert "warning: 1 image (for example loose.png) lies directly in" in capsys.readouterr().out
    assert open_source(out).index.notes == ()
    (pictures / "l.txt").write_text("loose.png\ngone.png\n")
    assert main([*words, str(pictures / "l.txt")]) == 0
    assert "warning: 1 of 2 paths of" in capsys.readouterr().out
    (pictures / "l.txt").write_text("loose.png cat\n")
    assert main([*words, str(pictures / "l.txt")]) == 0
    assert f"{out}: 1 image, 1 with a label, 1 class (layout list)" in capsys.readouterr().out
