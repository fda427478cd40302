"""The pictures of the report in a real browser, by mouse, keyboard and touch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import made_samples
import pytest

from benchmarks.report.page import assembled
from benchmarks.report.pictures import predictions, similarity, views
from benchmarks.report.section import read_contents
from benchmarks.tables.options import Options

pytestmark = pytest.mark.browser
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DARK = {**DESKTOP, "color_scheme": "dark"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for label, miss in (("pixpro", 1), ("random", 8)):
        made_samples.write_labels(folder / label / "knn", label, miss=miss)
        made_samples.write_objects(folder / label / "coco", label, miss=3 * miss)
    made_samples.write_views(folder / "pretrain/pixpro", "pixpro", 0.7)
    made_samples.write_views(folder / "pretrain/byol", "byol", None)
    contents = read_contents([folder], Options())
    sections = [make(contents) for make in (predictions.section, similarity.section, views.section)]
    file = folder / "report.html"
    file.write_text(assembled([section for section in sections if section]), encoding="utf-8")
    return file


@contextmanager
def opened(browser: Any, file: Path, **options: Any) -> Iterator[Any]:
    """Open ``file``; its scripts and its policy must have nothing to say."""
    context, said = browser.new_context(**options), []
    try:
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(file.as_uri())
        page.wait_for_function("document.getElementById('similarity-said').textContent")
        yield page
        assert said == []
    finally:
        context.close()


def said(page: Any) -> str:
    found: str = page.locator("#similarity-said").inner_text()
    return found


def reds(page: Any, side: str, *parts: tuple[range, range]) -> list[float]:
    """The mean red of the middles of the cells in ``parts`` (columns, rows) of a map: low similarities have little of it."""
    found: list[float] = page.evaluate(
        """([side, parts]) => {
        const map = document.querySelector(`[data-part="${side}-map"]`);
        const pixels = map.getContext("2d").getImageData(0, 0, map.width, map.height).data;
        const at = (cell, cells, length) => Math.floor(((cell + 0.5) / cells) * length);
        const one = (x, y) => pixels[4 * (at(y, 7, map.height) * map.width + at(x, 10, map.width))];
        const mean = (values) => values.reduce((a, b) => a + b) / values.length;
        return parts.map(([columns, rows]) => mean(columns.flatMap((x) => rows.map((y) => one(x, y)))));
        }""",
        [side, [[[*columns], [*rows]] for columns, rows in parts]],
    )
    return found


@pytest.mark.parametrize(("name", "options"), [("desktop", DESKTOP), ("phone", PHONE), ("dark", DARK)])
def test_it_fits_and_axe_finds_nothing(
    browser: Any, report: Path, shots: Path, name: str, options: dict[str, Any]
) -> None:
    with opened(browser, report, **options) as page:
        page.evaluate("() => document.querySelectorAll('details').forEach(each => each.open = true)")
        page.screenshot(path=shots / f"pictures-{name}.png", full_page=True)
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        broken = page.evaluate("() => [...document.images].filter(one => !one.complete || !one.naturalWidth).length")
        assert broken == 0
        sync = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
        found = sync.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_click_on_a_cell_shows_what_is_similar(browser: Any, report: Path) -> None:
    with opened(browser, report, **DESKTOP) as page:
        page.locator('[data-part="range"]').select_option("same")
        canvas = page.locator('[data-part="left-map"]')
        box = canvas.bounding_box()
        canvas.click(position={"x": 0.25 * box["width"], "y": 0.4 * box["height"]})  # in the car
        assert re.match(r"Row 3 of 7, column 3 of 10 \(car\)\. PixPro: most similar is ", said(page))
        same, other = map(
            float, re.search(r"car (\d\.\d+), of all other cells (−?\d\.\d+)", said(page).replace("−", "-")).groups()
        )  # type: ignore[union-attr]
        assert same > other + 0.5
        inside, outside = reds(page, "left", (range(1, 4), range(2, 4)), (range(5, 10), range(7)))
        assert inside > outside + 60
        before = canvas.screenshot()
        page.locator('[data-part="left"]').select_option("random")
        assert "random" in said(page).lower().partition(".")[2]
        assert canvas.screenshot() != before


def test_arrow_keys_move_the_cell_in_both_maps(browser: Any, report: Path) -> None:
    with opened(browser, report, **DESKTOP) as page:
        page.locator('[data-part="right-map"]').focus()
        for key in ("Home", "PageUp"):
            page.keyboard.press(key)
        assert said(page).startswith("Row 1 of 7, column 1 of 10")
        for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
            page.keyboard.press(key)
        assert said(page).startswith("Row 2 of 7, column 2 of 10")
        for key in ("End", "PageDown", "ArrowDown", "ArrowRight"):  # it stays inside
            page.keyboard.press(key)
        assert said(page).startswith("Row 7 of 7, column 10 of 10")


def test_another_picture(browser: Any, report: Path) -> None:
    with opened(browser, report, **DESKTOP) as page:
        before = said(page)
        names = page.locator('[data-part="picture"] option').all_inner_texts()
        assert sorted(names) == [f"scene_{number}" for number in range(made_samples.PICTURES)]
        page.locator('[data-part="picture"]').select_option(label=names[1])
        page.wait_for_function(
            "before => document.getElementById('similarity-said').textContent !== before", arg=before
        )
        assert names[1] in page.locator('[data-part="left-map"]').get_attribute("aria-label")


def test_pictures_of_one_name_are_told_apart(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were measured in mini worlds of two seeds."""
    scene = made_samples.scene
    for number, label in enumerate(("one", "other")):
        monkeypatch.setattr(made_samples, "scene", lambda place, number=number: scene(place + 100 * number))
        made_samples.write_labels(tmp_path / label, label)
    section = similarity.section(read_contents([tmp_path], Options()))
    assert section is not None
    file = tmp_path / "report.html"
    file.write_text(assembled([section]), encoding="utf-8")
    with opened(browser, file, **DESKTOP) as page:
        choice, kept = page.locator('[data-part="picture"]'), []
        for place in range(2 * made_samples.PICTURES):
            choice.select_option(index=place)
            page.wait_for_timeout(50)
            kept.append("not kept" in said(page).partition("other:")[0])
    assert kept == [False] * made_samples.PICTURES + [True] * made_samples.PICTURES


def test_touch_chooses_a_cell(browser: Any, report: Path) -> None:
    with opened(browser, report, **PHONE) as page:
        canvas = page.locator('[data-part="left-map"]')
        canvas.tap(position={"x": 3, "y": 3})
        assert said(page).startswith("Row 1 of 7, column 1 of 10")


def test_a_cell_of_a_view_shows_its_partners(browser: Any, report: Path) -> None:
    with opened(browser, report, **DESKTOP) as page:
        views_ = page.locator("#views svg[role=application]").first
        words = page.locator("#views figure", has=page.locator("svg[role=application]")).first.locator("figcaption")
        assert "positive pairs; " in words.inner_text()
        views_.focus()
        page.keyboard.press("ArrowDown")
        chosen = re.match(r"Cell row 5, column 4 of view 1: positive pairs? with (.*) of view 2", words.inner_text())
        assert chosen
        assert views_.locator("line:not(.under)").count() == len(chosen[1].split("; "))
        views_.locator(".cell").first.click()  # the upper left corner is in no other view
        assert words.inner_text() == "Cell row 1, column 1 of view 1: no positive pair"
        assert page.locator("#views svg[role=img]").count() == views.IMAGES


def test_maps_and_pictures_are_printed(browser: Any, report: Path, shots: Path) -> None:
    with opened(browser, report, **DARK) as page:
        page.pdf(path=shots / "pictures.pdf", print_background=True)
        page.emulate_media(media="print")
        assert page.locator('[data-part="left-map"]').is_visible()
        assert not page.locator(".chooser").is_visible()
