"""A continued run keeps to its list of images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE, IMAGE_LIST
from pretrain import checkpoint, engine
from pretrain.config import from_dict
from pretrain.data.image_list import is_list_of, kept_to_list, read_list, write_list
from pretrain.data.index import Place
from pretrain.data.loader import Batches, ViewLoader
from pretrain.data.order import EpochOrder
from pretrain.data.sources import Source, open_source
from pretrain.data.sources.builder import Builder
from pretrain.data.two_views import TwoViews
from pretrain.settings import RunConfig

Tree = Callable[..., Path]


def listed(root: Path, names: list[str], labels: list[int]) -> Source:
    builder = Builder()
    for name, label in zip(names, labels, strict=True):
        builder.add(name, label)
    return Source(builder.index("flat", Place(str(root))))


def read(path: Path) -> tuple[list[str], list[int]]:
    names, labels = read_list(path)
    return list(names), labels.tolist()


def test_odd_names_come_back(tmp_path: Path) -> None:
    names = ["a b.png", "tab\there.png", "new\nline.png", "back\\n.png", "\x0b\x85\u2028.png", "日本.png", "\udcff.png"]
    source = listed(tmp_path, names, list(range(-1, 6)))
    write_list(tmp_path / "images.txt", source)
    assert read(tmp_path / "images.txt") == (names, list(range(-1, 6)))
    assert is_list_of(tmp_path / "images.txt", source.fingerprint())
    (tmp_path / "images.txt").write_text("a.png\t0\nb.png")
    assert read(tmp_path / "images.txt") == (["a.png"], [0])  # its fingerprint tells that it is cut off
    for text in ("a.png\n", "a.png\tx\n", "ä\t0\n", "\\x\t0\n", "", "garbage", "a.png\t0"):
        (tmp_path / "images.txt").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"images\.txt is damaged"):
            read_list(tmp_path / "images.txt")
        assert not is_list_of(tmp_path / "images.txt", source.fingerprint())


def test_the_next_image_stands_in(tmp_path: Path) -> None:
    names = [f"{i:03}.png" for i in range(300)]
    write_list(tmp_path / "images.txt", listed(tmp_path, names, [0] * 300))

    def without(*gone: int) -> Source:
        return listed(tmp_path, [name for i, name in enumerate(names) if i not in gone], [0] * (300 - len(gone)))

    source, said = kept_to_list(without(5, 6, 299), tmp_path / "images.txt", 0)
    assert (list(source.names), source.stand_ins) == (names, {5: 7, 6: 7, 299: 0})
    assert said == [
        "3 images of this run are missing (005.png, 006.png, 299.png); the next in "
        f"{tmp_path}/images.txt is taken instead (007.png, 007.png, 000.png)"
    ]
    with pytest.raises(
        UserError, match=r"other images .*: 4 of 300 are missing \(005\.png, 006\.png, 007\.png, \.\.\.\)"
    ):
        kept_to_list(without(5, 6, 7, 299), tmp_path / "images.txt", 0)
    more = listed(tmp_path, [*names, "new.png"], [0] * 301)
    source, said = kept_to_list(more, tmp_path / "images.txt", 0)
    assert list(source.names) == names
    assert said == ["1 image in data.root is new since the start of this run and not used (new.png)"]
    assert kept_to_list(more, tmp_path / "images.txt", limit=300)[1] == []


@pytest.mark.parametrize("cache", [False, True])
def test_batches_with_a_stand_in_do_not_depend_on_workers(image_tree: Tree, cache: bool) -> None:
    """All other samples are as before."""
    source = open_source(image_tree(2, 8))

    def batches(source: Source, workers: int) -> list[tuple[float, int, int]]:
        views = TwoViews(source, size=16, scale=(0.2, 1.0), recipe="byol", seed=3, cache=cache)
        loader = ViewLoader(views, Batches(EpochOrder(16), 8, seed=3, first=0, last=2), workers=workers)
        rows = ((b.view1.sum((1, 2, 3)), b.label, b.image_index) for b in loader)
        return [tuple(map(float, row)) for columns in rows for row in zip(*columns, strict=True)]

    before = batches(source, 0)
    Path(source.where(7)).unlink()
    gone = replace(source, stand_ins={7: 8})
    after = batches(gone, 0)
    assert after == batches(gone, 2)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [(old[1:], new[1:]) for old, new in changed] == [((0, 7), (1, 8))]


@pytest.fixture
def config(image_tree: Tree, tmp_path: Path) -> RunConfig:
    """A run of 2 epochs on 16 images in 4 steps."""
    return from_dict(
        {
            "method": {"name": "pixpro", "hidden": 8, "dim": 8},
            "data": {"root": str(image_tree(2, 8)), "image_size": 32, "workers": 0},
            "backbone": {"depth": 18, "width": 0.0625, "output_stride": 16},
            "schedule": {"warmup_epochs": 0},
            **{"epochs": 2, "batch_size": 8, "log_every": 1, "checkpoint_every_steps": 1, "out": str(tmp_path / "run")},
        }
    )


@pytest.mark.slow
def test_a_run_goes_on_without_its_broken_image(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    config = replace(config, data=replace(config.data, on_error="fail"))
    source, out = open_source(config.data.root), Path(config.out)
    last = int(EpochOrder(16).numbers(0, 0)[-1])  # met in the second step
    path = Path(source.where(last))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(
        UserError, match=r"is broken .*replace or delete it, then start the same command again \(a run that has begun"
    ):
        engine.train(config)
    assert checkpoint.load(out / CHECKPOINT_FILE)["step"] == 1
    path.unlink()
    engine.train(config)
    printed = capsys.readouterr().out
    assert f"1 image of this run is missing ({source.names[last]})" in printed
    content = checkpoint.load(out / CHECKPOINT_FILE)
    assert (content["step"], content["images"]) == (4, source.fingerprint())
    assert read(out / IMAGE_LIST)[0] == list(source.names)


@pytest.mark.slow
def test_new_images_other_images_and_old_run_folders(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = open_source(config.data.root), Path(config.out)
    engine.train(config)
    names = (out / IMAGE_LIST).read_bytes()
    (out / IMAGE_LIST).write_bytes(b"\n".join(names.split(b"\n")[1:]))
    other = Path(source.where(0)).with_name("other.JPEG")
    os.link(Path(source.where(0)), other)
    with pytest.raises(UserError, match=r"images\.txt is not the list of the images of .*checkpoint\.pth"):
        engine.train(config)
    other.unlink()
    longer = replace(config, epochs=3)
    engine.train(longer)  # it is not needed: the images are still those of the checkpoint
    assert f"{out / IMAGE_LIST} was damaged; it is written again" in capsys.readouterr().out
    assert (out / IMAGE_LIST).read_bytes() == names

    (out / IMAGE_LIST).unlink()  # as in a folder of before
    longer = replace(config, epochs=4)
    engine.train(longer)
    assert (out / IMAGE_LIST).read_bytes() == names
    (out / IMAGE_LIST).unlink()
    new = Path(source.where(0)).with_name("new.JPEG")
    os.link(Path(source.where(0)), new)
    with pytest.raises(UserError, match="belongs to a run on other images"):
        engine.train(longer)

    (out / IMAGE_LIST).write_bytes(names)
    capsys.readouterr()
    engine.train(replace(config, epochs=5))
    assert "1 image in data.root is new since the start of this run and not used" in capsys.readouterr().out
    for index in (3, 4):
        Path(source.where(index)).unlink()
    with pytest.raises(UserError, match="other images than at the start of this run: 2 of 16 are missing"):
        engine.train(replace(config, epochs=5))


@pytest.mark.slow
def test_a_list_without_a_checkpoint_is_written_anew(config: RunConfig) -> None:
    Path(config.out).mkdir()
    (Path(config.out) / IMAGE_LIST).write_text("of a start that failed\n")
    engine.train(config)
    assert len(read_list(Path(config.out) / IMAGE_LIST)[0]) == 16
