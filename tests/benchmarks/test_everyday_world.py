"""The everyday world: the same seed gives the same scenes, masks are exact, every layout is right, objects are large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.miniworld import cityscapes, coco, voc
from benchmarks.miniworld.cutout import Cutout, paste
from benchmarks.miniworld.everyday import Everyday
from benchmarks.miniworld.everyday.textures import FAMILIES
from benchmarks.miniworld.everyday.world import KINDS, PLACES
from benchmarks.miniworld.generate import LEAST, Task, World, generate, stream
from benchmarks.miniworld.scene import MIN_VISIBLE, Scene
from transfer.datasets.check import Needs, check_dataset
from transfer.datasets.layout import SETS

pytestmark = pytest.mark.slow

SMALL = World(seed=0, images=LEAST, name="everyday")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest everyday world."""
    root = tmp_path_factory.mktemp("everyday") / "data"
    generate(root, SMALL, workers=1)
    return root


@pytest.fixture(scope="module")
def everyday() -> Everyday:
    return Everyday(0)


def rng(number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([0, number]))


def scenes(everyday: Everyday, count: int) -> list[Scene]:
    return [everyday.scene(rng(i), i, 130, 120, 1 + i % 3, crowd=i % 8 == 0) for i in range(count)]


# --- tables ------------------------------------------------------------------------------------------------------------


def test_every_kind_has_a_place_and_every_name_in_the_tables_exists(everyday: Everyday) -> None:
    assert len(everyday.classes) == 12
    places = PLACES["places"].values()
    found = {kind.name for kind in everyday.classes}
    assert {name for place in places for name in place["kinds"]} == found
    assert {name for place in places for name in place["clutter"]} == KINDS["clutter"].keys()
    for tables in (KINDS, PLACES):
        for families, first, second, *_ in tables["materials"].values():
            assert {*families} <= FAMILIES.keys()
            assert first in tables["colours"]
            assert isinstance(second, int) or second in tables["colours"]


def test_the_names_are_those_of_voc_and_coco(everyday: Everyday) -> None:
    numbers = {entry["name"]: entry["id"] for entry in coco.categories()}
    assert all(numbers[kind.name] == kind.coco and kind.voc in voc.CLASSES for kind in everyday.classes)
    assert len({kind.synset for kind in everyday.classes}) == 12


# --- determinism -------------------------------------------------------------------------------------------------------


def test_a_scene_depends_on_nothing_but_seed_and_number(everyday: Everyday) -> None:
    first = [everyday.portrait(rng(i), i, 100, 90).pixels for i in range(6)]
    again = Everyday(0)
    for i in reversed(range(6)):
        assert np.array_equal(again.portrait(rng(i), i, 100, 90).pixels, first[i])
    other = Everyday(1)
    assert not np.array_equal(other.portrait(rng(0), 0, 100, 90).pixels, first[0])


def test_same_bytes_whatever_the_workers(root: Path, tmp_path: Path) -> None:
    generate(tmp_path / "two", SMALL, workers=2)
    files = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*") if path.is_file()
    )
    assert all((root / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)


# --- masks -------------------------------------------------------------------------------------------------------------


def test_layers_tile_every_scene_and_objects_stay_visible(everyday: Everyday) -> None:
    drawn = scenes(everyday, 16) + [everyday.street(rng(i), i, 256, 128, 3, crowd=i == 0) for i in range(6)]
    for scene in drawn:
        assert (np.sum([layer.visible for layer in scene.layers], axis=0) == 1).all()
        for thing in scene.objects:
            assert thing.visible.sum() >= MIN_VISIBLE * thing.whole.sum()
            assert np.array_equal(thing.whole, scene.fill(thing.polygon))


def test_the_mask_of_a_cut_out_is_its_largest_piece_with_holes_filled() -> None:
    y, x = np.mgrid[-20:20, -20:20]
    opacity = np.where((x**2 + y**2 < 300) & (x**2 + y**2 > 60), 255, 0).astype(np.uint8)
    opacity[:3, :3] = 255  # another piece
    opacity[20, 30:33] = 100  # another hole
    opacity[36, 16:24] = 128  # half transparent
    scene = Scene(np.zeros((60, 70, 3), np.float32))
    kind = Everyday(0).classes[0]
    assert paste(scene, Cutout(np.repeat(opacity[..., None], 3, 2).astype(np.float32), opacity), 10, 8, kind)
    mask = np.zeros((60, 70), bool)
    mask[8:48, 10:50] = x**2 + y**2 < 300
    assert np.array_equal(scene.objects[0].visible, mask)
    assert np.array_equal(scene.pixels[8:48, 10:50, 0], opacity)


def test_an_object_that_leaves_the_frame_or_hides_another_is_not_drawn() -> None:
    scene = Scene(np.zeros((50, 50, 3), np.float32))
    kind = Everyday(0).classes[0]
    block = Cutout(np.full((20, 20, 3), 200, np.float32), np.full((20, 20), 255, np.uint8))
    assert not paste(scene, block, -12, 5, kind)
    assert paste(scene, block, 10, 10, kind)
    before = scene.pixels.copy()
    assert not paste(scene, block, 11, 11, kind)
    assert np.array_equal(scene.pixels, before)
    assert paste(scene, block, 22, 10, kind)
    assert scene.objects[0].covered == pytest.approx(0.4)


# --- content -----------------------------------------------------------------------------------------------------------


def test_scenes_hold_the_class_they_must_and_a_third_to_a_half_of_them_is_objects(everyday: Everyday) -> None:
    drawn = scenes(everyday, 48)
    assert all(everyday.classes[i % 12] in [o.object_class for o in scene.objects] for i, scene in enumerate(drawn))
    assert {len(scene.objects) for scene in drawn} == {1, 2, 3}
    assert any(scene.crowd for scene in drawn)
    assert any(thing.covered > 0.2 for scene in drawn for thing in scene.objects)
    assert any(thing.truncated for scene in drawn for thing in scene.objects)
    assert 0.3 < np.mean([np.any([o.visible for o in scene.objects], 0).mean() for scene in drawn]) < 0.5


# --- layouts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_every_layout_is_right(root: Path, name: str) -> None:
    assert check_dataset(root, name, Needs(), thorough=True, checksums=False).problems == []


def test_cityscapes_files_agree_in_every_pixel(root: Path) -> None:
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.preparation.json2instanceImg import createInstanceImage

    files = sorted((root / "cityscapes" / "gtFine").glob("*/*/*_instanceIds.png"))
    assert len(files) == 2 * LEAST
    for path in files:
        annotation = Annotation()
        annotation.fromJsonFile(str(path).replace("instanceIds.png", "polygons.json"))
        assert np.array_equal(np.asarray(createInstanceImage(annotation, "ids")), np.asarray(Image.open(path)))


def test_pycocotools_masks_are_the_scene(root: Path, everyday: Everyday) -> None:
    from pycocotools.coco import COCO

    api = COCO(str(root / "coco/annotations/instances_train2017.json"))
    for index, number in enumerate(sorted(api.imgs)):
        scene = coco.compose(everyday, index, stream(Task("coco", "train2017", index), 0))
        single = [entry for entry in api.imgToAnns[number] if not entry["iscrowd"]]
        for entry, thing in zip(single, scene.objects, strict=True):
            assert entry["category_id"] == thing.object_class.coco
            assert np.array_equal(api.annToMask(entry), thing.visible)


def test_streets_have_only_classes_of_cityscapes(everyday: Everyday) -> None:
    from cityscapesscripts.helpers.labels import name2label

    for index in range(6):
        scene = cityscapes.compose(everyday, index, stream(Task("cityscapes", "train", index), 0))
        assert all(layer.label in name2label for layer in scene.layers)
        assert everyday.of_streets[index] in [thing.object_class for thing in scene.objects]
