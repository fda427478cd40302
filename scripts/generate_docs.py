"""Write into the docs the tables that commands print: formats, protocols, settings of the methods.

    python scripts/generate_docs.py [--check]

A table stands between the lines ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``. With ``--check`` nothing is written,
and the exit code is 1 if a table differs from what the program would print today.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from tabulate import tabulate

from benchmarks.commands.protocols import HEADERS, protocol_rows
from benchmarks.speed import page as speed_page
from benchmarks.speed import probe_memory
from benchmarks.speed import search as search_page
from pixbench.files import write_text
from pretrain.method_descriptions import config_files, setting_descriptions
from pretrain.methods import METHODS
from transfer.weights.inspection import listing

DOCS = Path(__file__).resolve().parents[1] / "docs"


def protocols() -> str:
    """Return the table of all protocols, each with a link to its page."""
    rows = [(f"[`{name}`]({name}.md)", *rest) for name, *rest in protocol_rows()]
    return tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)


def settings() -> str:
    """Return the settings of every method: a heading, its configs and a table each."""
    parts = []
    for name, method in METHODS.items():
        texts = setting_descriptions(method.Config)
        rows = [(f"`{f.name}`", f"`{f.default}`", texts.get(f.name, "")) for f in fields(method.Config)]
        files = ", ".join(f"`{file}`" for file in config_files(name))
        table = tabulate(rows, ("setting", "default", "what it is"), tablefmt="github", disable_numparse=True)
        parts.append(f"### `{name}`\n\n{method.title}. Configs: {files}.\n\n{table}")
    return "\n\n".join(parts)


def speed() -> str:
    """Return the figures that `python -m benchmarks.speed` stored."""
    return speed_page.page(json.loads((DOCS / "speed.json").read_text(encoding="utf-8")))


def memory() -> str:
    """Return the memory of frozen classification by formula, and as `python -m benchmarks.speed.probe_memory` stored it."""
    return probe_memory.page(json.loads((DOCS / "probe_memory.json").read_text(encoding="utf-8")))


def search() -> str:
    """Return the time of exact search as `python -m benchmarks.speed.search` stored it."""
    return search_page.page(json.loads((DOCS / "search.json").read_text(encoding="utf-8")))


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "formats": ("weights.md", listing),
    "protocols": ("protocols/README.md", protocols),
    "settings": ("methods/README.md", settings),
    "speed": ("speed.md", speed),
    "memory": ("frozen.md", memory),
    "search": ("frozen.md", search),
}


def updated(name: str, text: str, table: str) -> str:
    """Return ``text`` with ``table`` between the markers of ``name``."""
    begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"the page of {name} must hold the lines {begin} and {end} once each")
    head, rest = text.split(begin)
    return f"{head}{begin}\n\n{table.strip()}\n\n{end}{rest.split(end)[1]}"


def main() -> int:
    """Write or check all tables; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table is out of date")
    check = parser.parse_args().check
    stale = []
    for name, (page, make) in TABLES.items():
        path = DOCS / page
        before = path.read_text(encoding="utf-8")
        now = updated(name, before, make())
        if now != before:
            stale.append(page)
            if not check:
                write_text(path, now)
    print(f"{'out of date' if check else 'written'}: {', '.join(stale)}" if stale else "all tables are up to date")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
