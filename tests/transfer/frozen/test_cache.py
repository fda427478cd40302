"""The cache of features: what is found again, what makes room, and what is left after an accident."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.frozen import cache, features
from transfer.frozen.cache import Cache
from transfer.frozen.class_folders import class_folders
from transfer.frozen.network import FrozenNetwork
from transfer.frozen.scenes import Scenes
from transfer.frozen.views import Images, Views
from transfer.initial_weights import random_backbone

SIDE, PICTURES = 32, 4


class Counted(FrozenNetwork):
    """A network that notes in a file each time that it computes something."""

    def __init__(self, log: Path, seed: int = 0) -> None:
        super().__init__(random_backbone(BackboneSpec(18, 1 / 32), seed))
        self.log = log

    def forward(self, images: Tensor) -> Tensor:
        with open(self.log, "a") as stream:
            stream.write("x")
        return super().forward(images)


class Killed(Counted):
    """It ends its process in the second batch."""

    def forward(self, images: Tensor) -> Tensor:
        if self.log.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(images)


@pytest.fixture
def views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Views:
    """Pictures of noise, one in each batch."""
    monkeypatch.setattr(features, "BATCH_PIXELS", 1)
    monkeypatch.setattr(cache, "PATIENCE_S", 0.05)
    rng, paths = np.random.default_rng(0), []
    for number in range(PICTURES):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(paths[-1])
    return Views(Scenes("photos, train", tuple(paths), tuple(paths)), Images(SIDE))


@pytest.fixture
def network(tmp_path: Path) -> Counted:
    return Counted(tmp_path / "log")


def times(network: Counted) -> int:
    return len(network.log.read_text())


def entries(folder: Path) -> dict[str, list[str]]:
    """Names of the files in each entry, those of owners left out."""
    return {path.name: sorted(file.name for file in path.glob("[!.]*")) for path in folder.iterdir()}


def child(work: Callable[[], object]) -> int:
    """Start ``work`` in a process of its own and return its id."""
    if pid := os.fork():
        return pid
    try:
        torch.set_num_threads(1)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        os._exit(1)


def test_what_was_computed_is_found_again(network: Counted, views: Views, tmp_path: Path) -> None:
    first = Cache(tmp_path / "c", 1).features(network, views, 0)
    again = Cache(tmp_path / "c", 1).features(network, views, 0)
    assert times(network) == PICTURES
    assert torch.equal(first.cells, again.cells)
    assert list(entries(tmp_path / "c").values()) == [[features.VALUES, features.INDEX]]


def test_what_decides_the_features_is_in_the_key(network: Counted, views: Views, tmp_path: Path) -> None:
    scenes, images = views.pictures, views.images
    assert isinstance(scenes, Scenes)
    same = Views(replace(scenes, name="another name"), images), Views(replace(scenes, truths=()), images)
    assert {cache.key(network, v) for v in same} == {cache.key(network, views)}
    found = {
        cache.key(network, views),
        cache.key(Counted(tmp_path / "log", seed=1), views),
        cache.key(FrozenNetwork(random_backbone(BackboneSpec(18, 1 / 32, 16), 0)), views),
        cache.key(FrozenNetwork(random_backbone(BackboneSpec(18, 1 / 32), 0), output_stride=8), views),
        cache.key(network, Views(scenes, replace(images, size=64))),
        cache.key(network, Views(scenes, replace(images, pool=True))),
        cache.key(network, Views(scenes, replace(images, interpolation="bicubic"))),
        cache.key(network, Views(replace(scenes, pictures=scenes.pictures[::-1]), images)),
    }
    Image.new("RGB", (SIDE, SIDE)).save(scenes.pictures[2])
    found.add(cache.key(network, views))
    assert len(found) == 9


def test_the_least_recently_used_makes_room(network: Counted, views: Views, tmp_path: Path) -> None:
    sizes = [replace(views, images=Images(SIDE * factor)) for factor in (1, 2, 3)]
    small, middle, large = (features.size_of(network, some)[1] for some in sizes)
    held = Cache(tmp_path / "c", (small + large) / 1e9)
    keys = [cache.key(network, some) for some in sizes]
    for number, some in enumerate(sizes[:2]):
        held.features(network, some, 0)
        os.utime(tmp_path / "c" / keys[number] / features.INDEX, (number, number))
    assert small + middle <= small + large < small + middle + large
    held.features(network, sizes[0], 0)  # used again: now the other one is the oldest
    held.features(network, sizes[2], 0)
    assert set(entries(tmp_path / "c")) == {keys[0], keys[2]}


def test_who_reads_an_entry_keeps_it(network: Counted, views: Views, tmp_path: Path) -> None:
    _, needed = features.size_of(network, views)
    held = Cache(tmp_path / "c", needed / 1e9)
    reading = held.features(network, views, 0)
    before = reading.cells.clone()
    held.features(Counted(tmp_path / "log", seed=1), views, 0)
    assert list(entries(tmp_path / "c")) == [cache.key(Counted(tmp_path / "log", seed=1), views)]
    assert torch.equal(reading.cells, before)


def test_a_cache_that_is_too_small_says_what_is_needed(network: Counted, views: Views, tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"features of photos, train take \S+ MB, but the cache may hold 1e-06 MB; give --cache-gb (\S+) or",
    ) as caught:
        Cache(tmp_path / "c", 1e-9).features(network, views, 0)
    assert entries(tmp_path / "c") == {}
    assert not network.log.exists()
    enough = re.search(r"--cache-gb (\S+)", str(caught.value))
    assert enough is not None
    Cache(tmp_path / "c", float(enough[1])).features(network, views, 0)


def test_it_says_what_was_computed_and_what_was_read(network: Counted, views: Views, tmp_path: Path) -> None:
    first, again = (Cache(tmp_path / "c", 1).features(network, views, 0) for _ in range(2))
    assert [(found.computed, found.about()["from"]) for found in (first, again)] == [
        (True, "computed"),
        (False, "cache"),
    ]
    size = features.size_of(network, views)[1]
    assert {first.about()["bytes"], again.about()["bytes"]} == {size}
    assert first.seconds > 0
    about = f"{PICTURES} pictures, {size / 1e6:.3g} MB, "
    assert [str(found).partition(" in ")[0] for found in (first, again)] == [
        f"{about}computed",
        f"{about}read from the cache",
    ]
    assert [features.in_words(size) for size in (12_000, 3.25e6, 1.23e9)] == ["0.012 MB", "3.25 MB", "1.2 GB"]


def test_pictures_in_class_folders_that_were_edited_are_others(network: Counted, tmp_path: Path) -> None:
    """Of the same size in bytes, under the same names, below the same folder."""
    paths = [tmp_path / f"data/{split}/{kind}/0.bmp" for split in ("train", "val") for kind in "ab"]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        Image.new("RGB", (SIDE, SIDE), (number, 0, 0)).save(path)
    images, before = Images(SIDE), paths[0].stat()
    first = cache.key(network, Views(class_folders(tmp_path / "data")[0], images))
    assert cache.key(network, Views(class_folders(tmp_path / "data")[0], images)) == first
    Image.new("RGB", (SIDE, SIDE), (9, 0, 0)).save(paths[0])
    assert paths[0].stat().st_size == before.st_size
    assert cache.key(network, Views(class_folders(tmp_path / "data")[0], images)) != first


def test_a_full_disk_is_noticed_before_anything_is_computed(network: Counted, views: Views, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        with pytest.raises(
            UserError, match=r"has no room for the features of photos, train, .*larger disk with --cache"
        ):
            Cache(tmp_path / "c", 1).features(network, views, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert entries(tmp_path / "c") == {}
    assert not network.log.exists()


def test_a_broken_picture_is_named_and_nothing_is_left(network: Counted, views: Views, tmp_path: Path) -> None:
    broken = views.scenes.pictures[2]
    broken.write_bytes(broken.read_bytes()[:300])
    for workers in (0, 2):
        with pytest.raises(UserError, match=f"{broken} is broken"):
            Cache(tmp_path / "c", 1).features(network, views, workers)
        assert entries(tmp_path / "c") == {}


def test_after_a_run_was_killed_the_next_one_computes_all(views: Views, tmp_path: Path) -> None:
    killed, network = Killed(tmp_path / "killed"), Counted(tmp_path / "log")
    _, status = os.waitpid(child(lambda: Cache(tmp_path / "c", 1).features(killed, views, 0)), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert list(entries(tmp_path / "c").values()) == [[features.VALUES]]
    found = Cache(tmp_path / "c", 1).features(network, views, 0)
    assert times(network) == PICTURES
    torch.testing.assert_close(found.map(2), network(views[2][None])[0])


def test_what_a_killed_run_left_makes_room_first(views: Views, tmp_path: Path) -> None:
    other, network = Killed(tmp_path / "killed", seed=1), Counted(tmp_path / "log")
    os.waitpid(child(lambda: Cache(tmp_path / "c", 1).features(other, views, 0)), 0)
    Cache(tmp_path / "c", features.size_of(network, views)[1] / 1e9).features(network, views, 0)
    assert list(entries(tmp_path / "c")) == [cache.key(network, views)]


def test_two_runs_at_once_compute_an_entry_once(network: Counted, views: Views, tmp_path: Path) -> None:
    pids = [child(lambda: Cache(tmp_path / "c", 1).features(network, views, 0)) for _ in range(2)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    assert times(network) == PICTURES
    assert list(entries(tmp_path / "c").values()) == [[features.VALUES, features.INDEX]]


def test_two_runs_that_do_not_fit_follow_one_another(views: Views, tmp_path: Path) -> None:
    networks = [Counted(tmp_path / f"log{seed}", seed) for seed in range(2)]
    held = Cache(tmp_path / "c", features.size_of(networks[0], views)[1] / 1e9)
    pids = [child(lambda network=network: held.features(network, views, 0)) for network in networks]  # type: ignore[misc]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    assert [times(network) for network in networks] == [PICTURES] * 2
    assert len(entries(tmp_path / "c")) == 1


def test_no_accident_leaves_half_an_entry_that_is_read(network: Counted, views: Views, tmp_path: Path) -> None:
    """An entry was damaged; then the run that computes it anew is killed, and the next one finds room and an old index."""
    wanted = Cache(tmp_path / "c", 1).features(network, views, 0).cells.clone()
    (entry,) = (tmp_path / "c").iterdir()
    os.truncate(entry / features.VALUES, 8)
    log = tmp_path / "killed"
    pid = child(lambda: Cache(tmp_path / "c", 1).features(Killed(log), views, 0))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert (entry / features.VALUES).stat().st_size == wanted.nbytes
    assert torch.equal(Cache(tmp_path / "c", 1).features(network, views, 0).cells, wanted)


def test_damaged_values_are_computed_again(network: Counted, views: Views, tmp_path: Path) -> None:
    wanted = Cache(tmp_path / "c", 1).features(network, views, 0).cells.clone()
    (entry,) = (tmp_path / "c").iterdir()
    path = entry / features.VALUES
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    assert torch.equal(Cache(tmp_path / "c", 1).features(network, views, 0).cells, wanted)
    assert times(network) == 2 * PICTURES


@pytest.mark.parametrize("index", ["{}", "null", "[1]", '{"shapes": 5, "channels": 256, "stride": 16}', "{"])
def test_a_damaged_index_is_no_entry(network: Counted, views: Views, tmp_path: Path, index: str) -> None:
    wanted = Cache(tmp_path / "c", 1).features(network, views, 0).cells.clone()
    (entry,) = (tmp_path / "c").iterdir()
    (entry / features.INDEX).write_text(index)
    assert torch.equal(Cache(tmp_path / "c", 1).features(network, views, 0).cells, wanted)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_are_refused(network: Counted, views: Views, tmp_path: Path, value: float) -> None:
    original = network.network.layer4[-1].last_norm.bias.data  # type: ignore[union-attr,index]
    original[0] = value
    with pytest.raises(UserError, match="features of photos, train hold values that are not finite"):
        Cache(tmp_path / "c", 1).features(network, views, 0)
    assert entries(tmp_path / "c") == {}
