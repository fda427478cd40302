"""Make the files of a data set that its downloads do not contain: `pixbench data prepare`.

Each maker yields pairs: the path of a file, and a function that writes it. Existing files are never overwritten, and
without ``write`` nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from pixbench.errors import UserError
from pixbench.files import atomic_path, write_text
from transfer.datasets.layout import SETS, check_layout, home_of

Planned = Iterator[tuple[Path, Callable[[Path], object]]]
SBD = Path("benchmark_RELEASE/dataset")
"""Folder of the Semantic Boundaries Dataset (SBD) below the data root, as benchmark.tgz unpacks it."""


def prepare(data_root: Path, name: str, write: bool) -> tuple[list[Path], list[Path]]:
    """Write the missing files of data set ``name`` and return their paths, and the paths of those that existed.

    Without ``write``, only return the paths.

    Raises:
        UserError: the data set needs no preparation, or its sources are missing or broken.
    """
    if name not in MAKERS:
        home_of(data_root, name)
        raise UserError(f"{name} needs no preparation; choose one of {', '.join(MAKERS)}")
    if not data_root.is_dir():
        raise UserError(
            f"the data root {data_root} is not a folder; give the folder that holds {home_of(data_root, name).name}"
        )
    made: list[Path] = []
    there: list[Path] = []
    for path, save in MAKERS[name](data_root, home_of(data_root, name)):
        if path.exists():
            there.append(path)
            continue
        made.append(path)
        if write:
            save(path)
    return made, there


def train_ids(data_root: Path, home: Path) -> Planned:
    """Yield the labelTrainIds images of Cityscapes, drawn from the polygons by Cityscapes' own scripts."""
    from cityscapesscripts.preparation.json2labelImg import json2labelImg

    polygons = sorted(home.glob("gtFine/*/*/*_gtFine_polygons.json"))
    if not polygons:
        page = SETS["cityscapes"]["page"]
        raise UserError(f"{home}/gtFine holds no polygons; unpack gtFine_trainvaltest.zip from {page} first")

    def draw(source: Path, path: Path) -> None:
        try:
            with atomic_path(path) as part:
                json2labelImg(str(source), str(part), "trainIds")
        except (OSError, ValueError, KeyError, SystemExit) as error:
            raise UserError(
                f"{source} cannot be converted to labels ({error}); unpack gtFine_trainvaltest.zip again"
            ) from error

    for source in polygons:
        yield source.with_name(source.name.replace("polygons.json", "labelTrainIds.png")), partial(draw, source)


def voc12aug(data_root: Path, home: Path) -> Planned:
    """Yield the list (aug.txt) and the masks of those SBD images that VOC's segmentation task does not have.

    The masks in SegmentationClassAug are made from SBD's .mat files. The result is that of MMSegmentation's
    tools/dataset_converters/voc_aug.py, but sorted. trainaug.txt lists VOC's train images and these images. SBD is not
    needed if all files that the protocols read exist.
    """
    import numpy as np
    from PIL import Image
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    sbd, lists = data_root / SBD, home / "ImageSets" / "Segmentation"
    done = not sbd.exists() and not check_layout(data_root, "VOC2012aug")  # a mini world, or SBD was deleted
    sources = [lists / "aug.txt"] if done else [sbd / f"{part}.txt" for part in ("train", "val")]
    try:
        theirs = {name for path in sources for name in path.read_text("utf-8").split()}
        train, val = ((lists / f"{part}.txt").read_text("utf-8").split() for part in ("train", "val"))
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename} is missing; unpack VOCtrainval_11-May-2012.tar and SBD's benchmark.tgz below {data_root} "
            "(http://home.bharathh.info/pubs/codes/SBD/download.html)"
        ) from error

    def convert(source: Path, path: Path) -> None:
        try:
            mask = loadmat(source)["GTcls"][0]["Segmentation"][0].astype(np.uint8)
        except (OSError, ValueError, KeyError, IndexError, TypeError, MatReadError) as error:
            raise UserError(
                f"{source} is not a segmentation file of SBD ({error}); unpack benchmark.tgz again"
            ) from error
        with atomic_path(path) as part:
            Image.fromarray(mask).save(part, "PNG")

    names = sorted(theirs - {*train, *val})
    for name in names:
        yield home / "SegmentationClassAug" / f"{name}.png", partial(convert, sbd / "cls" / f"{name}.mat")
    made = {"aug": names} if done else {"trainaug": [*train, *names], "aug": names}  # no protocol reads trainaug.txt
    for part, members in made.items():  # written last: a list means that all masks exist
        yield lists / f"{part}.txt", partial(write_text, text="\n".join(members) + "\n")


def coco_subsets(data_root: Path, home: Path) -> Planned:
    """Yield a list of image ids for each subset and fold of the semi-supervised protocols.

    The protocols do not read these lists: they are for people.
    """
    from transfer.detection.subsets import FOLDS, PERCENTS, subset

    source = home / "annotations" / "instances_train2017.json"
    try:
        ids = [image["id"] for image in json.loads(source.read_bytes())["images"]]
    except FileNotFoundError as error:
        raise UserError(f"{source} is missing; unpack annotations_trainval2017.zip first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source} cannot be read ({error}); unpack annotations_trainval2017.zip again") from error
    for percent in PERCENTS:
        for fold in range(FOLDS):
            lines = "".join(f"{number}\n" for number in subset(ids, percent, fold))
            yield home / "annotations" / "subsets" / f"{percent}pct_fold{fold}.txt", partial(write_text, text=lines)


MAKERS: dict[str, Callable[[Path, Path], Planned]] = {
    "cityscapes": train_ids,
    "VOC2012aug": voc12aug,
    "coco": coco_subsets,
}
