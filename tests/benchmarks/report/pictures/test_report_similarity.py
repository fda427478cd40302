"""The data of the similarity maps, and of the views of pre-training."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import made_samples
import numpy as np
import pytest

from benchmarks.report.pictures import similarity, views
from benchmarks.report.section import read_contents
from benchmarks.tables.options import Options
from pixbench.results import read_arrays, read_result


def cosines(cells: dict[str, object]) -> np.ndarray:
    """The cosines of all cells of a map, as the script computes them."""
    count = int(cells["height"]) * int(cells["width"])  # type: ignore[call-overload]
    numbers = np.frombuffer(base64.b64decode(str(cells["cells"])), np.int8).reshape(count, -1).astype(float)
    found: np.ndarray = numbers @ numbers.T * float(str(cells["scale"]))
    return found


def test_the_page_has_what_the_script_needs(tmp_path: Path) -> None:
    path = made_samples.write_labels(tmp_path / "a", "good")
    made_samples.write_labels(tmp_path / "b", "random", miss=4)
    section = similarity.section(read_contents([tmp_path], Options()))
    assert section is not None
    assert section.data["start"] == ["good", "random"]  # the baseline is on the right
    (group,) = section.data["groups"]
    assert len(group["pictures"]) == made_samples.PICTURES
    picture = group["pictures"][0]
    assert {*picture["maps"]} == {"good", "random"}
    assert picture["classes"] == [*made_samples.CLASSES]
    cells = picture["maps"]["good"]
    assert (cells["width"], cells["height"]) == made_samples.CELLS
    found, truth = cosines(cells), np.frombuffer(base64.b64decode(cells["truth"]), np.uint8)
    assert np.diag(found) == pytest.approx(np.ones(len(truth)), abs=0.02)
    car = truth == made_samples.CLASSES.index("car")
    assert found[np.ix_(car, car)].mean() > 0.7 > 0.3 > found[np.ix_(car, ~car)].mean()
    errors = [
        float(value)
        for name, value in read_arrays(path, read_result(path), "features.npz").items()
        if name.startswith("error")
    ]
    assert max(errors) > 0
    assert str(section.body).count('class="coarse"') == 2 * made_samples.PICTURES


def test_one_protocol_of_a_data_set_is_enough(tmp_path: Path) -> None:
    """The one with more rows."""
    for name, protocol in (("a", "voc12aug_knn"), ("b", "voc12aug_knn"), ("a", "voc12aug_incontext")):
        made_samples.write_labels(tmp_path / name / protocol, name, protocol)
    made_samples.write_labels(tmp_path / "a/cityscapes", "a", "cityscapes_knn")
    section = similarity.section(read_contents([tmp_path], Options()))
    assert section is not None
    titles = [group["title"] for group in section.data["groups"]]
    assert len(titles) == 2
    assert "nearest cells" in titles[0]


def test_a_row_with_other_pictures_has_no_map_for_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_samples.write_labels(tmp_path / "a", "one")
    scene = made_samples.scene
    monkeypatch.setattr(made_samples, "scene", lambda number: scene(number + 100))
    made_samples.write_labels(tmp_path / "b", "other")
    section = similarity.section(read_contents([tmp_path], Options()))
    assert section is not None
    assert [[*picture["maps"]] for picture in section.data["groups"][0]["pictures"]] == [["one"]] * 6 + [["other"]] * 6


def test_the_budget_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_samples.write_labels(tmp_path / "a", "one")
    monkeypatch.setattr(similarity, "BUDGET", 1)
    section = similarity.section(read_contents([tmp_path], Options()))
    assert section is not None
    assert len(section.data["groups"][0]["pictures"]) == 1


def test_without_features_there_is_no_section(tmp_path: Path) -> None:
    made_samples.write_labels(tmp_path / "a", "one", "cityscapes_fcn16s")
    contents = read_contents([tmp_path], Options())
    assert similarity.section(contents) is None
    assert views.section(contents) is None


def test_views_and_their_pairs(tmp_path: Path) -> None:
    made_samples.write_views(tmp_path / "pixpro", "pixpro", 0.7)
    made_samples.write_views(tmp_path / "byol", "byol", None)
    section = views.section(read_contents([tmp_path], Options()))
    assert section is not None
    html = str(section.body)
    assert html.count("<svg") == 2 * views.IMAGES
    assert "less than 0.7 cell diagonals" in html
    assert "makes no pairs" in html
    pairs = section.data[1][0]["pairs"]  # byol comes first
    assert section.data[0][0]["pairs"] is None
    labels = re.findall(r'aria-label="(Image [^"]*)"', html)
    cells = {one for one, _ in pairs}
    assert f"{len(pairs)} positive pairs: {len(cells)} cells of view 1 have a partner" in labels[2]
    assert html.count('class="cell alone"') == 2 * (2 * 49 - len(cells) - len({other for _, other in pairs}))
    assert html.count('<rect class="box common"') == 2 * views.IMAGES


def test_pairs_that_are_drawn_are_spread_and_nearest() -> None:
    pairs = [[cell, partner] for cell in range(20) for partner in (cell + 1, cell)]
    assert views.spread(pairs) == [[2, 3], [6, 7], [10, 11], [14, 15], [18, 19]]
    assert views.spread([[4, 9]]) == [[4, 9]]
    assert views.spread([]) == []
