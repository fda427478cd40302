"""Every kind of source gives the same images, and what people get wrong is one sentence."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from pixbench.errors import UserError
from pretrain.data.index import Index
from pretrain.data.sources import open_source
from pretrain.data.sources.archives import short_names
from pretrain.data.sources.mixture import joined

Tree = Callable[..., Path]


def jpeg(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (number * 7 % 256, number % 256, 0)).save(stream, "PNG")
    return stream.getvalue()


def tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shards(folder: Path, count: int = 3, images: int = 4) -> Path:
    for shard in range(count):
        numbers = range(shard * images, (shard + 1) * images)
        files = {
            f"{n:03}.{kind}": jpeg(n) if kind == "png" else str(n % 5).encode()
            for n in numbers
            for kind in ("png", "cls")
        }
        tar(folder / f"train-{shard:03}.tar", {**files, f"{numbers[0]:03}.json": b"{}"})
    return folder


def zipped(folder: Path, path: Path, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(folder.parent))
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("layout", ["auto", "flat"])
def test_a_zip_is_the_folder_in_it(image_tree: Tree, tmp_path: Path, method: int, layout: str) -> None:
    root = image_tree(3, 4)
    (root / "train" / "n00000001" / "deeper").mkdir()
    Image.new("RGB", (5, 5)).save(root / "train" / "n00000001" / "deeper" / "0.png")
    (root / "train" / "n00000001 b").mkdir()
    Image.new("RGB", (5, 5)).save(root / "train" / "n00000001 b" / "0.png")
    (root / "train" / ".hidden.png").write_bytes(b"")
    (root / "train" / "notes.txt").write_text("no image")
    whole = zipped(root, tmp_path / "a.zip", method)
    folder, packed = open_source(root, layout), open_source(whole, layout)
    if layout == "auto":  # a run may go on with the other
        assert folder.fingerprint() == packed.fingerprint()
    assert [packed.read(i) for i in range(len(packed))] == [folder.read(i) for i in range(len(folder))]
    assert packed.labels.tolist() == folder.labels.tolist()
    assert packed.where(0) == f"{packed.names[0]} in {whole}"


def test_zips_that_will_not_do(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree(2, 2)
    whole = zipped(root, tmp_path / "a.zip")
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut\.zip cannot be read as a zip file .*download it again"):
        open_source(tmp_path / "cut.zip")
    with pytest.raises(UserError, match=r"compressed by method 12; pack it again with zip -0"):
        open_source(zipped(root, tmp_path / "b.zip", zipfile.ZIP_BZIP2))
    (root / "train").rename(root / "val")
    (root / "cat").mkdir()
    Image.new("RGB", (5, 5)).save(root / "cat" / "a.png")
    with pytest.raises(UserError, match=r"has no train/ folder but holds val"):
        open_source(zipped(root, tmp_path / "c.zip"))
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for name in ("loose.png", "cat/a.png"):
            archive.writestr(name, jpeg(1))
    with pytest.raises(
        UserError, match=r"1 image \(for example loose\.png\) .*outside of its class folders: .*layout flat"
    ):
        open_source(tmp_path / "d.zip")
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("a.txt", "")
    for layout in ("auto", "flat"):
        with pytest.raises(UserError, match=r"e\.zip holds no images"):
            open_source(tmp_path / "e.zip", layout)


def test_a_zip_with_a_password(image_tree: Tree, tmp_path: Path) -> None:
    content = bytearray(zipped(image_tree(1, 1), tmp_path / "a.zip").read_bytes())
    for place in range(len(content) - 4):  # the flag "encrypted" in the central directory
        if content[place : place + 4] == b"PK\x01\x02":
            content[place + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip is encrypted"):
        open_source(tmp_path / "a.zip")


def test_shards_are_found_by_braces_and_wildcards(tmp_path: Path) -> None:
    folder = shards(tmp_path / "shards")
    source = open_source(f"{folder}/train-{{000..002}}.tar")
    assert len(source) == 12
    assert list(source.names[:2]) == ["train-000.tar/000.png", "train-000.tar/001.png"]
    assert source.labels.tolist() == [n % 5 for n in range(12)]
    assert [source.read(n) for n in range(12)] == [jpeg(n) for n in range(12)]
    assert source.load(3).size == (8, 6)
    for pattern in ("train-*.tar", "train-{000,001,002}.tar", "train-00[0-2].tar"):
        assert open_source(f"{folder}/{pattern}").fingerprint() == source.fingerprint()
    folder.rename(tmp_path / "moved")
    assert open_source(f"{tmp_path}/moved/train-*.tar").fingerprint() == source.fingerprint()
    assert len(open_source(tmp_path / "moved" / "train-001.tar")) == 4


def test_names_of_shards_do_not_depend_on_where_they_are() -> None:
    assert short_names(["/a/b/0.tar", "/a/b/1.tar"]) == ["0.tar", "1.tar"]
    assert short_names(["s3://bucket/x/a/0.tar", "s3://bucket/x/b/0.tar"]) == ["a/0.tar", "b/0.tar"]
    assert short_names(["0.tar"]) == short_names(["/deep/0.tar"]) == ["0.tar"]


def test_shards_of_a_url(tmp_path: Path) -> None:
    """In memory, and copied to the disk when they are first used."""
    folder = shards(tmp_path / "shards")
    memory = fsspec.filesystem("memory")
    local = open_source(f"{folder}/*.tar")
    for shard in sorted(folder.iterdir()):
        memory.pipe(f"/bucket/{shard.name}", shard.read_bytes())
    try:
        for url in ("memory://bucket/train-{000..002}.tar", "memory://bucket/*.tar", f"file://{folder}/*.tar"):
            source = open_source(url)
            assert source.fingerprint() == local.fingerprint()
            assert source.read(7) == jpeg(7)
        source = open_source("simplecache::memory://bucket/train-{000..002}.tar")
        assert [source.read(n) for n in range(12)] == [jpeg(n) for n in range(12)]
        source = open_source("memory://bucket/train-{000..002}.tar")
        memory.rm("/bucket/train-001.tar")
        with pytest.raises(UserError, match=r"archive memory://bucket/train-001\.tar is missing"):
            source.read(5)
        with pytest.raises(UserError, match=r"memory://bucket/train-001\.tar cannot be opened"):
            open_source("memory://bucket/train-{000..002}.tar")
        with pytest.raises(UserError, match=r"matches no file"):
            open_source("memory://bucket/x*.tar")
    finally:
        memory.rm("/bucket", recursive=True)
    with pytest.raises(UserError, match=r"cannot be (opened|listed)|needs a package"):
        open_source("nosuchscheme://bucket/a.tar")
    with pytest.raises(UserError, match=r"is a URL, but not of \.tar or \.zip"):
        open_source("memory://bucket/folder")


def test_shards_that_will_not_do(tmp_path: Path) -> None:
    folder = shards(tmp_path / "shards")
    with pytest.raises(UserError, match=r"1 of the 4 archives of root .* are missing \(.*train-003\.tar\)"):
        open_source(f"{folder}/train-{{000..003}}.tar")
    with pytest.raises(UserError, match="matches no file"):
        open_source(f"{folder}/val-*.tar")
    with pytest.raises(UserError, match=r"names .*train-000\.tar twice"):
        open_source(f"{folder}/train-{{000,000}}.tar")
    with pytest.raises(UserError, match="stands for more than 1000000 files"):
        open_source(f"{folder}/train-{{0..9999999}}.tar")
    path = folder / "train-001.tar"
    content = path.read_bytes()
    for size in (512, 612, 1024, 2048, 2100):  # at the end of a member, in a header, in a member
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"train-001\.tar cannot be read as a tar file .*download it again"):
            open_source(f"{folder}/*.tar")
    path.write_bytes(b"<html>no shard</html>" * 100)
    with pytest.raises(UserError, match=r"train-001\.tar cannot be read as a tar file"):
        open_source(f"{folder}/*.tar")
    tar(path, {"a.png": jpeg(0), "a.cls": b"1.5"})
    with pytest.raises(UserError, match=r"a\.cls in .*train-001\.tar: label '1\.5' is not a whole number"):
        open_source(path)
    tar(path, {"a.png": jpeg(0), "a.jpg": jpeg(1)})
    with pytest.raises(UserError, match=r"two images of the key a \(a\.png, a\.jpg\)"):
        open_source(path)
    tar(path, {"a.txt": b"", "b.cls": b"1"})
    with pytest.raises(UserError, match="holds no images"):
        open_source(path)
    subprocess.run(["gzip", str(path)], check=True)
    with pytest.raises(UserError, match="is compressed as a whole"):
        open_source(f"{path}.gz")


def test_a_shard_that_changed_after_it_was_listed(tmp_path: Path) -> None:
    source = open_source(f"{shards(tmp_path)}/*.tar")
    tar(tmp_path / "train-001.tar", {"x.png": jpeg(1), "more": bytes(20_000)})
    with pytest.raises(UserError, match=r"train-001\.tar has \d+ bytes, but it had \d+ when its images were listed"):
        source.read(5)
    (tmp_path / "train-002.tar").unlink()
    with pytest.raises(UserError, match=r"archive .*train-002\.tar is missing"):
        source.read(9)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    for name in ("a.png", "two words.png", "deep/b 7.png"):
        (tmp_path / "pictures" / name).write_bytes(jpeg(1))
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("l.txt", "a.png\ntwo words.png\n\ndeep/b 7.png", [-1, -1, -1]),
        ("l.txt", "a.png 3\r\ntwo words.png 0\r\ndeep/b 7.png\t12\r\n", [3, 0, 12]),
        ("l.txt", "\ufeffa.png\ntwo words.png\n./deep/b 7.png\n", [-1, -1, -1]),
        ("l.csv", "a.png\ntwo words.png\ndeep/b 7.png\n", [-1, -1, -1]),
        ("l.csv", 'a.png,3\n"two words.png",0\ndeep/b 7.png, 12\n', [3, 0, 12]),
        ("l.csv", "label,split,Path\n3,x,a.png\n0,x,two words.png\n12,x,deep/b 7.png\n", [3, 0, 12]),
        ("l.tsv", "image\ta\na.png\t1\ntwo words.png\t2\ndeep/b 7.png\t3\n", [-1, -1, -1]),
    ],
)
def test_lists(pictures: Path, name: str, text: str, labels: list[int]) -> None:
    (pictures / name).write_text(text, encoding="utf-8")
    source = open_source(pictures / name)
    assert list(source.names) == ["a.png", "two words.png", "deep/b 7.png"]
    assert source.labels.tolist() == labels
    assert source.read(2) == jpeg(1)
    (pictures / name).rename(pictures.parent / name)
    assert open_source(pictures.parent / name, folder=str(pictures)).fingerprint() == source.fingerprint()


def test_absolute_paths_in_a_list(pictures: Path) -> None:
    (pictures / "l.txt").write_text(f"{pictures}/a.png\n{pictures}/deep/b 7.png\n")
    assert list(open_source(pictures / "l.txt").names) == ["a.png", "deep/b 7.png"]
    assert open_source(pictures / "l.txt", folder="/").names[0] == f"{pictures}/a.png"[1:]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("l.txt", "", "holds no images"),
        ("l.txt", "\n\n", "holds no images"),
        ("l.txt", "a.png\ntwo words.png\na.png\n", r"l\.txt holds a\.png twice"),
        ("l.txt", "a.png\n../out.png\n", r"line 2 of .*l\.txt: \.\./out\.png is not inside .*option folder"),
        ("l.txt", "a.png\n/etc/x.png\n", r"line 2 of .*: /etc/x\.png is not inside .*option folder .*paths: /"),
        ("l.txt", "a.png 1\ntwo words.png cat\n", r"line 2 of .*: label 'cat' is a name, but"),
        ("l.txt", "a.png 1\nb.png\n", r"line 2 of .*: there is no label"),
        ("l.txt", "a.png -7\n", "label '-7' is not a whole number"),
        ("l.txt", "a.png 9999999999\n", "label '9999999999' is not a whole number"),
        ("l.csv", "a.png,1.5\n", r"line 1 of .*l\.csv: label '1\.5' is not a whole number"),
        ("l.csv", "a.png,1\ntwo words.png\n", r"line 2 of .*l\.csv has 1 column; it must have 2"),
        ("l.csv", "label,where\n1,a.png\n", r"has a column 'label' but none for the paths; call that path"),
        (
            "l.txt",
            "x.png\ny.png\n",
            r"the images of .*l\.txt are not in .*\(for example x\.png\); set the option folder to",
        ),
    ],
)
def test_lists_that_will_not_do(pictures: Path, name: str, text: str, said: str) -> None:
    (pictures / name).write_text(text)
    with pytest.raises(UserError, match=said):
        open_source(pictures / name)


def test_coco(mini_root: Path, tmp_path: Path) -> None:
    path = mini_root / "coco" / "annotations" / "instances_train2017.json"
    source = open_source(path)
    content = json.loads(path.read_text())
    assert list(source.names) == [image["file_name"] for image in content["images"]]
    assert source.root == mini_root / "coco" / "train2017"
    assert set(source.labels.tolist()) == {-1}
    assert source.load(0).mode == "RGB"
    (tmp_path / "own.json").write_text(json.dumps(content))
    assert open_source(tmp_path / "own.json", folder=str(source.root)).fingerprint() == source.fingerprint()
    with pytest.raises(UserError, match=r"the images of .*own\.json are not in"):
        open_source(tmp_path / "own.json")
    for wrong, said in [
        ("{", "not an annotation file of COCO's format"),
        ('{"images": [{"id": 1}]}', "not an annotation file of COCO's format"),
        ('{"images": []}', "holds no images"),
        ('{"images": [{"file_name": "../a.jpg"}]}', r"image 0 of .*own\.json: \.\./a\.jpg is not inside"),
    ]:
        (tmp_path / "own.json").write_text(wrong)
        with pytest.raises(UserError, match=said):
            open_source(tmp_path / "own.json")


def test_what_no_kind_takes(tmp_path: Path, image_tree: Tree) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.bin is not a folder, and not one of \.tar, \.zip"):
        open_source(tmp_path / "a.bin")
    with pytest.raises(UserError, match=r"is not a file; the layout list needs the file"):
        open_source(tmp_path, "list")
    with pytest.raises(UserError, match=r"is not a folder; the layout flat needs the folder"):
        open_source(tmp_path / "a.bin", "flat")
    with pytest.raises(UserError, match=r"did you mean webdataset\?"):
        open_source(tmp_path, "webdatset")
    with pytest.raises(
        UserError, match=r"the option folder is for lists and annotation files, but .* is read as class_folder"
    ):
        open_source(image_tree(1, 1), folder="x")


def test_a_prepared_index_is_the_same_source(image_tree: Tree, tmp_path: Path, pictures: Path) -> None:
    (pictures / "l.csv").write_text("a.png,3\ndeep/b 7.png,1\n")
    for number, root in enumerate((image_tree(2, 4), pictures / "l.csv", f"{shards(tmp_path / 's')}/*.tar")):
        source, path = open_source(root), tmp_path / f"{number}.index"
        source.index.write(path)
        again = open_source(path)
        assert again.fingerprint() == source.fingerprint()
        assert Index.read(path).lines == source.index.lines
        assert (list(again.names), again.labels.tolist()) == (list(source.names), source.labels.tolist())
        assert [again.read(i) for i in range(len(again))] == [source.read(i) for i in range(len(source))]
        assert again.thinned(2).fingerprint() == source.thinned(2).fingerprint()
        assert open_source(path, source.index.layout).index.layout == source.index.layout
    pictures.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"pictures, of which .*1\.index is the index, is missing; .*option folder"):
        open_source(tmp_path / "1.index")
    assert open_source(tmp_path / "1.index", folder=str(tmp_path / "moved")).read(0) == jpeg(1)
    with pytest.raises(UserError, match=r"is an index of the layout list, not flat"):
        open_source(tmp_path / "1.index", "flat")
    with pytest.raises(UserError, match=r"the option folder is for an index of image files"):
        open_source(tmp_path / "2.index", folder="x")
    (tmp_path / "s" / "train-000.tar").unlink()
    with pytest.raises(UserError, match=r"train-000\.tar, of which .*2\.index is the index, is missing"):
        open_source(tmp_path / "2.index")
    content = (tmp_path / "0.index").read_bytes()
    for damaged in (content[:-200], b"", b"text"):
        (tmp_path / "0.index").write_bytes(damaged)
        with pytest.raises(UserError, match=r"0\.index (cannot be read as|is not) an index of images"):
            open_source(tmp_path / "0.index")
    with pytest.raises(UserError, match="make it with pixbench data index"):
        open_source(tmp_path / "none.index")


def test_a_mixture_joins_classes_by_their_names(image_tree: Tree, tmp_path: Path) -> None:
    one, other = image_tree(2, 2, name="one"), image_tree(3, 1, name="other")
    (other / "train" / "n00000000").rename(other / "train" / "a")
    mixed = joined([open_source(root).index for root in (one, other)], [1, 2.5])
    assert mixed.classes == ("a", "n00000000", "n00000001", "n00000002")
    assert mixed.labels.tolist() == [1, 1, 2, 2, 0, 2, 3]
    assert mixed.names[4] == "1/a/n00000000_0.JPEG"
    assert mixed.parts == ((4, 1.0), (3, 2.5))
    reweighted = joined([open_source(root).index for root in (one, other)], [1, 2])
    assert reweighted.fingerprint != mixed.fingerprint
    (tmp_path / "l.csv").write_text("one/train/n00000000/n00000000_0.JPEG,1\n")
    with pytest.raises(UserError, match="names of classes with others whose labels are numbers"):
        joined([open_source(root).index for root in (one, tmp_path / "l.csv")], [1, 1])
    flat = joined([open_source(one, "flat").index, open_source(f"{shards(tmp_path / 's')}/*.tar").index], [1, 1])
    assert flat.labels.tolist() == [-1] * 4 + [n % 5 for n in range(12)]


def test_a_mixture_of_files_and_shards_is_read(image_tree: Tree, tmp_path: Path) -> None:
    from pretrain.data.sources import Source

    folder, packed = open_source(image_tree(2, 2), "flat"), open_source(f"{shards(tmp_path / 's')}/*.tar")
    mixed = Source(joined([packed.index, folder.index, packed.index], [1, 1, 1]))
    expected = [*map(packed.read, range(12)), *map(folder.read, range(4)), *map(packed.read, range(12))]
    assert [mixed.read(i) for i in range(len(mixed))] == expected
    assert mixed.where(12) == folder.where(0)
    assert np.diff(mixed.index.place).min() >= 0
    assert os.path.exists(mixed.where(13))
