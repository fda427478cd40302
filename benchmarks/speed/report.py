"""Measure how long it takes to read very many results, to make a report, and to open it in a browser.

    python -m benchmarks.speed.report RUNS [--results 10000] [--runs 200] [--into FILE]

RUNS are finished runs, such as the output of a suite. They are copied under other seeds and labels, three seeds a row, until
there are so many. Reading is timed with an empty cache and with a filled one. The browser is Chromium, asked through Playwright;
without them these figures are left out. Stored in docs/report.json, the figures are the table of docs/report.md.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.report import charts
from benchmarks.report.page import page as report_page
from benchmarks.report.section import Contents
from benchmarks.results.reading import Found, read_all
from benchmarks.speed import options
from benchmarks.tables.collected import grouped
from pixbench.errors import UserError
from pixbench.file_versions import RESULT_FILE
from pixbench.files import make_folder, write_json
from pixbench.provenance import host
from pixbench.results import rewrite_result
from transfer.run_folder import row_of

SEEDS = 3
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
IN_SIGHT = """() => [...document.querySelectorAll("figure.chart")].filter((figure) => {
    const box = figure.getBoundingClientRect();
    return box.height && box.top < innerHeight;
}).every((figure) => figure.querySelector("svg.marks"))"""
"""Whether the charts in the window are drawn."""


def copied(found: list[Found], number: int, folder: Path, stored: bool) -> Path:
    """Write ``number`` results below ``folder`` and return it: ``found`` again and again, under other seeds and labels.

    Args:
        found: results with everything they hold.
        number: how many to write.
        folder: a new folder.
        stored: whether the files beside the results are copied too.
    """
    written = 0
    for turn in count():
        for place, (path, result) in enumerate(found):
            if written == number:
                return folder
            run = folder / f"{turn}" / f"{place}"
            other: dict[str, Any] = {"seed": turn % SEEDS}
            if result["kind"] != "pretrain":
                other["label"] = row_of(result) + (f"_{turn // SEEDS}" if turn >= SEEDS else "")
            make_folder(run)
            for name in result.get("stored") or () if stored else ():
                shutil.copyfile(path.with_name(name), run / name)
            rewrite_result(run / RESULT_FILE, {**result, **other})
            written += 1
    raise AssertionError("unreachable")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of processor time that ``work`` takes, and what it returns."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def in_browser(file: Path) -> dict[str, Any] | None:
    """Return the seconds until the page can be read, its charts in sight are drawn, and all are; None without a browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        start, seconds = time.perf_counter(), {}
        opened.goto(file.as_uri(), wait_until="domcontentloaded")
        seconds["read_s"] = time.perf_counter() - start
        opened.wait_for_function(IN_SIGHT)
        seconds["in_sight_s"] = time.perf_counter() - start
        opened.wait_for_selector("html[data-charts=drawn]", state="attached", timeout=120_000)
        found = {**seconds, "drawn_s": time.perf_counter() - start, "browser": f"Chromium {browser.version}"}
        browser.close()
    return found


def measured(runs: Path, results: int, few: int, work: Path) -> dict[str, Any]:
    """Return all figures; each of the two numbers of results is read, and made a report of."""
    found = read_all(runs, heavy=True).found
    if not found:
        raise UserError(
            f"there is no result below {runs} that can be used; give finished runs, such as a suite's output"
        )
    charts.bundle()  # made once on a machine
    sizes = [_of_size(copied(found, few, work / "few", stored=True), browser=True)]
    sizes.append(_of_size(copied(found, results, work / "many", stored=False), browser=False))
    machine = host()
    return {"date": str(date.today()), "cpu": machine.get("cpu"), "cores": machine["cpus"], "sizes": sizes}


def _of_size(folder: Path, browser: bool) -> dict[str, Any]:
    """Return the figures of the results below ``folder``, and whether one was asked for, of a browser that opens their report."""
    file, cache = folder.with_suffix(".html"), folder.with_suffix(".sqlite")
    other = folder.with_suffix(".light.sqlite")
    light, _ = timed(lambda: read_all(folder, cache=other))
    light_again, _ = timed(lambda: read_all(folder, cache=other))
    first, _ = timed(lambda: read_all(folder, heavy=True, cache=cache))
    again, results = timed(lambda: read_all(folder, heavy=True, cache=cache))
    groups, left_out = grouped(results, [folder])
    made, text = timed(lambda: report_page(Contents([folder], results, groups, left_out)))
    file.write_text(text, encoding="utf-8")
    found = {
        "results": len(results.found),
        "light_s": light,
        "light_cached_s": light_again,
        "read_s": first,
        "cached_s": again,
        "page_s": made,
        "bytes": file.stat().st_size,
    }
    opened = in_browser(file) if browser else None
    return found | ({"browser": opened} if opened else {})


def page(stored: dict[str, Any]) -> str:
    """Return the table of figures that `main` stored."""
    lines = {
        "reading the results for a table": lambda size: (
            f"{size['light_s']:.1f} s; {size['light_cached_s']:.1f} s when they are in the cache"
        ),
        "reading them for a report, with curves and settings": lambda size: (
            f"{size['read_s']:.1f} s; {size['cached_s']:.1f} s when they are in the cache"
        ),
        "making the page": lambda size: f"{size['page_s']:.1f} s",
        "size": lambda size: f"{size['bytes'] / 1e6:.1f} MB",
    }
    browser = {
        "the page can be read": "read_s",
        "the charts in sight are drawn": "in_sight_s",
        "all charts are drawn": "drawn_s",
    }
    rows = [(name, *map(of, stored["sizes"])) for name, of in lines.items()]
    for name, key in browser.items():
        if any("browser" in size for size in stored["sizes"]):
            cells = [f"{size['browser'][key]:.1f} s" if "browser" in size else "" for size in stored["sizes"]]
            rows.append((f"in the browser: {name}", *cells))
    heads = ("", *(f"{size['results']:,} runs" for size in stored["sizes"]))
    table = tabulate(rows, heads, tablefmt="github", disable_numparse=True)
    names = dict.fromkeys(size["browser"]["browser"] for size in stored["sizes"] if "browser" in size)
    by = f"; {', '.join(names)}, on the clock" if names else ""
    where = f"{stored['cpu'] or 'an unknown processor'}, {stored['cores']} cores, {stored['date']}"
    return f"{table}\n\n*Seconds of processor time{by}. {where}.*"


def main() -> None:
    """Measure, print and store."""
    parser = options.parser("report", __doc__)
    parser.add_argument("folder", type=Path, metavar="RUNS", help="finished runs")
    parser.add_argument("--results", type=options.positive, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--runs", type=options.positive, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument("--into", type=Path, metavar="FILE", help="also write the figures to FILE, in JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        stored = measured(args.folder, args.results, args.runs, Path(work))
    print(page(stored))
    if args.into:
        write_json(args.into, stored)


if __name__ == "__main__":
    main()
