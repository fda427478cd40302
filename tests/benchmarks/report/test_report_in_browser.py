"""The report in a real browser: it draws, sorts, filters, asks for nothing, and is usable by keyboard and screen reader."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import many_runs
import pytest
from markupsafe import Markup

from benchmarks.report.charts import SCRIPT
from benchmarks.report.page import TITLE, assembled, page
from benchmarks.report.section import Section, read_contents
from benchmarks.report.server import Pages, server
from benchmarks.tables.options import Options

pytestmark = pytest.mark.browser
ROWS = ("random", "moco_v2", "pixpro")
FEW = ("voc_c4", "cityscapes_fcn16s", "voc12aug_knn", "cityscapes_knn")
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True}
DARK = {**DESKTOP, "color_scheme": "dark"}


@dataclass
class Visit:
    """An open page, and what happened in it."""

    page: Any
    said: list[str] = field(default_factory=list)
    """Lines of the console and errors of scripts."""
    asked: list[str] = field(default_factory=list)
    """Addresses that the page asked for."""


@contextmanager
def opened(browser: Any, file: Path, **options: Any) -> Iterator[Visit]:
    """Open ``file`` and wait until all charts are drawn."""
    context = browser.new_context(**options)
    try:
        visit = Visit(context.new_page())
        visit.page.on("console", lambda message: visit.said.append(message.text))
        visit.page.on("pageerror", lambda error: visit.said.append(str(error)))
        visit.page.on("dialog", lambda dialog: (visit.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        visit.page.on("request", lambda request: visit.asked.append(request.url))
        visit.page.goto(file.as_uri())
        visit.page.wait_for_selector("html[data-charts=drawn]", state="attached")
        yield visit
    finally:
        context.close()


def written(folder: Path, runs: Path) -> Path:
    file = folder / "report.html"
    file.write_text(page(read_contents([runs], Options())), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report of runs with all that goes wrong now and then."""
    folder = tmp_path_factory.mktemp("report")
    many_runs.accidents(many_runs.make(folder / "runs", ROWS, FEW, points=30))
    return written(folder, folder / "runs")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report of runs whose names try to act."""
    folder = tmp_path_factory.mktemp("hostile")
    many_runs.make(folder / "runs", many_runs.HOSTILE, FEW[1:3], seeds=1, points=10)
    return written(folder, folder / "runs")


@pytest.fixture(scope="module")
def visit(browser: Any, report: Path) -> Iterator[Visit]:
    """The report in one window, for tests that leave it as they found it."""
    with opened(browser, report, **DESKTOP) as found:
        yield found


def violations(visit: Visit, parts: Sequence[str] = ("html",), **options: Any) -> list[tuple[str, str]]:
    """What axe-core finds in ``parts`` of the page. Charts are hidden from it: a table has their numbers."""
    sync = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    context = {"include": [[part] for part in parts], "exclude": ["svg.marks"]}
    found = sync.Axe().run(visit.page, context, {"resultTypes": ["violations"], **options}).response
    assert found["passes"]
    return [(rule["id"], node["html"][:200]) for rule in found["violations"] for node in rule["nodes"]]


def check(visit: Visit, report: Path) -> None:
    """It is silent, has asked for nothing, has drawn all charts in the open, and fits its window."""
    assert (visit.said, visit.asked) == ([], [report.as_uri()])
    assert visit.page.locator("figure svg.marks").count() == visit.page.locator("figure:visible").count() > 10
    assert visit.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_on_a_desktop(visit: Visit, report: Path, shots: Path) -> None:
    visit.page.screenshot(path=shots / "desktop.png", full_page=True)
    check(visit, report)


def test_on_a_phone(browser: Any, report: Path, shots: Path) -> None:
    with opened(browser, report, **PHONE) as visit:
        visit.page.screenshot(path=shots / "phone.png", full_page=True)
        check(visit, report)


def test_in_the_dark_and_on_paper(browser: Any, report: Path, shots: Path) -> None:
    with opened(browser, report, **DARK) as visit:
        visit.page.screenshot(path=shots / "dark.png", full_page=True)
        check(visit, report)
        visit.page.pdf(path=shots / "print.pdf")
        visit.page.emulate_media(media="print")
        visit.page.set_viewport_size({"width": 1032, "height": 700})
        visit.page.screenshot(path=shots / "print.png", full_page=True)
        assert not visit.page.locator("nav").is_visible()
        assert visit.page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert visit.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        visit.page.emulate_media(media="screen")
        assert violations(visit, ("header", "nav", "#summary", "#bars", "#tables"), runOnly=["color-contrast"]) == []


def column(table: Any, place: int) -> list[str]:
    return [row.locator("th, td").nth(place).inner_text() for row in table.locator("tbody tr:visible").all()]


def test_without_javascript_it_says_what_is_missing_and_has_all_numbers(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False, **DESKTOP)
    try:
        page = context.new_page()
        page.goto(report.as_uri())
        assert page.get_by_text("This browser runs no JavaScript").is_visible()
        numbers = page.locator("figure details").first
        numbers.locator("summary").click()
        assert numbers.locator("td").first.is_visible()
    finally:
        context.close()


def test_headings_sort_by_mouse_and_by_keyboard(visit: Visit) -> None:
    table = visit.page.locator("#tables table").first
    head = table.locator("thead th").nth(1)
    means = [float(text.split()[0]) for text in column(table, 1)]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"  # the best first
    assert [float(text.split()[0]) for text in column(table, 1)] == sorted(means, reverse=True) != means
    head.locator("button").focus()
    visit.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text.split()[0]) for text in column(table, 1)] == sorted(means)
    names = column(table, 0)
    table.locator("thead th").nth(0).locator("button").click()
    assert column(table, 0) == sorted(names) != names
    assert table.locator("[aria-sort]").count() == 1


def test_a_table_is_filtered_by_words_in_any_order(visit: Visit) -> None:
    runs = visit.page.locator("#provenance table").first
    total = len(column(runs, 0))
    visit.page.locator("#provenance input").first.fill("seed1 PIXPRO voc_c4")
    assert column(runs, 0) == ["runs/pixpro/voc_c4/seed1"]
    assert visit.page.locator("#provenance output").first.inner_text() == f"1 of {total} rows"
    visit.page.locator("#provenance input").first.fill("")
    assert len(column(runs, 0)) == total == 40


def test_a_chart_answers_the_pointer(visit: Visit) -> None:
    visit.page.locator("#bars-0 .mark-rect path").first.hover()
    assert "AP" in visit.page.locator("#vg-tooltip-element").inner_text()


def test_charts_that_are_folded_are_drawn_when_they_are_opened(visit: Visit) -> None:
    folded = visit.page.locator("#agreement details.part:not([open])").first
    assert folded.locator("svg.marks").count() == 0
    folded.locator("summary").first.click()
    visit.page.locator("#agreement details.part").nth(1).locator("svg.marks").first.wait_for()


def test_axe_finds_no_violation(visit: Visit) -> None:
    visit.page.evaluate("() => document.querySelectorAll('details:not(.part)').forEach(each => each.open = true)")
    assert violations(visit) == []


def test_hostile_names_are_shown_and_do_nothing(browser: Any, hostile: Path, shots: Path) -> None:
    with opened(browser, hostile, **DESKTOP) as visit:
        visit.page.screenshot(path=shots / "hostile.png", full_page=True)
        assert (visit.said, visit.asked) == ([], [hostile.as_uri()])
        assert visit.page.locator("img").count() == 0
        shown = column(visit.page.locator("#tables table").first, 0)
    for name in many_runs.HOSTILE:
        assert (name if name.isprintable() else r"a\u202eb\x00c\nd") in shown


def test_its_policy_stops_a_script_and_a_request_that_got_into_it(browser: Any, tmp_path: Path) -> None:
    bad = Markup("<script>document.title = 'hacked'</script><img src='http://127.0.0.1:9/x'>")
    bad += Markup("<p onclick=\"document.title = 'hacked'\">press</p>")
    broken = tmp_path / "broken.html"
    broken.write_text(assembled([Section("a", "A", "", bad, script=SCRIPT)]), encoding="utf-8")
    with opened(browser, broken, **DESKTOP) as visit:
        visit.page.get_by_text("press", exact=True).click()
        assert visit.page.title() == TITLE
        assert len([line for line in visit.said if "Content Security Policy" in line]) == 3


def test_a_served_report_refreshes_itself_and_keeps_the_readers_place(browser: Any, tmp_path: Path) -> None:
    runs = many_runs.make(tmp_path / "runs", ROWS, ("voc_c4",), points=5)
    running = server(Pages([runs], lambda: read_contents([runs], Options()), fresh_s=0.0), 0)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{running.server_port}/"
    context = browser.new_context(**DESKTOP)
    try:
        visit = Visit(context.new_page())
        visit.page.on("console", lambda message: visit.said.append(message.text))
        visit.page.on("request", lambda request: visit.asked.append(request.url))
        visit.page.clock.install()
        visit.page.goto(address)
        visit.page.wait_for_selector("html[data-charts=drawn]", state="attached")
        version = visit.page.locator("meta[name=version]").get_attribute("content")
        visit.page.locator("#provenance input").first.fill("pixpro")
        visit.page.locator("#provenance thead th").nth(5).locator("button").click()
        visit.page.locator("#tables summary", has_text="All deviations").first.click()
        visit.page.evaluate("() => document.getElementById('provenance').scrollIntoView()")
        before = visit.page.locator("#provenance").bounding_box()["y"]
        visit.page.clock.fast_forward(10000)  # nothing has changed, so nothing happens
        many_runs.make(runs / "more", ("simclr",), ("voc_c4",), points=5)
        visit.page.clock.fast_forward(10000)
        visit.page.wait_for_selector(f"meta[name=version]:not([content='{version}'])", state="attached")
        visit.page.wait_for_selector("html[data-charts=drawn]", state="attached")
        assert visit.page.locator("#provenance input").first.input_value() == "pixpro"
        assert visit.page.locator("#provenance thead th").nth(5).get_attribute("aria-sort") == "descending"
        assert visit.page.locator("#tables details[open] summary").all_inner_texts() == ["All deviations"]
        assert abs(visit.page.locator("#provenance").bounding_box()["y"] - before) < 40
        assert "SimCLR" in column(visit.page.locator("#tables table").first, 0)
        assert (visit.said, set(visit.asked)) == ([], {address})
    finally:
        context.close()
        running.shutdown()
        running.server_close()
        thread.join()
