"""The configs of segmentation in context: equal to the stored definitions, and the published lists of training pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pixbench.errors import UserError
from transfer.datasets.classes import Classes
from transfer.datasets.mask_numbers import Numbering
from transfer.frozen.config import published, resolve
from transfer.frozen.crops import Crops, CropSettings
from transfer.frozen.methods import incontext
from transfer.frozen.methods.incontext import Settings
from transfer.frozen.published_lists import FRACTIONS, published_list
from transfer.frozen.scenes import Scenes, scenes
from transfer.frozen.views import Images, Views
from transfer.job import TransferJob
from transfer.protocols import find_protocol, leaves
from transfer.run import run_transfer

PUBLIC = yaml.safe_load(Path(__file__).with_name("public_incontext.yaml").read_text(encoding="utf-8"))
VARIANTS = {"_incontext": "paper", "_incontext_public": "public"}


@pytest.mark.parametrize("data", ["ade20k", "voc12aug", "cityscapes"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_values_are_those_of_the_definition(data: str, variant: str) -> None:
    definition, protocol = PUBLIC["definitions"][VARIANTS[variant]], find_protocol(data + variant)
    config = dict(leaves(published(protocol).as_dict()))
    fields = definition["fields"].values()
    for field in fields:
        assert config[field["key"]] == field.get("ours", field["value"]), field
    assert {field["key"] for field in fields} | {*PUBLIC["plumbing"]} == {*config}
    assert definition["differences"]
    assert VARIANTS[variant] == "public" or all(field["evidence"] for field in fields)


@pytest.mark.parametrize("data", ["ade20k", "voc12aug", "cityscapes"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_number_of_classes(data: str, variant: str, mini_root: Path) -> None:
    protocol = find_protocol(data + variant)
    (name,) = protocol.datasets
    settings = published(protocol).settings
    assert (
        settings.classes(scenes(mini_root, name, "test")) == PUBLIC["definitions"][VARIANTS[variant]]["classes"][name]
    )


@pytest.mark.parametrize(
    ("data", "counts"), [("VOC2012aug", (1320, 160, 80)), ("ADEChallengeData2016", (2550, 300, 150))]
)
@pytest.mark.parametrize("seed", [42, 400, 783, 1293, 4019])
def test_published_lists(data: str, counts: tuple[int, ...], seed: int) -> None:
    found = [published_list(data, fraction, seed) for fraction in FRACTIONS]
    assert tuple(map(len, found)) == counts
    assert {*found[2]} < {*found[1]} < {*found[0]}
    assert all(len(name) == {"V": 11, "A": 18}[data[0]] for name in found[0])


def test_some_names_of_the_published_lists() -> None:
    """The first names in the public files training_128_42.txt and trainaug_128_400.txt."""
    assert {"ADE_train_00009360", "ADE_train_00019024"} < {*published_list("ADEChallengeData2016", 128, 42)}
    assert {"2009_004514", "2010_005884", "2010_002143"} < {*published_list("VOC2012aug", 128, 400)}


def chosen(root: Path, **settings: Any) -> Views:
    views = Views(scenes(root, "VOC2012aug", "train"), Images())
    return incontext.views("train", views, Settings(**settings), 0)


def test_own_list(mini_root: Path, tmp_path: Path) -> None:
    names = [path.stem for path in chosen(mini_root).scenes.pictures]
    (tmp_path / "list").write_text("\n".join(names[3:5]), encoding="utf-8")
    found = chosen(mini_root, train_list=str(tmp_path / "list"))
    assert [path.stem for path in found.scenes.pictures] == names[3:5]


def test_lists_that_do_not_fit(mini_root: Path, tmp_path: Path) -> None:
    (tmp_path / "unknown").write_text("2007_000000\n", encoding="utf-8")
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    for settings, message in (
        ({"train_list": str(tmp_path / "unknown")}, "VOC2012aug, train has no picture 2007_000000; give a list"),
        ({"train_list": str(tmp_path / "empty")}, "empty is empty; give the names"),
        ({"train_list": str(tmp_path / "no")}, "no cannot be read"),
        ({"train_list": "x", "fraction": 8}, "set one of them"),
        ({"fraction": 8}, r"has no picture 20\d\d_\d+ \(nor 13\d\d more of the list\)"),
        ({"fraction": 7}, "no list of 1/7 of VOC2012aug with seed 42; settings.fraction may be 1, 8, 64, 128"),
        ({"fraction": 8, "list_seed": 1}, "with seed 1; .* settings.list_seed 42, 400, 783, 1293, 4019"),
    ):
        with pytest.raises(UserError, match=message):
            chosen(mini_root, **settings)
    cityscapes = Views(scenes(mini_root, "cityscapes", "train"), Images())
    with pytest.raises(UserError, match="there are no published lists of cityscapes"):
        incontext.views("train", cityscapes, Settings(fraction=8), 0)


@pytest.fixture
def coordinates(tmp_path: Path) -> Scenes:
    """A picture whose red channel is its label map, in blocks of 10 pixels."""
    values = np.kron(np.arange(48).reshape(6, 8), np.ones((10, 10))).astype(np.uint8)
    Image.fromarray(np.stack([values] * 3, 2)).save(tmp_path / "picture.png")
    Image.fromarray(values).save(tmp_path / "mask.png")
    paths = (tmp_path / "picture.png",), (tmp_path / "mask.png",)
    return Scenes("some set, train", *paths, Numbering(Classes(tuple(map(str, range(48))), "none"), False))


def test_crops_of_pictures_and_masks_are_the_same(coordinates: Scenes) -> None:
    crops = Crops(coordinates, Images(size=64), CropSettings(5, (0.5, 2.0), (0.75, 4 / 3), 0.0, 0.5, 0))
    assert len(crops) == 5
    for index in range(5):
        picture, labels = crops[index][0].numpy(), crops.labels(index)
        assert picture.shape == labels.shape == crops.shape(index) == (64, 64)
        assert (picture == labels).mean() > 0.6  # the rest is at the edges of blocks, which are blurred
        assert len(np.unique(labels)) > 15  # at least half of the area
    assert len({crops[index].sum().item() for index in range(5)}) == 5


def test_crops_depend_on_the_seed_alone(coordinates: Scenes) -> None:
    drawn = CropSettings(2, (0.5, 2.0), (0.75, 4 / 3), 0.1, 0.5, 0)
    one, same, other = (Crops(coordinates, Images(size=32), replace(drawn, seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(one[1], same[1])
    assert not torch.equal(one[1], other[1])
    assert one.about() == same.about() != other.about()


def test_a_run_of_the_public_variant(mini_root: Path, tmp_path: Path) -> None:
    overrides = {"images.size": 64, "settings.memory_size": 200}
    job = TransferJob(
        find_protocol("ade20k_incontext_public"),
        mini_root,
        tmp_path / "run",
        scale="mini",
        overrides=overrides,
        workers=0,
    )
    result = run_transfer(job)
    about, metrics = result["evaluation"], result["metrics"]
    assert result["kind"] == "frozen"
    assert 0 <= metrics["mIoU"] <= metrics["mIoU_paper"] <= 100  # most classes are absent in a mini world
    assert about["pixels"]["std"] == pytest.approx([58.395, 57.12, 65.025])
    assert about["memory patches"] == about["pictures"]["train"] * (200 // about["pictures"]["train"])
    assert about["scored at"] == "input"
    assert len(about["class IoU"]) == 151
    assert "images.size 64 instead of 224" in result["deviations"]
    assert "crops are rounded to whole grey levels before they are normalised" in result["deviations"]


def test_a_setting_that_is_not_possible(tmp_path: Path) -> None:
    job = TransferJob(find_protocol("voc12aug_incontext"), tmp_path, tmp_path, overrides={"settings.neighbours": 0})
    with pytest.raises(UserError, match=r"settings\.neighbours 0 is not possible; give a number above 0"):
        resolve(job)
