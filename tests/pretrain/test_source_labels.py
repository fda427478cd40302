"""Labels as people have them: numbers stay as they are, names are numbered as class folders are."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE, IMAGE_LIST
from pretrain import checkpoint, engine
from pretrain.data.image_list import read_list
from pretrain.data.index import Index
from pretrain.data.sources import open_source
from pretrain.data.sources.mixture import joined
from pretrain.resume import list_images
from pretrain.settings import RunConfig


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight pictures, 0.png to 7.png."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(8):
        Image.new("RGB", (40, 36), (30 * number, 0, 99)).save(folder / f"{number}.png")
    return folder


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    return path


def shard(path: Path, labels: list[bytes | None]) -> Path:
    with tarfile.open(path, "w") as archive:
        for number, label in enumerate(labels):
            stream = io.BytesIO()
            Image.new("RGB", (8, 6), (number, 0, 0)).save(stream, "PNG")
            for kind, content in (("cls", label), ("png", stream.getvalue())):
                if content is not None:
                    info = tarfile.TarInfo(f"{number:03}.{kind}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("l.csv", ["path,class", "0.png,dog", "1.png,cat", "2.png,great dane", "3.png,dog"]),
        ("l.csv", ["0.png,dog", "1.png, cat ", '2.png,"great dane"', "3.png,dog"]),
        ("l.tsv", ["0.png\tdog", "1.png\tcat", "2.png\tgreat dane", "3.png\tdog"]),
        ("l.txt", ["0.png dog", "1.png cat", "2.png great dane", "3.png\tdog"]),
    ],
)
def test_names_are_numbered_in_alphabetical_order(pictures: Path, tmp_path: Path, name: str, lines: list[str]) -> None:
    index = open_source(write(pictures / name, *lines)).index
    assert list(index.names) == ["0.png", "1.png", "2.png", "3.png"]
    assert (index.classes, index.labels.tolist()) == (("cat", "dog", "great dane"), [1, 0, 2, 1])
    index.write(tmp_path / "l.index")
    again = Index.read(tmp_path / "l.index")
    assert (again.classes, again.labels.tolist(), again.fingerprint) == (index.classes, [1, 0, 2, 1], index.fingerprint)


def test_the_order_is_that_of_class_folders(tmp_path: Path) -> None:
    names = ["b", "B", "a b", "a", "ä", "日本", "n01440764", "\udce9tat", "A1"]
    lines = []
    for name in names:
        (tmp_path / "folders" / name).mkdir(parents=True)
        Image.new("RGB", (5, 5)).save(tmp_path / "folders" / name / "0.png")
        lines.append(f"folders/{name}/0.png,{name}")
    in_list, in_folders = open_source(write(tmp_path / "l.csv", *lines)), open_source(tmp_path / "folders")
    assert in_list.index.classes == tuple(sorted(names)) == in_folders.index.classes
    labels = {name.removeprefix("folders/"): in_list.label(i) for i, name in enumerate(in_list.names)}
    assert labels == {name: in_folders.label(i) for i, name in enumerate(in_folders.names)}


def test_whole_numbers_stay_as_they_are(pictures: Path) -> None:
    index = open_source(write(pictures / "l.csv", "0.png,12", "1.png,-1", "2.png,3", "3.png,007")).index
    assert (index.labels.tolist(), index.classes) == ([12, -1, 3, 7], ())


def test_minus_one_is_no_label_beside_names(pictures: Path) -> None:
    index = open_source(write(pictures / "l.csv", "0.png,-1", "1.png,dog", "2.png,ant", "3.png,-1")).index
    assert (index.labels.tolist(), index.classes) == ([-1, 1, 0, -1], ("ant", "dog"))


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("l.csv", ["0.png,cat", "1.png,7"], r"line 2 of .*l\.csv: label '7' is a number, but label 'cat' \(line 1 of"),
        (
            "l.csv",
            ["path,class_id", "0.png,7", "1.png,8", "2.png,cat"],
            r"line 4 of .*: label 'cat' is a name, but label '7'",
        ),
        ("l.txt", ["0.png 7", "1.png cat"], r"line 2 of .*l\.txt: label 'cat' is a name, but label '7' \(line 1 of"),
        ("l.csv", ["0.png,-1", "1.png,cat", "2.png,0"], r"line 3 of .*: label '0' is a number, .*\(line 2 of"),
        ("l.csv", ["0.png,cat", "1.png,"], r"line 2 of .*l\.csv: there is no label; write -1"),
        ("l.csv", ["0.png,cat", "1.png,1.0"], r"line 2 of .*: label '1\.0' is not a whole number"),
        ("l.csv", ["0.png,cat", "1.png,-7"], r"line 2 of .*: label '-7' is not a whole number"),
    ],
)
def test_names_and_numbers_do_not_mix(pictures: Path, name: str, lines: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_source(write(pictures / name, *lines))


def test_names_in_shards(tmp_path: Path) -> None:
    first = shard(tmp_path / "a-0.tar", [b"dog\n", b"cat", None])
    assert open_source(first).index.labels.tolist() == [1, 0, -1]
    shard(tmp_path / "a-1.tar", [b"bee"])
    index = open_source(tmp_path / "a-*.tar").index  # one numbering for all shards
    assert (index.labels.tolist(), index.classes) == ([2, 1, -1, 0], ("bee", "cat", "dog"))
    for label, said in [
        (b"3", r"label '3' is a number, but label 'dog' \(000\.cls in .*a-0\.tar\) is a name"),
        (b"", r"000\.cls in .*a-1\.tar: there is no label"),
        (b"\x80\x04K\x03.", r"000\.cls in .*a-1\.tar: label .* is not a whole number .* and no name"),
        (b"x" * 2000, r"000\.cls in .*a-1\.tar: label 'x+' is not a whole number .* and no name"),
    ]:
        shard(tmp_path / "a-1.tar", [label])
        with pytest.raises(UserError, match=said):
            open_source(tmp_path / "a-*.tar")


def test_a_mixture_joins_names_in_folders_and_lists(pictures: Path, tmp_path: Path) -> None:
    for name in ("cat", "eel"):
        (tmp_path / "folders" / name).mkdir(parents=True)
        Image.new("RGB", (5, 5)).save(tmp_path / "folders" / name / "0.png")
    listed = write(pictures / "l.csv", "0.png,dog", "1.png,-1", "2.png,cat")
    mixed = joined([open_source(root).index for root in (tmp_path / "folders", listed)], [1, 1])
    assert (mixed.classes, mixed.labels.tolist()) == (("cat", "dog", "eel"), [0, 2, 1, -1, 0])
    numbers = write(pictures / "n.csv", "0.png,1")
    with pytest.raises(UserError, match="labels are names of classes with others whose labels are numbers"):
        joined([open_source(root).index for root in (listed, numbers)], [1, 1])


@pytest.fixture
def run_of(tiny: Callable[..., RunConfig], pictures: Path) -> Callable[[Path], RunConfig]:
    def make(root: Path) -> RunConfig:
        config = tiny("run", epochs=1)
        return replace(config, data=replace(config.data, root=str(root), layout="auto", cache=False))

    return make


@pytest.mark.slow
def test_a_run_keeps_its_numbers(pictures: Path, run_of: Callable[[Path], RunConfig]) -> None:
    """Without the only ant, a new numbering would begin with bee; the list of the run counts."""
    lines = ["0.png,dog", "1.png,ant", *(f"{n}.png,bee" for n in range(2, 8))]
    config = run_of(write(pictures / "l.csv", *lines))
    engine.train(config)
    assert read_list(Path(config.out) / IMAGE_LIST)[1].tolist() == [2, 0, *[1] * 6]
    content: dict[str, Any] = checkpoint.load(Path(config.out) / CHECKPOINT_FILE)
    write(pictures / "l.csv", lines[0], *lines[2:])
    (pictures / "1.png").unlink()
    _, source, notes = list_images(config, content)
    assert source.labels.tolist() == [2, 0, *[1] * 6]
    assert source.stand_ins == {1: 2}
    assert any("1 image of this run is missing (1.png)" in note for note in notes)
    assert engine.train(replace(config, epochs=2)) == 0
