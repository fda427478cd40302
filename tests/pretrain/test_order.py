"""The order of an epoch is what is documented, and depends on (seed, epoch) only."""

from __future__ import annotations

import io
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixbench.errors import UserError
from pretrain.data.image_list import kept_to_list, write_list
from pretrain.data.order import EpochOrder
from pretrain.data.sources import Source, open_source


def test_all_images_are_permuted_as_always() -> None:
    for images, seed, epoch in ((10, 0, 0), (1003, 7, 3)):
        numbers = EpochOrder(images).numbers(seed, epoch)
        assert numbers.tolist() == np.random.default_rng((seed, epoch)).permutation(images).tolist()
        assert numbers.dtype == np.int32


def test_each_image_of_a_mixture_is_taken_as_often_as_its_weight_says() -> None:
    order = EpochOrder(40, parts=((10, 2.0), (20, 0.5), (10, 1.25)))
    assert len(order) == 20 + 10 + 12
    drawn = []
    for epoch in range(3):
        numbers = order.numbers(seed=1, epoch=epoch)
        assert len(set(numbers.tolist())) == len(numbers) == 42  # each number has crops of its own
        counts = np.bincount(numbers % 40, minlength=40)
        assert (counts[:10] == 2).all()
        assert sorted(counts[10:30]) == [0] * 10 + [1] * 10
        assert sorted(counts[30:]) == [1] * 8 + [2] * 2
        drawn.append(counts[10:30].tolist())
        assert (numbers == order.numbers(seed=1, epoch=epoch)).all()
    assert drawn[0] != drawn[1] != drawn[2]


def test_many_copies_get_wide_numbers() -> None:
    assert EpochOrder(2**30, parts=((2**30, 2.0),)).dtype is np.int64


def test_shards_are_shuffled_in_groups() -> None:
    order = EpochOrder(30, shards=(0, 5, 12, 20, 26), together=2)
    shard_of = np.repeat(np.arange(5), [5, 7, 8, 6, 4])
    seen = set()
    for epoch in range(4):
        numbers = order.numbers(3, epoch)
        assert sorted(numbers.tolist()) == list(range(30))
        shards, groups = shard_of[numbers].tolist(), list[set[int]]()
        for shard in shards:
            if not groups or (shard not in groups[-1] and len(groups[-1]) == 2):
                groups.append(set())
            groups[-1].add(shard)
        assert [len(group) for group in groups] == [2, 2, 1]
        assert set.union(*groups) == set(range(5))
        assert sum(a != b for a, b in pairwise(shards)) > 4  # mixed within a group
        seen.add(str(groups))
    assert len(seen) > 1


def test_only_shards_can_be_shuffled_as_shards(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    for number, images in enumerate((2, 3)):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for image in range(images):
                info = tarfile.TarInfo(f"{image}.png")
                info.size = len(stream.getvalue())
                archive.addfile(info, io.BytesIO(stream.getvalue()))
    index = open_source(f"{tmp_path}/*.tar").index
    assert EpochOrder.of(index, 1).shards == (0, 2)
    assert EpochOrder.of(index, 0).shards == ()
    write_list(tmp_path / "images.txt", Source(index))
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        info = tarfile.TarInfo("0.png")
        info.size = len(stream.getvalue())
        archive.addfile(info, io.BytesIO(stream.getvalue()))
    kept, _ = kept_to_list(open_source(f"{tmp_path}/*.tar"), tmp_path / "images.txt", 0)
    assert kept.stand_ins == {1: 2}  # of the next shard, which does not begin earlier for it
    assert EpochOrder.of(kept.index, 1).shards == (0, 2)
    with pytest.raises(
        UserError, match=r"data\.shuffle_shards is 2, but data\.root is not several shards \(layout webdataset\)"
    ):
        EpochOrder.of(open_source(tmp_path / "0.tar").index, 2)
