"""Predictions side by side: which pictures, what their alternative texts say, and how large they are."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import made_samples
import numpy as np
import pytest
from PIL import Image

from benchmarks.report.pictures import predictions
from benchmarks.report.pictures.drawing import COVER, SIDE, object_colour, with_labels, with_objects
from benchmarks.report.pictures.found import Objects, accuracy, matched, shares
from benchmarks.report.pictures.kept import in_turns
from benchmarks.report.section import Contents, read_contents
from benchmarks.tables.options import Options


def contents(folder: Path, **options: object) -> Contents:
    return read_contents([folder], Options(**options))  # type: ignore[arg-type]


def body(folder: Path) -> str:
    section = predictions.section(contents(folder))
    assert section is not None
    return str(section.body)


def alts(html: str) -> list[str]:
    return re.findall(r'alt="([^"]*)"', html)


def opened(src: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2])))


def test_rows_stand_side_by_side_with_what_they_found(tmp_path: Path) -> None:
    made_samples.write_labels(tmp_path / "a", "good", "cityscapes_fcn16s")
    made_samples.write_labels(tmp_path / "b", "worse", "cityscapes_fcn16s", miss=20)
    made_samples.write_labels(tmp_path / "b1", "worse", "cityscapes_fcn16s", miss=50, seed=1)  # not the first seed
    html = body(tmp_path)
    assert html.count("<tr>") == 2 + made_samples.PICTURES  # two tables, the second one folded
    assert html.count("<img") == 4 * made_samples.PICTURES
    first = alts(html)[:4]
    assert first[0].startswith("picture scene_")
    assert re.fullmatch(r"truth: background \d+ %, car \d+ %.*", first[1])
    assert re.fullmatch(r"good: background \d+ %, car \d+ %.*; 100 % right", first[2])
    assert 60 < int(re.search(r"; (\d+) % right", first[3])[1]) < 95  # type: ignore[index]
    assert all(f'aria-hidden="true"><rect width="14" height="14" rx="2" fill="rgb{tuple(colour)}"/></svg>{name}' in html
               for name, colour in zip(made_samples.CLASSES, made_samples.COLOURS.tolist(), strict=True))  # fmt: skip


def test_objects_have_words_and_marks_of_right_and_wrong(tmp_path: Path) -> None:
    made_samples.write_objects(tmp_path / "a", "good", miss=1)
    made_samples.write_objects(tmp_path / "b", "bad", miss=30)
    texts = alts(body(tmp_path))
    places = [place for place, text in enumerate(texts) if text == "truth: car, person"]
    assert places
    assert texts[places[0] + 1] == "good: car 0.90, person 0.60; 2 of 2 right"
    assert texts[places[0] + 2] == "bad: car 0.90, person 0.60; 0 of 2 right"


def test_a_run_that_finds_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = made_samples.objects
    monkeypatch.setattr(
        made_samples,
        "objects",
        lambda number, shift=0, scores=False: {
            key: value[:0] if scores or number == 0 else value for key, value in objects(number, shift, scores).items()
        },
    )
    made_samples.write_objects(tmp_path / "a", "blind")
    texts = alts(body(tmp_path))
    assert texts.count("blind: nothing found") == made_samples.PICTURES
    assert texts.count("truth: no object") == 1


def test_what_is_missing_or_damaged_is_left_out(tmp_path: Path) -> None:
    import made_results

    assert predictions.section(contents(tmp_path)) is None
    made_results.write(tmp_path / "old", "cityscapes_fcn16s", label="old")  # kept no pictures
    assert predictions.section(contents(tmp_path)) is None
    made_samples.write_labels(tmp_path / "a", "good", "cityscapes_fcn16s")
    damaged = made_samples.write_labels(tmp_path / "b", "damaged", "cityscapes_fcn16s")
    damaged.with_name("samples.npz").write_bytes(b"")
    html = body(tmp_path)
    assert "good" in html
    assert "damaged" not in html


def test_pictures_of_one_name_with_other_pixels_do_not_share_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mini worlds of two seeds."""
    made_samples.write_labels(tmp_path / "a", "one", "cityscapes_fcn16s")
    scene = made_samples.scene
    monkeypatch.setattr(made_samples, "scene", lambda number: scene(number + 100))
    made_samples.write_labels(tmp_path / "b", "other", "cityscapes_fcn16s")
    html = body(tmp_path)
    assert html.count("not kept") == 2 * made_samples.PICTURES
    assert html.count("<img") == 3 * 2 * made_samples.PICTURES


def test_more_rows_mean_fewer_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in "abc":
        made_samples.write_labels(tmp_path / label, label, "cityscapes_fcn16s")
        made_samples.write_labels(tmp_path / f"{label}2", label, "ade20k_upernet")
    whole = len(body(tmp_path))
    monkeypatch.setattr(predictions, "BUDGET", whole // 3)
    html = body(tmp_path)
    assert len(html) < whole // 2
    assert re.search(r"\d of 6 kept pictures are shown", html)
    assert html.count("<h3>") == 2


def test_items_are_taken_in_turns_until_the_budget_is_spent() -> None:
    assert in_turns([iter([3, 3, 3]), iter([1, 1])], int, 100) == [[3, 3, 3], [1, 1]]
    assert in_turns([iter([3, 3, 3]), iter([1, 1])], int, 5) == [[3], [1, 1]]
    assert in_turns([iter([9]), iter([9])], int, 5) == [[9], []]


def test_names_that_try_to_act_do_nothing(tmp_path: Path) -> None:
    made_samples.write_labels(tmp_path / "a", '"><script>alert(1)</script>', "cityscapes_fcn16s")
    html = body(tmp_path)
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_label_maps_colour_what_is_labelled_and_nothing_else() -> None:
    picture = Image.new("RGB", (32, 16), (100, 100, 100))
    labels = np.full((16, 32), 255, np.uint8)
    labels[:, :16] = 1
    drawn = np.asarray(with_labels(picture, labels, np.array([(0, 0, 0), (200, 0, 0)]))).astype(int)
    assert drawn.shape == (SIDE // 2, SIDE, 3)
    assert drawn[80, 80].tolist() == pytest.approx(
        [(1 - COVER) * 100 + COVER * 200, (1 - COVER) * 100, (1 - COVER) * 100], abs=1
    )
    assert drawn[80, 240].tolist() == [100, 100, 100]
    assert drawn[80, 160].tolist() == [255, 255, 255]


def test_wrong_objects_have_dashed_boxes() -> None:
    picture, box = Image.new("RGB", (320, 160)), np.array([[0.25, 0.25, 0.75, 0.75]], np.float32)
    lines = []
    for right in (True, False):
        drawn = with_objects(picture, box, ["car"], [(255, 255, 255)], [right])
        lines.append((np.asarray(drawn)[120, 82:238] > 0).all(1))  # the lower side of the box
    assert lines[0].all()
    assert 0.3 < lines[1].mean() < 0.7


def test_boxes_at_the_edges_keep_their_words_inside() -> None:
    for box in ([0, 0, 1, 1], [0.99, 0, 1, 0.01], [-0.1, 0.9, 1.1, 1.2]):
        drawn = with_objects(Image.new("RGB", (64, 64)), np.array([box]), ["a long name 0.99"], [(255, 0, 0)], [True])
        assert drawn.size == (SIDE, SIDE)


def test_an_object_is_found_once() -> None:
    def some(boxes: list[list[float]], kinds: list[int]) -> Objects:
        return Objects(np.array(boxes), np.array(kinds), None, None, None)

    truth = some([[0, 0, 1, 1], [2, 0, 3, 1]], [1, 2])
    found = some([[0, 0, 1, 1], [0, 0, 1, 0.9], [2, 0, 3, 1], [2, 0, 3, 0.6]], [1, 1, 1, 2])
    assert matched(found, truth) == [True, False, False, True]


def test_shares_and_accuracy_leave_ignored_pixels_out() -> None:
    truth = np.array([[0, 1], [1, 255]], np.uint8)
    assert shares(truth, ["road", "bed "]) == "bed 67 %, road 33 %"
    assert accuracy(np.array([[0, 1], [0, 0]]), truth) == pytest.approx(200 / 3)
    assert accuracy(truth, np.full_like(truth, 255)) is None
    assert shares(np.full_like(truth, 255), ["road"]) == "nothing labelled"


def test_neighbouring_classes_have_colours_that_differ() -> None:
    colours = np.array([object_colour(kind) for kind in range(30)], int)
    assert np.abs(colours[1:] - colours[:-1]).sum(1).min() > 100


def test_pictures_in_the_page_are_small(tmp_path: Path) -> None:
    made_samples.write_objects(tmp_path / "a", "a")
    for src in re.findall(r'src="([^"]*)"', body(tmp_path)):
        assert src.startswith("data:image/webp;base64,")
        assert max(opened(src).size) == SIDE
        assert len(src) < 60_000  # noise, which compresses worse than photographs
