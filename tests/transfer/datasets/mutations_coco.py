"""Mutations of annotation files in COCO's format: COCO itself (with masks, boxes alone, keypoints) and LVIS."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutations import EXTENTS, Mutation, in_turn, pick, text_files

Content = dict[str, Any]
REMOVED = object()


@dataclass(frozen=True)
class Instead:
    """Another content of the file."""

    content: Any


NAMES = {
    "coco": "coco/annotations/instances_{}2017.json",
    "boxes": "coco/annotations/instances_{}2017.json",
    "keypoints": "coco/annotations/person_keypoints_{}2017.json",
    "lvis": "lvis/lvis_v1_{}.json",
}


def number_like(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Apply ``make`` to a number, or to each number in a list."""

    def change(value: Any) -> Any:
        if isinstance(value, list):
            return [change(item) for item in value]
        return make(value) if isinstance(value, int | float) else value

    return change


VALUES: dict[str, Callable[[Any], Any]] = {
    "removed": lambda value: REMOVED,
    "null": lambda value: None,
    "text": lambda value: value if isinstance(value, str) else json.dumps(value),
    "word": lambda value: "zebrafish",
    "empty text": lambda value: "",
    "float": number_like(float),
    "true": lambda value: True,
    "false": lambda value: False,
    "list": lambda value: [value],
    "empty list": lambda value: [],
    "dict": lambda value: {"value": value},
    "negative": number_like(lambda value: -value - 3),
    "zero": number_like(lambda value: 0),
    "one": number_like(lambda value: 1),
    "next": number_like(lambda value: value + 1),
    "fraction": number_like(lambda value: value + 0.25),
    "huge": number_like(lambda value: 10**30),
    "nan": number_like(lambda value: math.nan),
    "infinity": number_like(lambda value: math.inf),
    "unicode": lambda value: "ünïcode\u2028\U0001f600",
}
NOT_JSON = "nan infinity"
NOT_A_NUMBER = f"null word empty_text list empty_list dict unicode {NOT_JSON}"
ALL = " ".join(name.replace(" ", "_") for name in VALUES)
JSON = " ".join(name for name in ALL.split() if name not in NOT_JSON.split())

IMAGES = {
    "id": {"refused": f"{NOT_A_NUMBER} removed huge negative true"},
    "file_name": {"refused": "removed null word empty_text true false list empty_list dict unicode"},
    "width": {"refused": f"{NOT_A_NUMBER} removed true false negative zero one next fraction huge"},
    "height": {"refused": f"{NOT_A_NUMBER} removed true false negative zero one next fraction huge"},
    "license": {"same": ALL.replace("nan", "").replace("infinity", "")},
}
CATEGORIES = {
    "id": {"refused": f"{NOT_A_NUMBER} removed true false negative zero huge"},
    "name": {"refused": "removed null word empty_text true false list empty_list dict unicode"},
    "supercategory": {"same": ALL},
}
ANNOTATIONS = {
    "id": {"refused": f"list dict null removed empty_list {NOT_JSON}"},
    "image_id": {"refused": f"{NOT_A_NUMBER} removed zero negative huge text"},
    "category_id": {"refused": f"{NOT_A_NUMBER} removed zero negative huge"},
    "bbox": {
        "refused": f"{NOT_A_NUMBER} removed true false text zero negative huge",
        "same": "float",
    },
    "area": {
        "refused": f"word empty_text list empty_list dict unicode {NOT_JSON} negative zero huge true false",
        "same": "removed null float",
    },
    "iscrowd": {
        "refused": f"word empty_text list empty_list dict unicode {NOT_JSON} negative huge fraction",
        "same": "removed null false float zero",
    },
}
MASK = {
    "refused": "removed null empty_list true word empty_text text list dict unicode nan infinity",
    "same": "float",
}
FIELDS: dict[str, dict[str, dict[str, dict[str, str]]]] = {
    "coco": {"images": IMAGES, "categories": CATEGORIES, "annotations": {**ANNOTATIONS, "segmentation": MASK}},
    "boxes": {"annotations": {"segmentation": {"same": "removed null empty_list float"}, "area": ANNOTATIONS["area"]}},
    "keypoints": {
        "categories": {"keypoints": {"same": JSON}, "skeleton": {"same": JSON}},
        "annotations": {
            "keypoints": {
                "refused": f"{NOT_A_NUMBER} removed true false text negative huge",
                "same": "float",
            },
            "num_keypoints": {"same": "removed null", "refused": "zero"},
        },
    },
    "lvis": {
        "images": {
            "coco_url": {"refused": "removed null word empty_text list dict unicode"},
            "neg_category_ids": {"refused": "removed null word dict"},
            "not_exhaustive_category_ids": {"refused": "removed null word dict"},
        },
        "categories": {"frequency": {"refused": "removed null word dict unicode"}},
        "annotations": {
            "bbox": ANNOTATIONS["bbox"],
            "area": {
                "same or refused": "removed null",
                "same": "float",
                "refused": "word list dict negative nan zero huge",
            },
            "segmentation": MASK,
        },
    },
}
SOME = {"lvis": "removed null word dict list float negative zero nan huge"}
"""LVIS's evaluation takes long, so only these values are tried there."""


def path_of(root: Path, kind: str, split: str) -> Path:
    return root / NAMES[kind].format("train" if split == "train" else "val")


def edit(root: Path, kind: str, splits: tuple[str, ...], change: Callable[[Content], object], **how: Any) -> None:
    for split in splits:
        path = path_of(root, kind, split)
        content = json.loads(path.read_text())
        made = change(content)
        path.write_text(json.dumps(made.content if isinstance(made, Instead) else content, **how))


def plain(content: Content, table: str) -> list[Content]:
    """The entries that are changed: annotations that are no crowds."""
    return [entry for entry in content[table] if not entry.get("iscrowd")]


def expected(table: dict[str, str], how: str) -> str:
    found = [expect for expect, names in table.items() if how.replace(" ", "_") in names.split()]
    return found[0] if found else "either"


def fields() -> Iterator[Mutation]:
    """One field × one value × one or all entries."""
    number = 0
    for kind, tables in FIELDS.items():
        for table, names in tables.items():
            for field, expectations in names.items():
                for how, make in VALUES.items():
                    for extent in EXTENTS:
                        number += 1
                        splits = in_turn(number)
                        if how.replace(" ", "_") not in SOME.get(kind, ALL).split():
                            continue

                        def change(
                            root: Path,
                            rng: random.Random,
                            kind=kind,
                            table=table,
                            field=field,
                            make=make,
                            extent=extent,
                            splits=splits,
                        ) -> None:
                            def inside(content: Content) -> None:
                                for entry in pick(plain(content, table), extent, rng):
                                    value = make(entry.get(field))
                                    if value is REMOVED:
                                        entry.pop(field, None)
                                    else:
                                        entry[field] = value

                            edit(root, kind, splits, inside)

                        expect = expected(expectations, how)
                        if how in ("nan", "infinity") and field in ("supercategory", "file_name", "license"):
                            expect = "either"  # a text stays as it is; or it is no JSON
                        yield Mutation(kind, f"{table}.{field}/{how}/{extent}/{'+'.join(splits)}", expect, change)


def each(table: str, make: Callable[..., object]) -> Callable[[Content], None]:
    """Change each entry; of annotations, those that are no crowds. ``make`` may also take the image of an annotation."""

    def change(content: Content) -> None:
        sizes = {image["id"]: image for image in content["images"]}
        for entry in plain(content, table):
            if table == "annotations":
                make(entry, sizes[entry["image_id"]])
            else:
                make(entry)

    return change


def compressed(entry: Content, image: Content) -> None:
    from pycocotools import mask

    found = mask.merge(mask.frPyObjects(entry["segmentation"], image["height"], image["width"]))
    entry["segmentation"] = {"size": found["size"], "counts": found["counts"].decode()}


def uncompressed(entry: Content, image: Content) -> None:
    from pycocotools import mask

    size = image["height"], image["width"]
    values = mask.decode(mask.merge(mask.frPyObjects(entry["segmentation"], *size))).flatten(order="F")
    counts, now, length = [], 0, 0
    for value in values.tolist():
        if value != now:
            counts.append(length)
            now, length = value, 0
        length += 1
    entry["segmentation"] = {"size": list(size), "counts": [*counts, length]}


def renumber_images(make: Callable[[int], Any]) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        for image in content["images"]:
            image["id"] = make(image["id"])
        for entry in content["annotations"]:
            entry["image_id"] = make(entry["image_id"])

    return change


def renumber_categories(make: Callable[[int], Any]) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        for category in content["categories"]:
            category["id"] = make(category["id"])
        for entry in content["annotations"]:
            entry["category_id"] = make(entry["category_id"])

    return change


def renumber_annotations(make: Callable[[int], Any]) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        for number, entry in enumerate(content["annotations"]):
            entry["id"] = make(number)

    return change


def rename(key: str, new: str, table: str | None = None) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        for entry in content[table] if table else [content]:
            if key in entry:
                entry[new] = entry.pop(key)

    return change


def scale(entry: Content, factor: float) -> None:
    entry["bbox"] = [value * factor for value in entry["bbox"]]


def corners(box: list[float]) -> list[float]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def polygons(make: Callable[[list[float]], list[float]]) -> Callable[[Content, Content], None]:
    def change(entry: Content, image: Content) -> None:
        entry["segmentation"] = [make(polygon) for polygon in entry["segmentation"]]

    return change


def put(key: str, value: Any) -> Callable[..., None]:
    return lambda entry, image=None: entry.update({key: value})


def more(table: str, make: Callable[[list[Content]], list[Content]]) -> Callable[[Content], None]:
    return lambda content: content.update({table: make(content[table])})


def next_ids(entries: list[Content]) -> list[Content]:
    return [{**entry, "id": entry["id"] + 10_000} for entry in entries]


WHOLE: dict[str, tuple[Callable[[Content], object], str]] = {
    "info removed": (lambda c: c.pop("info"), "same"),
    "licenses removed": (lambda c: c.pop("licenses"), "same"),
    "info as text": (put("info", "ours"), "same"),
    "info null": (put("info", None), "same"),
    "an unknown table": (put("segment_info", [{"id": 1}]), "same"),
    "images removed": (lambda c: c.pop("images"), "refused"),
    "annotations removed": (lambda c: c.pop("annotations"), "refused"),
    "categories removed": (lambda c: c.pop("categories"), "refused"),
    "images empty": (put("images", []), "refused"),
    "annotations empty": (put("annotations", []), "refused"),
    "categories empty": (put("categories", []), "refused"),
    "images null": (put("images", None), "refused"),
    "annotations null": (put("annotations", None), "refused"),
    "annotations by id": (lambda c: c.update(annotations={str(a["id"]): a for a in c["annotations"]}), "refused"),
    "images by id": (lambda c: c.update(images={str(a["id"]): a for a in c["images"]}), "refused"),
    "categories by id": (lambda c: c.update(categories={str(a["id"]): a["name"] for a in c["categories"]}), "refused"),
    "categories as names": (lambda c: c.update(categories=[a["name"] for a in c["categories"]]), "refused"),
    "annotations nested once more": (lambda c: c.update(annotations=[c["annotations"]]), "refused"),
    "a null annotation": (lambda c: c["annotations"].append(None), "refused"),
    "a list alone": (lambda c: Instead(c["annotations"]), "refused"),
    "in a list": (lambda c: Instead([c]), "refused"),
    "in a dict": (lambda c: Instead({"dataset": c}), "refused"),
    "Annotations": (rename("annotations", "Annotations"), "refused"),
    "Images": (rename("images", "Images"), "refused"),
    "order of annotations": (lambda c: c["annotations"].reverse(), "same"),
    "order of images": (lambda c: c["images"].reverse(), "same"),
    "order of categories": (lambda c: c["categories"].reverse(), "same"),
    "order of keys": (lambda c: c.update(annotations=[dict(reversed(a.items())) for a in c["annotations"]]), "same"),
    "annotations twice": (more("annotations", lambda found: found + found), "refused"),
    "annotations twice with other ids": (more("annotations", lambda found: found + next_ids(found)), "refused"),
    "images twice": (more("images", lambda found: found + found), "refused"),
    "images twice with other ids": (more("images", lambda found: found + next_ids(found)), "refused"),
    "categories twice": (more("categories", lambda found: found + found), "refused"),
    "a category more": (more("categories", lambda found: [*found, {"id": 4000, "name": "okapi"}]), "refused"),
    "a category less": (more("categories", lambda found: found[:-1]), "refused"),
    "half of the images": (more("images", lambda found: found[: len(found) // 2]), "refused"),
    "half of the annotations": (more("annotations", lambda found: found[: len(found) // 2]), "either"),
    "one annotation": (more("annotations", lambda found: found[:1]), "either"),
    "image ids as text": (renumber_images(str), "same or refused"),
    "image ids in unicode": (renumber_images(lambda n: f"bild-é-{n}"), "same or refused"),
    "image ids as floats": (renumber_images(float), "same or refused"),
    "image ids negative": (renumber_images(lambda n: -n), "same or refused"),
    "image ids from 0": (renumber_images(lambda n: n - 1), "same"),
    "image ids beyond 32 bits": (renumber_images(lambda n: 10**11 + n), "same"),
    "image ids beyond 64 bits": (renumber_images(lambda n: 10**20 + n), "same or refused"),
    "annotation ids from 0": (renumber_annotations(lambda n: n), "same"),
    "annotation ids from 1": (renumber_annotations(lambda n: n + 1), "same"),
    "annotation ids negative": (renumber_annotations(lambda n: -n - 1), "same or refused"),
    "annotation ids as floats": (renumber_annotations(float), "same or refused"),
    "annotation ids as text": (renumber_annotations(str), "same or refused"),
    "annotation ids in words": (renumber_annotations(lambda n: f"a{n}"), "same or refused"),
    "annotation ids beyond 32 bits": (renumber_annotations(lambda n: 900100000000 + n), "same"),
    "annotation ids beyond 64 bits": (renumber_annotations(lambda n: 10**20 + n), "same or refused"),
    "annotation ids equal": (renumber_annotations(lambda n: 1), "refused"),
    "category ids from 0": (renumber_categories(lambda n: n - 1), "refused"),
    "category ids as text": (renumber_categories(str), "same or refused"),
    "category ids as floats": (renumber_categories(float), "same or refused"),
    "boxes as corners": (each("annotations", lambda a, i: a.update(bbox=corners(a["bbox"]))), "refused"),
    "boxes as parts": (each("annotations", lambda a, i: scale(a, 1 / i["width"])), "refused"),
    "boxes three times as large": (each("annotations", lambda a, i: scale(a, 3)), "refused"),
    "boxes by names": (
        each("annotations", lambda a, i: a.update(bbox=dict(zip("xywh", a["bbox"], strict=True)))),
        "refused",
    ),
    "boxes of three numbers": (each("annotations", lambda a, i: a["bbox"].pop()), "refused"),
    "boxes of five numbers": (each("annotations", lambda a, i: a["bbox"].append(0)), "refused"),
    "boxes of no width": (each("annotations", lambda a, i: a["bbox"].__setitem__(2, 0)), "refused"),
    "boxes of no height": (each("annotations", lambda a, i: a["bbox"].__setitem__(3, 0.0)), "refused"),
    "boxes of texts": (each("annotations", lambda a, i: a.update(bbox=[str(v) for v in a["bbox"]])), "refused"),
    "category instead of category_id": (rename("category_id", "category", "annotations"), "refused"),
    "box instead of bbox": (rename("bbox", "box", "annotations"), "refused"),
    "BBOX": (rename("bbox", "BBOX", "annotations"), "refused"),
    "fileName": (rename("file_name", "fileName", "images"), "refused"),
    "ignore 0": (each("annotations", put("ignore", 0)), "same"),
    "ignore 1": (each("annotations", put("ignore", 1)), "refused"),
    "all crowds": (each("annotations", put("iscrowd", 1)), "refused"),
    "names in capitals": (each("categories", lambda k: k.update(name=k["name"].title())), "same"),
    "attributes": (each("annotations", put("attributes", {"occluded": False})), "same"),
}
MASKS: dict[str, tuple[Callable[[Content], object], str]] = {
    "compressed run lengths": (each("annotations", compressed), "same"),
    "uncompressed run lengths": (each("annotations", uncompressed), "same"),
    "run lengths for another size": (
        each("annotations", lambda a, i: (compressed(a, i), a["segmentation"].update(size=[i["height"] + 1, 8]))),
        "refused",
    ),
    "run lengths without a size": (
        each("annotations", lambda a, i: (compressed(a, i), a["segmentation"].pop("size"))),
        "refused",
    ),
    "run lengths cut": (
        each(
            "annotations",
            lambda a, i: (compressed(a, i), a["segmentation"].update(counts=a["segmentation"]["counts"][:-2])),
        ),
        "refused",
    ),
    "run lengths of words": (
        each("annotations", lambda a, i: a.update(segmentation={"size": [i["height"], i["width"]], "counts": "é\x7f"})),
        "refused",
    ),
    "run lengths without any pixel": (
        each(
            "annotations",
            lambda a, i: a.update(
                segmentation={"size": [i["height"], i["width"]], "counts": [i["height"] * i["width"]]}
            ),
        ),
        "refused",
    ),
    "run lengths elsewhere": (  # a few pixels of the first column
        each(
            "annotations",
            lambda a, i: a.update(
                segmentation={"size": [i["height"], i["width"]], "counts": [0, 2, i["height"] * i["width"] - 2]}
            ),
        ),
        "refused",
    ),
    "polygons flat": (each("annotations", lambda a, i: a.update(segmentation=a["segmentation"][0])), "refused"),
    "polygons in points": (
        each(
            "annotations",
            polygons(lambda p: [list(point) for point in zip(p[::2], p[1::2], strict=True)]),  # type: ignore[arg-type]
        ),
        "refused",
    ),
    "polygons closed": (each("annotations", polygons(lambda p: [*p, *p[:2]])), "same"),
    "polygons backwards": (
        each("annotations", polygons(lambda p: [v for k in range(len(p) - 2, -1, -2) for v in p[k : k + 2]])),
        "same or refused",
    ),
    "polygons of two points": (each("annotations", polygons(lambda p: p[:4])), "refused"),
    "polygons of an odd length": (each("annotations", polygons(lambda p: p[:-1])), "refused"),
    "a further polygon of two points": (
        each("annotations", lambda a, i: a["segmentation"].append([1, 1, 2, 2])),
        "same or refused",
    ),
    "an empty polygon more": (each("annotations", lambda a, i: a["segmentation"].insert(0, [])), "same or refused"),
    "polygons as parts": (each("annotations", polygons(lambda p: [v / 200 for v in p])), "refused"),
    "polygons three times as large": (each("annotations", polygons(lambda p: [3 * v for v in p])), "refused"),
    "polygons with x and y swapped": (
        each("annotations", polygons(lambda p: [v for k in range(0, len(p), 2) for v in (p[k + 1], p[k])])),
        "either",
    ),
    "polygons of no area": (each("annotations", polygons(lambda p: p[:2] * 3)), "refused"),
}
POINTS: dict[str, tuple[Callable[[Content], object], str]] = {
    "16 keypoints": (each("annotations", lambda a, i: a.update(keypoints=a["keypoints"][:48])), "refused"),
    "keypoints as pairs": (
        each("annotations", lambda a, i: a.update(keypoints=[v for k, v in enumerate(a["keypoints"]) if k % 3 < 2])),
        "refused",
    ),
    "keypoints as triples": (
        each("annotations", lambda a, i: a.update(keypoints=[a["keypoints"][k : k + 3] for k in range(0, 51, 3)])),
        "refused",
    ),
    "nothing labelled": (
        each("annotations", lambda a, i: a.update(keypoints=[0] * 51, num_keypoints=0)),
        "refused",
    ),
    "visibility 3": (
        each(
            "annotations",
            lambda a, i: a.update(keypoints=[3 if k % 3 == 2 else v for k, v in enumerate(a["keypoints"])]),
        ),
        "refused",
    ),
    "visibility as scores": (
        each(
            "annotations",
            lambda a, i: a.update(keypoints=[0.9 if k % 3 == 2 else v for k, v in enumerate(a["keypoints"])]),
        ),
        "refused",
    ),
    "keypoints as parts": (
        each(
            "annotations",
            lambda a, i: a.update(keypoints=[v if k % 3 == 2 else v / 200 for k, v in enumerate(a["keypoints"])]),
        ),
        "refused",
    ),
    "no segmentation": (each("annotations", lambda a, i: a.pop("segmentation")), "same"),
}
FILES: dict[str, tuple[Callable[[Path, Content], object], str]] = {
    "absolute names": (lambda f, i: i.update(file_name=str(f / i["file_name"])), "same"),
    "names with a dot": (lambda f, i: i.update(file_name=f"./{i['file_name']}"), "same"),
    "names with the folder": (lambda f, i: i.update(file_name=f"{f.name}/{i['file_name']}"), "refused"),
    "names with backslashes": (lambda f, i: i.update(file_name=f".\\{i['file_name']}"), "refused"),
    "names in capitals": (lambda f, i: i.update(file_name=i["file_name"].upper()), "refused"),
    "names without an ending": (lambda f, i: i.update(file_name=i["file_name"][:-4]), "refused"),
    "names as addresses": (lambda f, i: i.update(file_name=f"http://example.org/{i['file_name']}"), "refused"),
    "one picture for all": (lambda f, i: i.update(file_name="000000000001.jpg"), "refused"),
    "deeper": (lambda f, i: move(f, i, f"a/b/{i['file_name']}"), "same"),
    "names in unicode": (lambda f, i: move(f, i, f"bild ä \u732b {i['file_name']}"), "same"),
    "sizes swapped": (lambda f, i: i.update(width=i["height"], height=i["width"]), "refused"),
    "coco_url removed": (lambda f, i: i.pop("coco_url"), "same"),
}


def move(folder: Path, image: Content, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / image["file_name"]).rename(folder / name)
    image["file_name"] = name


def whole(kind: str, part: str, changes: dict[str, tuple[Callable[[Content], object], str]]) -> Iterator[Mutation]:
    for number, (how, (make, expect)) in enumerate(changes.items()):
        for turn in (0, 1):
            splits = in_turn(number + turn)

            def change(root: Path, rng: random.Random, make=make, splits=splits) -> None:
                edit(root, kind, splits, make)

            yield Mutation(kind, f"{part}/{how}/{'+'.join(splits)}", expect, change)


def names() -> Iterator[Mutation]:
    for number, (how, (make, expect)) in enumerate(FILES.items()):
        splits = in_turn(number)

        def change(root: Path, rng: random.Random, make=make, splits=splits) -> None:
            for split in splits:
                folder = root / f"coco/{'train' if split == 'train' else 'val'}2017"

                def inside(content: Content, folder: Path = folder) -> None:
                    for image in content["images"]:
                        make(folder, image)

                edit(root, "coco", (split,), inside)

        yield Mutation("coco", f"files/{how}/{'+'.join(splits)}", expect, change)


def writing() -> Iterator[Mutation]:
    """The same content, written otherwise."""
    for how, options in {
        "with letters outside ASCII": {"ensure_ascii": False},
        "on many lines": {"indent": 1},
        "sorted": {"sort_keys": True},
        "dense": {"separators": (",", ":")},
    }.items():

        def change(root: Path, rng: random.Random, options=options) -> None:
            edit(root, "coco", ("train", "test"), lambda c: c["info"].update(description="日本語"), **options)

        yield Mutation("coco", f"written {how}", "same", change)

    def swapped(root: Path, rng: random.Random) -> None:
        one, other = (path_of(root, "coco", split) for split in ("train", "test"))
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)

    yield Mutation("coco", "train and val exchanged", "refused", swapped)

    def nested(root: Path, rng: random.Random) -> None:
        path = path_of(root, "coco", "train")
        path.write_text(
            path.read_text().replace('"info": {', '"deep": ' + "[" * 100_000 + "]" * 100_000 + ', "info": {', 1)
        )

    yield Mutation("coco", "nested very deeply", "refused", nested)

    def surrogate(root: Path, rng: random.Random) -> None:
        edit(root, "coco", ("test",), lambda c: c["info"].update(description="\ud83d"))

    yield Mutation("coco", "half of a letter", "same or refused", surrogate)


def bare(make: Callable[[Content], object]) -> Callable[[Content], None]:
    """Take the masks away, too."""

    def change(content: Content) -> None:
        make(content)
        for entry in content["annotations"]:
            del entry["segmentation"]

    return change


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from places(inner, (*above, key))


def anywhere() -> Iterator[Mutation]:
    """Any value at any place: numbers in boxes and polygons, whole entries, tables."""
    for kind, number in (("coco", 150), ("boxes", 60), ("keypoints", 60), ("lvis", 20)):
        for turn in range(number):
            splits = in_turn(turn)
            how, make = list(VALUES.items())[turn % len(VALUES)]

            def change(root: Path, rng: random.Random, kind=kind, make=make, splits=splits) -> None:
                def inside(content: Content) -> None:
                    owner = content[rng.choice(["images", "annotations", "annotations", "annotations", "categories"])]
                    *above, last = rng.choice(list(places(owner)))
                    for key in above:
                        owner = owner[key]
                    value = make(owner[last])
                    if value is REMOVED:
                        del owner[last]
                    else:
                        owner[last] = value

                edit(root, kind, splits, inside)

            yield Mutation(kind, f"anywhere/{how}/{turn}/{'+'.join(splits)}", "either", change)


def some(changes: dict[str, tuple[Callable[[Content], object], str]], step: int) -> dict[str, Any]:
    return dict(list(changes.items())[::step])


def mutations() -> Iterator[Mutation]:
    """Yield all mutations of files in COCO's format."""
    yield from fields()
    yield from whole("coco", "whole", WHOLE)
    yield from whole("coco", "masks", MASKS)
    yield from whole("boxes", "masks", {name: (make, "either") for name, (make, _) in MASKS.items()})
    yield from whole("keypoints", "whole", some(WHOLE, 2))
    yield from whole("keypoints", "points", POINTS)
    lvis = {name: (make, "either" if expect.startswith("same") else expect) for name, (make, expect) in WHOLE.items()}
    yield from whole("lvis", "whole", some({name: item for name, item in lvis.items() if "capitals" not in name}, 4))
    polygons = {name: item for name, item in MASKS.items() if item[1] != "same"}
    yield from whole("lvis", "masks", some(polygons, 4))
    yield from whole(
        "boxes", "no masks", {name: (bare(make), expect) for name, (make, expect) in WHOLE.items() if "box" in name}
    )
    yield from names()
    yield from writing()
    yield from anywhere()
    for kind in ("coco", "keypoints"):
        yield from text_files(kind, "json", lambda root, split, kind=kind: [path_of(root, kind, split)])
