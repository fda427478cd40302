"""Mutations of VOC's XML annotations and lists."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

from mutations import EXTENTS, Mutation, in_turn, pick, rewrite, text_files

LISTS = {"train": "trainval", "test": "test"}
Edit = Callable[[ET.Element, ET.Element, random.Random], object]
"""Changes an element, given its parent."""


def set_text(make: Callable[[str], str]) -> Edit:
    def edit(node: ET.Element, parent: ET.Element, rng: random.Random) -> None:
        node.text = make((node.text or "").strip())

    return edit


def wrap(node: ET.Element, parent: ET.Element, rng: random.Random) -> None:
    inner = ET.Element("value")
    inner.text, node.text = node.text, None
    inner.extend(list(node))
    for child in list(node)[:]:
        if child is not inner:
            node.remove(child)
    node.append(inner)


def twice(node: ET.Element, parent: ET.Element, rng: random.Random) -> None:
    again = ET.SubElement(parent, node.tag)
    again.text = node.text
    again.extend(list(node))


EDITS: dict[str, Edit] = {
    "removed": lambda node, parent, rng: parent.remove(node),
    "emptied": set_text(lambda text: ""),
    "word": set_text(lambda text: "zebrafish"),
    "blanks": set_text(lambda text: f"\n  {text}\t"),
    "whole float": set_text(lambda text: f"{text}.0"),
    "fraction": set_text(lambda text: f"{text}.25"),
    "comma": set_text(lambda text: f"{text},5"),
    "negative": set_text(lambda text: "-7"),
    "zero": set_text(lambda text: "0"),
    "huge": set_text(lambda text: "1e30"),
    "nan": set_text(lambda text: "nan"),
    "infinity": set_text(lambda text: "inf"),
    "twice": twice,
    "nested": wrap,
    "tag in capitals": lambda node, parent, rng: setattr(node, "tag", node.tag.upper()),
    "in an attribute": lambda node, parent, rng: (node.set("value", node.text or ""), setattr(node, "text", None)),
    "unicode": set_text(lambda text: "ünïcode\u2028\u202e"),
    "percent": set_text(lambda text: "%s{}"),
}
NUMBER_BAD = "removed emptied word comma huge nan infinity nested unicode percent"
FIELDS: dict[str, dict[str, str]] = {
    "name": {
        "refused": "removed emptied word whole_float fraction comma negative zero huge nan infinity nested unicode percent "
        "tag_in_capitals in_an_attribute",
        "same": "blanks twice",
    },
    "pose": {"same": " ".join(name.replace(" ", "_") for name in EDITS)},
    "truncated": {"same": " ".join(name.replace(" ", "_") for name in EDITS)},
    "difficult": {
        "same": "removed emptied blanks zero whole_float twice tag_in_capitals in_an_attribute nested",
        "refused": "word comma huge infinity unicode percent negative fraction nan",
    },
    "bndbox": {
        "refused": "removed nested tag_in_capitals",
        "same": "emptied word blanks whole_float fraction comma negative zero huge nan infinity twice unicode percent "
        "in_an_attribute",
    },
    **{
        f"bndbox/{corner}": {
            "refused": f"{NUMBER_BAD} tag_in_capitals in_an_attribute" + (" negative zero" if "max" in corner else ""),
            "same": "blanks whole_float twice",
        }
        for corner in ("xmin", "ymin", "xmax", "ymax")
    },
}
SIZE = {
    "size": {"same": "removed twice nested tag_in_capitals"},
    "size/width": {
        "refused": "word comma negative huge nan infinity unicode percent fraction",
        "same": "removed emptied blanks zero whole_float twice nested tag_in_capitals in_an_attribute",
    },
    "size/height": {
        "refused": "word comma negative huge nan infinity unicode percent fraction",
        "same": "removed emptied blanks zero whole_float twice nested tag_in_capitals in_an_attribute",
    },
}


def expected(table: dict[str, str], how: str) -> str:
    found = [expect for expect, names in table.items() if how.replace(" ", "_") in names.split()]
    return found[0] if found else "either"


def files(root: Path, split: str) -> list[Path]:
    names = (root / f"VOC2007/ImageSets/Main/{LISTS[split]}.txt").read_text(encoding="utf-8").split()
    return [root / f"VOC2007/Annotations/{name}.xml" for name in names]


def lists(root: Path, split: str) -> list[Path]:
    return [root / f"VOC2007/ImageSets/Main/{LISTS[split]}.txt"]


def edit_trees(
    root: Path, splits: tuple[str, ...], extent: str, rng: random.Random, edit: Callable[[ET.Element], None]
) -> None:
    for split in splits:
        for path in pick(files(root, split), extent, rng):
            tree = ET.parse(path)
            edit(tree.getroot())
            tree.write(path, encoding="utf-8")


def fields() -> Iterator[Mutation]:
    """One field of an object or of the whole file."""
    number = 0
    for field, table in {**FIELDS, **SIZE}.items():
        for how, edit in EDITS.items():
            for extent in EXTENTS:
                number += 1
                splits = in_turn(number)

                def change(
                    root: Path, rng: random.Random, field=field, edit=edit, extent=extent, splits=splits
                ) -> None:
                    above, _, tag = field.rpartition("/")

                    def inside(tree: ET.Element) -> None:
                        owners = [tree] if field in SIZE else tree.findall("object")
                        if field == "difficult":  # of objects that are not difficult
                            owners = [owner for owner in owners if owner.findtext("difficult") == "0"]
                        for owner in owners if extent == "all" else owners[:1]:
                            parent = owner.find(above) if above else owner
                            edit(parent.find(tag), parent, rng)

                    edit_trees(root, splits, extent, rng, inside)

                expect = expected(table, how)
                yield Mutation("voc", f"{field}/{how}/{extent}/{'+'.join(splits)}", expect, change)


def boxes(make: Callable[[list[float], float, float], list[float]]) -> Callable[[ET.Element], None]:
    """Change all boxes of a file: ``make`` gets the corners and the picture's width and height."""

    def edit(tree: ET.Element) -> None:
        width, height = (float(tree.findtext(f"size/{side}")) for side in ("width", "height"))
        for box in tree.findall("object/bndbox"):
            corners = [box.find(name) for name in ("xmin", "ymin", "xmax", "ymax")]
            for node, value in zip(corners, make([float(node.text) for node in corners], width, height), strict=True):
                node.text = f"{value:g}"

    return edit


def swap(tree: ET.Element, one: str, other: str) -> None:
    for parent in tree.iter():
        first, second = parent.find(one), parent.find(other)
        if first is not None and second is not None:
            first.text, second.text = second.text, first.text


def reorder(tree: ET.Element) -> None:
    for parent in list(tree.iter()):
        parent[:] = list(parent)[::-1]


def twins(tree: ET.Element) -> None:
    tree.extend(tree.findall("object"))


def no_objects(tree: ET.Element) -> None:
    for thing in tree.findall("object"):
        tree.remove(thing)


def retag(old: str, new: str) -> Callable[[ET.Element], None]:
    def edit(tree: ET.Element) -> None:
        for node in tree.iter(old):
            node.tag = new

    return edit


def each_text(tag: str, make: Callable[[str], str]) -> Callable[[ET.Element], None]:
    def edit(tree: ET.Element) -> None:
        for node in tree.iter(tag):
            node.text = make(node.text or "")

    return edit


TREES: dict[str, tuple[Callable[[ET.Element], None], str]] = {
    "boxes as parts of the picture": (boxes(lambda b, w, h: [b[0] / w, b[1] / h, b[2] / w, b[3] / h]), "refused"),
    "boxes three times as large": (boxes(lambda b, w, h: [3 * v for v in b]), "refused"),
    "boxes half as large": (boxes(lambda b, w, h: [v / 2 for v in b]), "either"),
    "boxes from 0": (boxes(lambda b, w, h: [v - 1 for v in b]), "either"),
    "boxes shifted by a picture": (boxes(lambda b, w, h: [b[0] + w, b[1] + h, b[2] + w, b[3] + h]), "refused"),
    "boxes of no size": (boxes(lambda b, w, h: [b[0], b[1], b[0], b[1]]), "either"),
    "width and height as xmax and ymax": (boxes(lambda b, w, h: [b[0], b[1], b[2] - b[0], b[3] - b[1]]), "either"),
    "corners swapped": (boxes(lambda b, w, h: [b[2], b[3], b[0], b[1]]), "refused"),
    "x and y swapped": (boxes(lambda b, w, h: [b[1], b[0], b[3], b[2]]), "either"),
    "width and height swapped": (lambda tree: swap(tree, "width", "height"), "either"),
    "order of all fields": (reorder, "same"),
    "objects twice": (twins, "refused"),
    "no objects": (no_objects, "either"),
    "object as Object": (retag("object", "Object"), "either"),
    "object as objects": (retag("object", "objects"), "either"),
    "root as annotations": (retag("annotation", "annotations"), "either"),
    "namespace": (lambda tree: tree.set("xmlns", "http://example.org/voc"), "refused"),
    "names in capitals": (each_text("name", str.upper), "same"),
    "names with a final s": (each_text("name", lambda text: f"{text}s"), "refused"),
    "filename of another picture": (each_text("filename", lambda text: "000003.jpg"), "same"),
    "filename with a path": (each_text("filename", lambda text: f"C:\\bilder\\{text}"), "same"),
    "difficult true": (each_text("difficult", lambda text: {"1": "true", "0": "False"}[text]), "same"),
    "difficult 1": (each_text("difficult", lambda text: "1"), "either"),
    "comments": (lambda tree: tree.insert(0, ET.Comment("made by hand")), "same"),
}


def trees() -> Iterator[Mutation]:
    """A whole file at once."""
    for number, (how, (edit, expect)) in enumerate(TREES.items()):
        for extent in EXTENTS:
            splits = in_turn(number + (extent == "all"))

            def change(root: Path, rng: random.Random, edit=edit, extent=extent, splits=splits) -> None:
                edit_trees(root, splits, extent, rng, edit)

            yield Mutation("voc", f"file/{how}/{extent}/{'+'.join(splits)}", expect, change)


def renamed(new: Callable[[str], str]) -> Callable[[Path, str], None]:
    """Rename all files of a split, in the list too."""

    def change(root: Path, split: str) -> None:
        (path,) = lists(root, split)
        names = path.read_text().split()
        for name in names:
            for folder, ending in (("JPEGImages", "jpg"), ("Annotations", "xml")):
                home = root / "VOC2007" / folder
                (home / f"{name}.{ending}").rename(home / f"{new(name)}.{ending}")
        path.write_text("".join(f"{new(name)}\n" for name in names), encoding="utf-8")

    return change


def listed(make: Callable[[list[str]], list[str]]) -> Callable[[Path, str], None]:
    """Change the lines of the list."""

    def change(root: Path, split: str) -> None:
        (path,) = lists(root, split)
        path.write_text("".join(f"{line}\n" for line in make(path.read_text().split())), encoding="utf-8")

    return change


def exchanged(root: Path, split: str) -> None:
    """The first two annotations swap their places."""
    one, other, *_ = files(root, split)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def entity(root: Path, split: str) -> None:
    """Entities that become very long."""
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 9))
    for path in files(root, split)[:1]:
        text = path.read_text().replace("PixBench", "&e8;")
        path.write_text(f'<!DOCTYPE annotation [<!ENTITY e0 "0123456789">{levels}]>\n{text}')


LISTED: dict[str, tuple[Callable[[Path, str], None], str]] = {
    "names with endings": (listed(lambda lines: [f"{line}.jpg" for line in lines]), "refused"),
    "paths": (listed(lambda lines: [f"JPEGImages/{line}.jpg" for line in lines]), "refused"),
    "a name twice": (listed(lambda lines: [*lines, lines[0]]), "refused"),
    "an unknown name": (listed(lambda lines: [*lines, "999999"]), "refused"),
    "a second column": (listed(lambda lines: [f"{line} -1" for line in lines]), "refused"),
    "a comment": (listed(lambda lines: ["# pictures", *lines]), "refused"),
    "one name": (listed(lambda lines: lines[:1]), "either"),
    "another order": (listed(lambda lines: lines[::-1]), "same"),
    "blanks before the names": (listed(lambda lines: [f"  {line}\t" for line in lines]), "same"),
    "leading zeros lost": (listed(lambda lines: [str(int(line)) for line in lines]), "refused"),
    "unicode names": (renamed(lambda name: f"bild-ä-{name}-\u732b"), "same"),
    "names with blanks": (renamed(lambda name: f"my picture {name}"), "same"),
    "names with percents": (renamed(lambda name: f"{name}%20{{}}"), "same"),
    "names in folders": (listed(lambda lines: [f"../{line}" for line in lines]), "refused"),
    "annotations exchanged": (exchanged, "either"),
    "entities": (entity, "same or refused"),
}


def mutations() -> Iterator[Mutation]:
    """Yield all mutations of VOC."""
    yield from fields()
    yield from trees()
    yield from text_files("voc", "xml", files)
    yield from text_files("voc", "list", lists, truncated="either")  # half of the names
    for number, (how, (make, expect)) in enumerate(LISTED.items()):
        splits = in_turn(number)

        def change(root: Path, rng: random.Random, make=make, splits=splits) -> None:
            for split in splits:
                make(root, split)

        yield Mutation("voc", f"names/{how}/{'+'.join(splits)}", expect, change)

    def folder(root: Path, rng: random.Random) -> None:
        path = files(root, "train")[0]
        path.unlink()
        path.mkdir()

    yield Mutation("voc", "xml/a folder", "refused", folder)
    undeclared = lambda data: data.replace(b"<annotation>", b'<?xml version="1.0" encoding="klingon"?><annotation>')  # noqa: E731
    yield Mutation(
        "voc",
        "xml/unknown encoding",
        "refused",
        lambda root, rng: [rewrite(path, undeclared) for path in files(root, "test")],
    )
