"""The mini world: same seed same bytes, exact masks, and layouts that the real readers read."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.commands import data as command
from benchmarks.miniworld import ade20k, cityscapes, coco, voc
from benchmarks.miniworld.generate import LEAST, Task, World, generate, stream
from benchmarks.miniworld.scene import MIN_VISIBLE, window
from benchmarks.miniworld.shapes import Shapes
from benchmarks.miniworld.shapes.object_classes import OBJECT_CLASSES
from benchmarks.miniworld.trace import polygons, run_lengths
from pixbench.errors import UserError
from pixbench.file_versions import MINI_WORLD_FILE
from pixbench.lock import CLAIMS, owned

pytestmark = pytest.mark.slow

DRAWING = Shapes()
SMALL = World(seed=0, images=LEAST, name="shapes")  # what the fixture mini_root holds


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def data_command(*words: object) -> int:
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    args = parser.parse_args(["data", *map(str, words)])
    return args.run(args) or 0


# --- determinism -------------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes_whatever_the_workers(mini_root: Path, tmp_path: Path) -> None:
    assert generate(tmp_path / "two", SMALL, workers=2)
    assert digests(tmp_path / "two") == digests(mini_root)
    assert not (tmp_path / "two.part").exists()


def test_another_seed_gives_other_pictures(mini_root: Path, tmp_path: Path) -> None:
    generate(tmp_path / "other", World(seed=1, images=LEAST, name="shapes"), workers=1)
    ours, others = digests(mini_root), digests(tmp_path / "other")
    assert ours.keys() == others.keys()
    pictures = [name for name in ours if name.endswith((".JPEG", ".jpg", "leftImg8bit.png"))]
    assert len(pictures) == 12 * LEAST
    assert all(ours[name] != others[name] for name in pictures)


def test_no_two_splits_share_a_scene(mini_root: Path) -> None:
    found = [value for name, value in digests(mini_root).items() if name.endswith((".JPEG", ".jpg"))]
    assert len(set(found)) == len(found)


def test_sizes_scale_with_images() -> None:
    assert World().sizes("imagenet") == {"train": 3000, "val": 300}
    assert World(images=6000).sizes("coco") == {"train2017": 400, "val2017": 120}
    assert set(World(images=LEAST).sizes("voc").values()) == {LEAST}


# --- masks -------------------------------------------------------------------------------------------------------------


def test_layers_tile_the_street_and_objects_stay_visible() -> None:
    for index in range(12):
        scene = cityscapes.compose(DRAWING, index, stream(Task("cityscapes", "train", index), 5))
        assert (np.sum([layer.visible for layer in scene.layers], axis=0) == 1).all()
        assert OBJECT_CLASSES[index % 6] in [thing.object_class for thing in scene.objects]
        hood = scene.layers[-1].visible
        for thing in scene.objects:
            assert (thing.visible | (thing.whole & hood)).sum() >= MIN_VISIBLE * thing.whole.sum()


def test_scenes_hold_occlusion_truncation_crowds_and_all_kinds() -> None:
    scenes = [coco.compose(DRAWING, i, stream(Task("coco", "train2017", i), 0)) for i in range(60)]
    things = [thing for scene in scenes for thing in scene.objects]
    assert {thing.object_class for thing in things} == set(OBJECT_CLASSES)
    assert any(thing.covered > 0.2 for thing in things)
    assert any(thing.truncated for thing in things)
    assert any(scene.crowd for scene in scenes)
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3}


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_polygons_and_run_lengths_are_exact_in_pycocotools(density: float) -> None:
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(0)
    for _ in range(100):  # pieces, holes, holes in holes, pixels that touch at corners
        mask = rng.random(rng.integers(1, 20, 2)) < density
        if not mask.any():
            continue
        outline = coco_mask.merge(coco_mask.frPyObjects(polygons(mask), *mask.shape))
        assert np.array_equal(coco_mask.decode(outline), mask)
        runs = coco_mask.frPyObjects(run_lengths(mask), *mask.shape)
        assert np.array_equal(coco_mask.decode(runs), mask)


# --- ImageNet ----------------------------------------------------------------------------------------------------------


def test_imagenet_reads_as_class_folders(mini_root: Path) -> None:
    from torchvision.datasets import ImageFolder

    for split in ("train", "val"):
        folder = ImageFolder(str(mini_root / "imagenet" / split))
        assert len(folder) == LEAST
        assert folder.classes == sorted(object_class.synset for object_class in OBJECT_CLASSES)
        assert np.bincount(folder.targets).tolist() == [2] * 6


# --- VOC ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [split for split in voc.SPLITS if not split.endswith("aug")])
def test_voc_boxes_and_masks_are_the_scene(mini_root: Path, split: str) -> None:
    home = mini_root / split.split("/")[0]
    names = (home / "ImageSets" / "Main" / f"{split.split('/')[1]}.txt").read_text().split()
    assert len(names) == LEAST
    for index, name in enumerate(names):
        scene = voc.compose(DRAWING, index, stream(Task("voc", split, index), 0))
        tree = ET.parse(home / "Annotations" / f"{name}.xml")
        height, width = scene.image.shape[:2]
        assert [int(tree.findtext(f"size/{tag}", "")) for tag in ("width", "height", "depth")] == [width, height, 3]
        assert Image.open(home / "JPEGImages" / f"{name}.jpg").size == (width, height)
        numbers = pixels(home / "SegmentationObject" / f"{name}.png")
        classes = pixels(home / "SegmentationClass" / f"{name}.png")
        entries = tree.findall("object")
        assert len(entries) == len(scene.objects) == numbers.max()
        for position, (entry, thing) in enumerate(zip(entries, scene.objects, strict=True), 1):
            mask = numbers == position
            assert np.array_equal(mask, thing.visible)
            assert entry.findtext("name") == thing.object_class.voc
            assert (classes[mask] == voc.CLASSES.index(thing.object_class.voc) + 1).all()
            rows, columns = np.nonzero(mask)
            box = [int(entry.findtext(f"bndbox/{tag}", "")) for tag in ("xmin", "ymin", "xmax", "ymax")]
            assert box == [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]
        assert (classes[numbers == 0] == 0).all()


def test_voc_lists(mini_root: Path) -> None:
    main = mini_root / "VOC2007" / "ImageSets" / "Main"

    def names(part: str) -> list[str]:
        return (main / f"{part}.txt").read_text().split()

    assert names("train") + names("val") == names("trainval")
    assert not set(names("trainval")) & set(names("test"))
    assert len(list(main.glob("*_trainval.txt"))) == 20
    for line in (main / "car_trainval.txt").read_text().splitlines():
        name, state = line.split()
        tree = ET.parse(mini_root / "VOC2007" / "Annotations" / f"{name}.xml")
        cars = [entry for entry in tree.findall("object") if entry.findtext("name") == "car"]
        easy = [entry for entry in cars if entry.findtext("difficult") == "0"]
        assert int(state) == (-1 if not cars else 1 if easy else 0)


def test_pictures_of_voc_aug_have_a_class_mask_and_stand_in_no_other_list(mini_root: Path) -> None:
    home = mini_root / "VOC2012"
    names = {path.stem: path.read_text().split() for path in (home / "ImageSets/Segmentation").iterdir()}
    assert len(names["aug"]) == LEAST
    assert not {*names["aug"]} & {*names["trainval"]}
    for index, name in enumerate(names["aug"]):
        scene = voc.compose(DRAWING, index, stream(Task("voc", "VOC2012/aug", index), 0))
        mask = pixels(home / "SegmentationClassAug" / f"{name}.png")
        assert Image.open(home / "JPEGImages" / f"{name}.jpg").size == mask.shape[::-1]
        assert set(np.unique(mask)) - {0} == {voc.CLASSES.index(thing.object_class.voc) + 1 for thing in scene.objects}


@pytest.mark.frameworks
def test_detectron2_reads_voc(mini_root: Path) -> None:
    from detectron2.data.datasets.pascal_voc import CLASS_NAMES, load_voc_instances

    for folder, split in (("VOC2007", "trainval"), ("VOC2007", "test"), ("VOC2012", "trainval")):
        records = load_voc_instances(str(mini_root / folder), split, CLASS_NAMES)
        for index, record in enumerate(records):
            scene = voc.compose(DRAWING, index, stream(Task("voc", f"{folder}/{split}", index), 0))
            read = [(CLASS_NAMES[entry["category_id"]], entry["bbox"]) for entry in record["annotations"]]
            assert Path(record["file_name"]).is_file()
            drawn = [(thing.object_class.voc, edges(thing.visible)) for thing in scene.objects]
            assert read == drawn


def edges(mask: np.ndarray) -> list[float]:
    rows, columns = window(mask)
    return [columns.start, rows.start, columns.stop, rows.stop]


# --- COCO --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", coco.SPLITS)
def test_pycocotools_masks_are_the_scene(tmp_path_factory: pytest.TempPathFactory, split: str) -> None:
    from pycocotools.coco import COCO

    root, count = tmp_path_factory.mktemp("coco"), 40  # more than mini_root has, so that there is a crowd
    task = [Task("coco", split, index) for index in range(count)]
    coco.finish(DRAWING, root, {split: [coco.write(DRAWING, root, split, t.index, stream(t, 0)) for t in task]})
    api = COCO(str(root / "coco" / "annotations" / f"instances_{split}.json"))
    assert [len(api.getCatIds()), min(api.getCatIds()), max(api.getCatIds())] == [80, 1, 90]
    crowds = 0
    for index, (number, image) in enumerate(sorted(api.imgs.items())):
        scene = coco.compose(DRAWING, index, stream(task[index], 0))
        assert Image.open(root / "coco" / split / image["file_name"]).size == (image["width"], image["height"])
        assert image["file_name"] == f"{number:012d}.jpg"
        expected = [(thing.object_class.name, 0, thing.visible) for thing in scene.objects]
        if scene.crowd:
            crowds += 1
            expected.append(
                (scene.crowd[0].object_class.name, 1, np.any([thing.visible for thing in scene.crowd], axis=0))
            )
        for entry, (name, crowd, mask) in zip(api.imgToAnns[number], expected, strict=True):
            assert api.cats[entry["category_id"]]["name"] == name
            assert entry["iscrowd"] == crowd
            assert np.array_equal(api.annToMask(entry), mask)
            rows, columns = np.nonzero(mask)
            corner = [columns.min(), rows.min()]
            assert entry["bbox"] == [*corner, columns.max() + 1 - corner[0], rows.max() + 1 - corner[1]]
            assert entry["area"] == mask.sum()
    assert crowds


@pytest.mark.e2e
@pytest.mark.frameworks
def test_detectron2_reads_coco_with_its_builtin_names(mini_root: Path) -> None:
    script = """
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import annotations_to_instances
for split in ("train", "val"):
    records = DatasetCatalog.get(f"coco_2017_{split}")
    for record in records:
        single = [dict(entry) for entry in record["annotations"] if not entry["iscrowd"]]
        for entry in single:
            x, y, width, height = entry["bbox"]
            entry["bbox"], entry["bbox_mode"] = [x, y, x + width, y + height], 0
        found = annotations_to_instances(single, (record["height"], record["width"]), mask_format="polygon")
        assert (found.gt_masks.get_bounding_boxes().tensor == found.gt_boxes.tensor).all()
    print(len(records), len(MetadataCatalog.get(f"coco_2017_{split}").thing_classes))
for name in ("voc_2007_trainval", "voc_2007_test", "voc_2012_trainval"):
    print(len(DatasetCatalog.get(name)))
print(len(DatasetCatalog.get("cityscapes_fine_sem_seg_train")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "DETECTRON2_DATASETS": str(mini_root)},  # read when detectron2 is imported
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(LEAST), "80"] * 2 + [str(LEAST)] * 4


# --- Cityscapes --------------------------------------------------------------------------------------------------------


def test_cityscapes_files_agree_in_every_pixel(mini_root: Path) -> None:
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.helpers.labels import id2label
    from cityscapesscripts.preparation.json2instanceImg import createInstanceImage

    to_train = np.full(256, 255)
    for number, label in id2label.items():
        if number >= 0:
            to_train[number] = label.trainId
    seen: set[int] = set()
    labels = sorted((mini_root / "cityscapes" / "gtFine").glob("*/*/*_labelIds.png"))
    assert len(labels) == 2 * LEAST
    for path in labels:
        stem = str(path).removesuffix("labelIds.png")
        ids, instances = pixels(path), pixels(Path(f"{stem}instanceIds.png"))
        assert np.array_equal(pixels(Path(f"{stem}labelTrainIds.png")), to_train[ids])
        assert np.array_equal(np.where(instances < 1000, instances, instances // 1000), ids)
        annotation = Annotation()
        annotation.fromJsonFile(f"{stem}polygons.json")
        assert np.array_equal(np.asarray(createInstanceImage(annotation, "ids")), instances)
        picture = Path(stem.replace("gtFine", "leftImg8bit").removesuffix("_") + ".png")
        assert Image.open(picture).size == cityscapes.SIZE
        seen |= set(np.unique(ids).tolist())
    names = {id2label[number].name for number in seen}
    assert {object_class.name for object_class in OBJECT_CLASSES} | {
        "road",
        "sidewalk",
        "building",
        "vegetation",
        "sky",
        "ego vehicle",
    } <= names


@pytest.mark.frameworks
def test_mmseg_reads_cityscapes(mini_root: Path) -> None:
    from mmseg.datasets import CityscapesDataset

    home = mini_root / "cityscapes"
    data = CityscapesDataset(
        data_root=str(home), data_prefix={"img_path": "leftImg8bit/val", "seg_map_path": "gtFine/val"}, pipeline=[]
    )
    assert len(data) == LEAST
    info = data.get_data_info(0)
    assert Path(info["img_path"]).is_file()
    assert set(np.unique(pixels(Path(info["seg_map_path"])))) <= {*range(19), 255}


# --- ADE20K ------------------------------------------------------------------------------------------------------------


@pytest.mark.frameworks
def test_mmseg_reads_ade20k_under_its_own_class_names(mini_root: Path) -> None:
    from mmseg.datasets import ADE20KDataset

    ours = {**ade20k.STUFF, **ade20k.THINGS}
    others = {"vegetation": "tree", "train": "airplane", "motorcycle": "minibike"}
    seen: set[int] = set()
    for split in ade20k.SPLITS:
        prefix = {"img_path": f"images/{split}", "seg_map_path": f"annotations/{split}"}
        data = ADE20KDataset(data_root=str(mini_root / "ADEChallengeData2016"), data_prefix=prefix, pipeline=[])
        assert len(data) == LEAST
        assert all(data.metainfo["classes"][n - 1] == others.get(label, label) for label, n in ours.items())
        for index in range(LEAST):
            info = data.get_data_info(index)
            labels = pixels(Path(info["seg_map_path"]))
            assert Image.open(info["img_path"]).size == labels.shape[::-1] == ade20k.SIZE
            seen |= set(np.unique(labels).tolist())
    assert seen == {0, *ours.values()}


# --- all or nothing ----------------------------------------------------------------------------------------------------


def test_a_finished_world_is_left_alone(mini_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in mini_root.rglob("*")}
    assert data_command("mini", "--root", mini_root, "--world", "shapes", "--images", LEAST) == 0
    assert "already there" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in mini_root.rglob("*")}


def test_another_world_or_other_files_are_refused(mini_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another mini world"):
        generate(mini_root, World(seed=1, images=LEAST, name="shapes"), workers=1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    with pytest.raises(UserError, match="no mini world"):
        generate(tmp_path / "photos", SMALL, workers=1)
    with pytest.raises(UserError, match="is a file"):
        generate(tmp_path / "photos" / "holiday.jpg", SMALL, workers=1)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["holiday.jpg"]


def test_foreign_files_beside_are_never_deleted(tmp_path: Path) -> None:
    part = tmp_path / "data.part"
    (part / "coco").mkdir(parents=True)
    (part / "coco" / "mine.txt").touch()
    with pytest.raises(UserError, match="in the way"):
        generate(tmp_path / "data", SMALL, workers=1)
    assert (part / "coco" / "mine.txt").exists()
    (part / CLAIMS.replace("*", "killed")).touch()  # looks like ours now, but holds something else beside it
    (part / "notes.txt").touch()
    with pytest.raises(UserError, match="in the way"):
        generate(tmp_path / "data", SMALL, workers=1)
    assert (part / "notes.txt").exists()


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.e2e), signal.SIGKILL])
def test_interrupted_then_started_again(mini_root: Path, tmp_path: Path, how: signal.Signals) -> None:
    root, part = tmp_path / "data", tmp_path / "data.part"
    program = (
        "import sys; from pathlib import Path; from benchmarks.miniworld.generate import World, generate; "
        "generate(Path(sys.argv[1]), World(0, 3000, 'shapes'), workers=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(root)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(part.glob("world/cityscapes/*/*/*/*.png")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    assert process.wait() != 0
    assert not root.exists()
    assert part.exists() == (how is signal.SIGKILL)
    assert generate(root, SMALL, workers=1)
    assert digests(root) == digests(mini_root)
    assert not part.exists()


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with owned(tmp_path / "data.part"), pytest.raises(UserError, match=f"in use by process {os.getpid()} "):
        generate(tmp_path / "data", SMALL, workers=1)


def test_an_empty_folder_is_filled(mini_root: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert generate(tmp_path / "data", SMALL, workers=1)
    stamp = json.loads((tmp_path / "data" / MINI_WORLD_FILE).read_text())
    assert (stamp["seed"], stamp["images"]) == (0, LEAST)


@pytest.mark.parametrize("stamp", ["5", "null", "[]", '"seed images"', "{", ""])
def test_a_folder_with_another_kind_of_stamp_is_no_mini_world(tmp_path: Path, stamp: str) -> None:
    (tmp_path / MINI_WORLD_FILE).write_text(stamp)
    with pytest.raises(UserError, match="contains files but no mini world"):
        generate(tmp_path, SMALL, workers=1)
    assert [path.read_text() for path in tmp_path.iterdir()] == [stamp]


@pytest.mark.parametrize("words", [("--images", 3), ("--seed", -1), ("--workers", 0)])
def test_impossible_wishes_are_refused(tmp_path: Path, words: tuple[object, ...]) -> None:
    with pytest.raises(UserError, match=str(words[0])):
        data_command("mini", "--root", tmp_path / "data", *words)
    assert not list(tmp_path.iterdir())
