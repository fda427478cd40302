from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from pixbench.errors import UserError
from pretrain.data.augment import MEAN, STD
from pretrain.data.loader import Batches, ViewLoader
from pretrain.data.order import EpochOrder
from pretrain.data.sources import open_source
from pretrain.data.two_views import Backend, TwoViews
from pretrain.data.views import Views

Tree = Callable[..., Path]
Made = tuple[Backend, bool]
"""A backend, and whether the data workers change the colours."""
WAYS: list[Made] = [("pil", True), ("opencv", True), ("opencv", False)]


def batches_of(
    root: Path,
    *,
    first: int = 0,
    last: int = 6,
    workers: int = 0,
    cache: bool = False,
    made: Made = ("pil", True),
    **share: int,
) -> list[Views]:
    backend, colours = made
    dataset = TwoViews(
        open_source(root),
        size=16,
        scale=(0.2, 1.0),
        recipe="byol",
        seed=3,
        cache=cache,
        backend=backend,
        colours=colours,
    )
    batches = Batches(EpochOrder(len(dataset)), 8, seed=3, first=first, last=last, **share)
    return list(ViewLoader(dataset, batches, workers=workers))


def same(left: list[Views], right: list[Views]) -> bool:
    pairs = zip(left, right, strict=True)
    fields = [(a, b) for one, other in pairs for a, b in zip(one, other, strict=True) if a is not None]
    return all(b is not None and torch.equal(a, b) for a, b in fields)


def test_class_folder(image_tree: Tree) -> None:
    root = image_tree(3, 4)
    source = open_source(root)
    assert len(source) == 12
    assert source.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert (
        open_source(root / "train").labels.tolist() == source.labels.tolist()
    )  # the folder of class folders will do as well
    assert source.load(5).mode == "RGB"
    assert source.thinned(3).labels.tolist() == [0, 1, 2]
    assert source.thinned(100) is source


def test_all_suffixes_and_modes(tmp_path: Path) -> None:
    for suffix, mode in [
        (".jpg", "L"),
        (".PNG", "RGBA"),
        (".webp", "RGB"),
        (".bmp", "1"),
        (".tif", "CMYK"),
        (".jpeg", "RGB"),
    ]:
        Image.new(mode, (6, 5)).save(tmp_path / f"a{suffix}")
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(tmp_path, "flat")
    assert len(source) == 6
    assert source.labels.tolist() == [-1] * 6
    assert all(source.load(i).mode == "RGB" for i in range(6))


def test_fingerprint_follows_the_names_not_the_place(image_tree: Tree) -> None:
    one, other, third = (open_source(image_tree(2, n, name=f"t{i}")) for i, n in enumerate((4, 4, 5)))
    assert one.fingerprint() == other.fingerprint() != third.fingerprint()


def test_roots_that_will_not_do(tmp_path: Path, image_tree: Tree) -> None:
    with pytest.raises(UserError, match="the root of the images is not set"):
        open_source("")
    with pytest.raises(UserError, match="nowhere does not exist"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a folder, and not one of"):
        open_source(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no class folders"):
        open_source(tmp_path / "empty")
    with pytest.raises(UserError, match="holds no images"):
        open_source(tmp_path / "empty", "flat")
    (tmp_path / "empty" / "cats").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        open_source(tmp_path / "empty")


def test_a_root_one_level_too_high(mini_root: Path, tmp_path: Path, image_tree: Tree) -> None:
    """Its test images and label masks are no classes; whoever wants every image says so with the layout flat."""
    with pytest.raises(UserError, match=rf"holds imagenet/train, .*VOC2007, .*; did you mean {mini_root}/imagenet\?"):
        open_source(mini_root)
    parent = image_tree(2, 3, name="sets/ImageNet-1k").parent
    with pytest.raises(UserError, match=rf"holds ImageNet-1k/train: .*; did you mean {parent}/ImageNet-1k\?"):
        open_source(parent)
    with pytest.raises(UserError, match=r"holds gtFine/train, leftImg8bit/train: .*; give the folder"):
        open_source(mini_root / "cityscapes")
    for name in ("val", "test", "coco"):
        home = image_tree(2, 3, name=f"without {name}")
        (home / "train").rename(home / name)
        with pytest.raises(UserError, match=f"holds {name}: .*; give the folder that holds train/"):
            open_source(home)
        assert len(open_source(home, "flat")) == 6
        (tmp_path / name).mkdir()
        (home / name).rename(tmp_path / name / "train")
        (tmp_path / name / "train" / "n00000000").rename(tmp_path / name / "train" / name)
        assert len(open_source(tmp_path / name)) == 6  # below train/ any name will do


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_root(image_tree: Tree) -> None:
    root = image_tree(1, 1)
    (root / "train").chmod(0)
    try:
        with pytest.raises(UserError, match="cannot be listed"):
            open_source(root)
    finally:
        (root / "train").chmod(0o755)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_a_broken_image_is_one_sentence(image_tree: Tree, workers: int, damage: str) -> None:
    root = image_tree(2, 8)
    path = root / "train" / "n00000001" / "n00000001_3.JPEG"
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "garbage": b"<html>" * 50, "empty": b""}[damage])
    with pytest.raises(UserError) as caught:
        batches_of(root, last=2, workers=workers)
    message = str(caught.value)
    assert f"image {path} is broken" in message
    assert "\n" not in message
    assert "Traceback" not in message


def test_an_image_that_is_gone_and_a_link_to_nothing(image_tree: Tree) -> None:
    source = open_source(image_tree(1, 2))
    Path(source.where(0)).unlink()
    with pytest.raises(UserError, match=r"_0\.JPEG is gone; start the same command again to go on without it"):
        source.load(0)
    Path(source.where(0)).symlink_to("nowhere")
    with pytest.raises(UserError, match=r"_0\.JPEG is a link to a file that does not exist; mend or delete it"):
        source.load(0)


@pytest.mark.parametrize("made", WAYS)
def test_batches_do_not_depend_on_workers_or_cache(made: Made, image_tree: Tree) -> None:
    root = image_tree(2, 12)
    straight = batches_of(root, made=made)
    assert (straight[0].changes is None) == made[1]
    assert same(straight, batches_of(root, workers=2, made=made))
    assert same(straight, batches_of(root, cache=True, made=made))
    assert same(straight, batches_of(root, workers=1, cache=True, made=made))


def test_backends_draw_the_same(image_tree: Tree) -> None:
    """The boxes are the same numbers; the pixels are almost the same. What is left to a device is the same too."""
    pillow, opencv, device = (batches_of(image_tree(2, 12, name=str(made)), last=1, made=made)[0] for made in WAYS)
    for field in ("box1", "box2", "label", "image_index"):
        assert torch.equal(getattr(pillow, field), getattr(opencv, field))
        assert torch.equal(getattr(pillow, field), getattr(device, field))
    assert (pillow.view1.float() - opencv.view1.float()).abs().mean() < 2
    assert 0 < (pillow.ready().view1 - device.ready().view1).abs().mean() < 2 / 255 / min(STD)
    halves = device.chunks(2)
    assert torch.equal(torch.cat([half.ready().view2 for half in halves]), device.ready().view2)


@pytest.mark.parametrize("made", WAYS)
def test_a_restarted_run_sees_the_same_batches(made: Made, image_tree: Tree) -> None:
    root = image_tree(2, 12)  # 24 images, 3 batches an epoch
    straight = batches_of(root, made=made)
    assert same(straight[4:], batches_of(root, first=4, made=made))  # in the middle of the second epoch
    assert not torch.equal(straight[0].view1, straight[3].view1)


def test_epochs_are_permutations() -> None:
    batches = Batches(EpochOrder(26), 8, seed=0, first=0, last=6)
    assert batches.per_epoch == 3
    keys = [key for batch in batches for key in batch]
    for epoch in (0, 1):
        seen = [index for key_epoch, index in keys if key_epoch == epoch]
        assert len(set(seen)) == len(seen) == 24
    orders = [tuple(EpochOrder(26).numbers(*of).tolist()) for of in ((0, 0), (0, 1), (1, 0))]
    assert len(set(orders)) == 3


@pytest.mark.parametrize("made", WAYS)
def test_processes_share_a_batch(made: Made, image_tree: Tree) -> None:
    root = image_tree(2, 12)
    straight = batches_of(root, made=made)
    shares = [batches_of(root, rank=rank, world=2, made=made) for rank in (0, 1)]
    for step, whole in enumerate(straight):
        for field in range(6):
            assert torch.equal(whole[field][0::2], shares[0][step][field])
            assert torch.equal(whole[field][1::2], shares[1][step][field])


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="multiple of 3"):
        Batches(EpochOrder(100), 8, seed=0, first=0, last=1, world=3)
    with pytest.raises(UserError, match="there are 5 images but batch_size is 8"):
        Batches(EpochOrder(5), 8, seed=0, first=0, last=1)


def test_shapes_types_and_scale(image_tree: Tree) -> None:
    views = batches_of(image_tree(2, 12), last=1)[0]
    assert views.view1.shape == views.view2.shape == (8, 3, 16, 16)
    assert views.box1.shape == views.box2.shape == (8, 4)
    assert views.changes is None
    assert [t.dtype for t in views[:6]] == [torch.uint8] * 2 + [torch.float32] * 2 + [torch.int64] * 2
    assert views.view1.is_contiguous(memory_format=torch.channels_last)
    views = views.ready()
    assert views.view1.dtype == torch.float32
    assert views.view1.min() >= (0 - max(MEAN)) / min(STD)
