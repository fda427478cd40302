"""The docs: generated tables are up to date, and every file and page that they name is there."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
from started import finished

from pretrain.method_descriptions import config_files
from pretrain.methods import METHODS
from transfer.protocols import protocols

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "examples").rglob("README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FOLDERS = "pixbench|pretrain|transfer|benchmarks|configs|scripts|tests|docs|examples"


@pytest.mark.e2e
def test_generated_tables_are_up_to_date() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "generate_docs.py"), "--check"]
    done = finished(script)
    assert done.returncode == 0, done.stdout + done.stderr


def test_study_and_zoo_are_what_their_results_give() -> None:
    """Pages, cards and figure; the other generated tables take longer (see above)."""
    script = runpy.run_path(str(ROOT / "scripts" / "generate_docs.py"))
    for name in [name for name in script["TABLES"] if name.startswith("study") or name in ("findings", "zoo")]:
        page, make = script["TABLES"][name]
        text = (script["DOCS"] / page).read_text(encoding="utf-8")
        assert text == script["updated"](name, text, make()), name
    for path, content in script["whole_files"]():
        assert path.read_bytes() == content, path


def test_every_method_and_protocol_has_a_page() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "methods").glob("[!R]*.md"))
    assert [name for name in METHODS if not config_files(name)] == [], "methods without a config in configs/pretrain/"
    assert [file for name in METHODS for file in config_files(name) if file not in pages] == []
    assert [name for name in protocols() if not (ROOT / "docs" / "protocols" / f"{name}.md").is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(rf"`((?:{FOLDERS})/[\w./-]+\.\w+)`", text):
        assert "NAME" in name or (ROOT / name).exists(), f"{page.name} names {name}"
    for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (page.parent / link).exists(), f"{page.name} links {link}"
