"""Runs on every kind of source go on exactly, and may go on with another form of the same images."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE, IMAGE_LIST
from pretrain import checkpoint, engine
from pretrain.config import from_dict, parse
from pretrain.data.sources import open_source
from pretrain.data.views import Views
from pretrain.resume import list_images
from pretrain.settings import DataConfig, RootConfig, RunConfig

Tree = Callable[..., Path]


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., RunConfig]:
    def make(out: str, **data: Any) -> RunConfig:
        content = {
            "method": {"name": "pixpro", "hidden": 8, "dim": 8},
            "data": {"image_size": 32, "workers": 0, **data},
            "backbone": {"depth": 18, "width": 0.0625, "output_stride": 16},
            "schedule": {"warmup_epochs": 0},
            **{"epochs": 2, "batch_size": 8, "checkpoint_every_steps": 1, "out": str(tmp_path / out)},
        }
        return from_dict(content)

    return make


def weights(config: RunConfig) -> torch.Tensor:
    model = checkpoint.load(Path(config.out) / CHECKPOINT_FILE)["model"]
    return torch.cat([value.flatten().double() for value in model.values()])


def stopped(config: RunConfig, after: int) -> None:
    """Train, and fail after some steps."""
    original, calls = engine.train_step, []

    def train_step(run: engine.Run, views: Views) -> dict[str, Any]:
        calls.append(1)
        if len(calls) > after:
            raise RuntimeError("stopped")
        return original(run, views)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "train_step", train_step)
        with pytest.raises(RuntimeError, match="stopped"):
            engine.train(config)


def with_data(config: RunConfig, **data: Any) -> RunConfig:
    return replace(config, data=replace(config.data, **data))


def shards(root: Path, folder: Path, per_shard: int) -> str:
    source = open_source(root)
    folder.mkdir()
    for first in range(0, len(source), per_shard):
        with tarfile.open(folder / f"{first:03}.tar", "w") as archive:
            for index in range(first, min(first + per_shard, len(source))):
                for kind, content in (("jpg", source.read(index)), ("cls", str(source.label(index)).encode())):
                    info = tarfile.TarInfo(f"{index:04}.{kind}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return f"{folder}/*.tar"


@pytest.mark.slow
def test_a_folder_its_zip_and_its_index_are_one_run(
    image_tree: Tree, run_of: Callable[..., RunConfig], tmp_path: Path
) -> None:
    root = image_tree(2, 12)
    straight, mixed = run_of("straight", root=str(root)), run_of("mixed", root=str(root))
    engine.train(straight)
    stopped(mixed, 2)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in root.rglob("*.JPEG"):
            archive.write(file, file.relative_to(root))
    stopped(with_data(mixed, root=str(tmp_path / "a.zip"), workers=1), 2)
    open_source(root).index.write(tmp_path / "a.index")
    engine.train(with_data(mixed, root=str(tmp_path / "a.index")))
    assert torch.equal(weights(straight), weights(mixed))
    assert from_dict(checkpoint.load(Path(mixed.out) / CHECKPOINT_FILE)["config"]).data.layout == "class_folder"


@pytest.mark.slow
@pytest.mark.parametrize("shuffle_shards", [0, 2])
def test_a_run_on_shards_goes_on_exactly(
    image_tree: Tree, run_of: Callable[..., RunConfig], tmp_path: Path, shuffle_shards: int
) -> None:
    pattern = shards(image_tree(2, 12), tmp_path / "shards", per_shard=5)
    straight, parted = (run_of(out, root=pattern, shuffle_shards=shuffle_shards) for out in ("straight", "parted"))
    engine.train(straight)
    stopped(parted, 2)
    engine.train(with_data(parted, workers=2))
    assert torch.equal(weights(straight), weights(parted))
    with pytest.raises(UserError, match=r"other settings: data\.shuffle_shards"):
        engine.train(with_data(parted, shuffle_shards=3))
    (tmp_path / "shards" / "010.tar").unlink()
    with pytest.raises(UserError, match=r"other images than at the start of this run: 5 of 24 are missing"):
        engine.train(replace(parted, epochs=3))


@pytest.mark.slow
def test_a_run_on_a_mixture_goes_on_exactly(
    image_tree: Tree, run_of: Callable[..., RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = image_tree(2, 6, name="one"), image_tree(2, 3, name="other")
    roots = [{"root": str(one), "weight": 1.5}, {"root": str(other), "weight": 2}]
    straight, parted = (run_of(out, mixture=roots) for out in ("straight", "parted"))
    engine.train(straight)
    assert checkpoint.load(Path(straight.out) / CHECKPOINT_FILE)["step"] == 2 * ((18 + 12) // 8)
    assert "18 images, 30 in an epoch" in capsys.readouterr().out
    stopped(parted, 2)
    moved = [{"root": str(one.rename(tmp_path / "moved")), "weight": 1.5}, roots[1]]
    engine.train(with_data(parted, mixture=[RootConfig(**root) for root in moved], workers=2))
    assert torch.equal(weights(straight), weights(parted))

    (Path(parted.out) / IMAGE_LIST).rename(tmp_path / "list.txt")
    reweighted = with_data(parted, mixture=[RootConfig(**{**root, "weight": 1}) for root in moved])
    with pytest.raises(UserError, match="belongs to a run on other images"):
        engine.train(reweighted)
    (tmp_path / "list.txt").rename(Path(parted.out) / IMAGE_LIST)
    source = open_source(other)
    Path(source.where(2)).unlink()
    config = with_data(parted, mixture=[RootConfig(**root) for root in moved])
    content = checkpoint.load(Path(parted.out) / CHECKPOINT_FILE)
    _, kept, said = list_images(config, content)
    assert kept.stand_ins == {14: 15}
    assert kept.index.parts == ((12, 1.5), (6, 2.0))
    assert "1 image of this run is missing (1/n00000000/n00000000_2.JPEG)" in said[0]
    assert kept.read(13) == source.read(1)


def test_a_mixture_on_the_command_line(tmp_path: Path) -> None:
    words = ["--method.name=pixpro", "--data.mixture", "[{root: a, weight: 2}, {root: b, layout: flat}]"]
    config = parse(words)
    assert config.data.mixture == [RootConfig("a", 2.0), RootConfig("b", layout="flat")]
    assert from_dict(config.as_dict()) == config
    (tmp_path / "m.yaml").write_text("method: {name: pixpro}\ndata: {mixture: [{root: a, weight: 0.5}]}\n")
    assert parse(["--config", str(tmp_path / "m.yaml")]).data.mixture == [RootConfig("a", 0.5)]
    with pytest.raises(UserError, match=r"the weight of a is 0\.0; it must be above 0"):
        parse([*words[:2], "[{root: a, weight: 0}]"])
    with pytest.raises(UserError, match=r"data\.mixture takes the place of data\.root"):
        parse([*words, "--data.root=x"])
    with pytest.raises(UserError, match=r"data\.limit cannot be combined"):
        parse([*words, "--data.limit=5"])
    for wrong in ("[{weight: 1}]", "[1]", "x", "[{root: a, heavy: 2}]"):
        with pytest.raises(UserError, match=r"^data\.mixture cannot be read; it must be a list of roots .*\]\"$"):
            parse([*words[:2], wrong])


def test_how_many_images_may_be_broken() -> None:
    assert DataConfig().most_skipped(10_000) == 100
    assert DataConfig().most_skipped(10) == 1
    assert DataConfig(max_skipped=0).most_skipped(10) == 0
    assert DataConfig(on_error="fail").most_skipped(10_000) == 0
    with pytest.raises(UserError, match=r"data\.max_skipped is 1\.5; it must be a fraction"):
        DataConfig(max_skipped=1.5)
