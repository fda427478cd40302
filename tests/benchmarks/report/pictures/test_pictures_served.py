"""A served page that loads itself again keeps what the reader has chosen in its pictures."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import made_results
import made_samples
import pytest

from benchmarks.report.section import read_contents
from benchmarks.report.server import Pages, server
from benchmarks.tables.options import Options

pytestmark = pytest.mark.browser


def test_the_chosen_cells_and_the_focus_are_kept(browser: Any, tmp_path: Path) -> None:
    for label in ("pixpro", "random", "simclr"):
        made_samples.write_labels(tmp_path / label / "knn", label)
    made_samples.write_views(tmp_path / "pretrain/pixpro", "pixpro", 0.7)
    running = server(Pages([tmp_path], lambda: read_contents([tmp_path], Options()), fresh_s=0.0), 0)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    context = browser.new_context()
    try:
        page, said = context.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.clock.install()
        page.goto(f"http://127.0.0.1:{running.server_port}/")
        words, part = page.locator("#similarity-said"), lambda name: page.locator(f'[data-part="{name}"]')
        page.wait_for_function("document.getElementById('similarity-said').textContent")
        part("picture").select_option(index=2)
        part("left").select_option("simclr")
        part("range").select_option("same")
        page.locator("#views .cell.choice").first.click()
        part("right-map").focus()
        for key in ("Home", "PageDown", "ArrowRight"):
            page.keyboard.press(key)
        before = [words.inner_text(), page.locator("#views figcaption").first.inner_text()]
        assert before[0].startswith("Row 7 of 7, column 2 of 10")
        assert before[1].startswith("Cell row 1, column 1 of view 1")
        version = page.locator("meta[name=version]").get_attribute("content")
        made_results.write(tmp_path / "more", label="moco_v2")
        page.clock.fast_forward(10000)
        page.wait_for_selector(f"meta[name=version]:not([content='{version}'])", state="attached")
        page.wait_for_function(
            "words => document.getElementById('similarity-said').textContent === words", arg=before[0]
        )
        assert page.locator("#views figcaption").first.inner_text() == before[1]
        assert [part(name).input_value() for name in ("picture", "left", "range")] == ["2", "simclr", "same"]
        assert page.evaluate("() => document.activeElement.dataset.part") == "right-map"
        page.keyboard.press("ArrowRight")
        assert words.inner_text().startswith("Row 7 of 7, column 3 of 10")
        assert said == []
    finally:
        context.close()
        running.shutdown()
        running.server_close()
        thread.join()
