"""Write into the docs the tables that commands print, and what the study has found; and the schema of results.

    python scripts/generate_docs.py [--check]

A table stands between the lines ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``. With ``--check`` nothing is written,
and the exit code is 1 if a table differs from what the program would print today.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks import protocol_facts
from benchmarks.commands.protocols import HEADERS, protocol_rows
from benchmarks.families import FAMILIES, answers, example
from benchmarks.gpu_day import report as gpu_day_report
from benchmarks.results import schema
from benchmarks.speed import frozen as frozen_page
from benchmarks.speed import page as speed_page
from benchmarks.speed import probe_memory
from benchmarks.speed import report as report_page
from benchmarks.speed import search as search_page
from benchmarks.study.page import FIGURE, Page
from benchmarks.tables import examples
from benchmarks.zoo import card
from benchmarks.zoo.entry import CARD, entries
from benchmarks.zoo.measured import measured
from pixbench.errors import run_command
from pixbench.files import write_text
from pixbench.paths import RESULT_JSON_SCHEMA, STUDY
from pretrain.method_descriptions import config_files, setting_descriptions
from pretrain.methods import METHODS
from transfer.protocols import Protocol
from transfer.protocols import protocols as all_protocols
from transfer.weights.inspection import listing

DOCS = Path(__file__).resolve().parents[1] / "docs"


def protocols() -> str:
    """Return the table of all protocols, each with a link to its page."""
    rows = [(f"[`{name}`]({name}.md)", *rest) for name, *rest in protocol_rows()]
    return tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)


def families() -> str:
    """Return which protocol takes which family of networks, with the reasons below the table."""
    reasons: dict[str, int] = {}
    rows = []
    for protocol in all_protocols().values():
        row = [f"[`{protocol.name}`]({protocol.name}.md)"]
        for family, answer in answers(protocol).items():
            reason = answer.reason.replace(protocol.name, "this protocol")
            reason = reason.replace(example(family), "NETWORK")
            row.append(answer.verdict + (f" ({reasons.setdefault(reason, len(reasons) + 1)})" if reason else ""))
        rows.append(row)
    table = tabulate(rows, ("protocol", *FAMILIES), tablefmt="github", disable_numparse=True)
    return "\n".join([table, "", *(f"{number}. {reason}" for reason, number in reasons.items())])


def facts(protocol: Protocol) -> str:
    """Return what `pixbench protocols show` prints of a frozen protocol: data, settings, published numbers."""
    about = [(name, text.replace("|", "\\|")) for name, text in protocol_facts.facts(protocol)]
    rows = [(f"`{key}`", *values, text.replace("|", "\\|")) for key, *values, text in protocol_facts.settings(protocol)]
    tables = ((about, ("", "")), (rows, protocol_facts.HEADERS))
    return "\n\n".join(tabulate(body, heads, tablefmt="github", disable_numparse=True) for body, heads in tables)


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


def frozen() -> str:
    """Return the time of the frozen protocols on one data set as `python -m benchmarks.speed.frozen` stored it."""
    return frozen_page.page(json.loads((DOCS / "frozen.json").read_text(encoding="utf-8")))


def report() -> str:
    """Return the time of reports as `python -m benchmarks.speed.report` stored it; there is nothing to show before."""
    file = DOCS / "report.json"
    return report_page.page(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else "*Not measured yet.*"


def gpu_day() -> str:
    """Return the figures of `docs/gpu_day.json`, steps of a report of `scripts/gpu_day.sh`."""
    stored = json.loads((DOCS / "gpu_day.json").read_text(encoding="utf-8"))
    about = f"{stored['machine']['on']}, PyTorch {stored['machine']['torch']}, {stored['machine']['date'][:10]}"
    return f"{gpu_day_report.figures(stored['steps'])}\n\n*{about}*"


def _score_at() -> dict[str, Any]:
    return dict(json.loads((DOCS / "score_at.json").read_text(encoding="utf-8")))


def _of_data(heading: str, rows: list[tuple[str, dict[str, float]]], digits: int) -> str:
    names = {"voc12aug": "VOC12aug", "ade20k": "ADE20K", "cityscapes": "Cityscapes"}
    body = [(name, *(f"{values[data]:.{digits}f}" for data in names)) for name, values in rows]
    return tabulate(body, (heading, *names.values()), tablefmt="github", disable_numparse=True)


def steps() -> str:
    """Return the steps from the public in-context code to the paper's definition, as `scripts/score_at.py` stored them."""
    found = _score_at()["steps"]
    names = list(next(iter(found.values())))
    return _of_data("step", [(name, {data: found[data][name] for data in found}) for name in names], 2)


def score_at() -> str:
    """Return in-context numbers by the resolution of scores, as `scripts/score_at.py` stored them."""
    stored = _score_at()
    titles = {"full": "full size", "input": f"input ({stored['size']} pixels)"}
    rows = []
    for kind, prefix in (("retrieved", ""), ("own", "*patches that know their own labels:* ")):
        found = stored[kind]
        sizes = list(next(iter(found.values())))
        rows += [
            (prefix + titles.get(size, f"{size} pixels"), {data: found[data][size] for data in found}) for size in sizes
        ]
    return _of_data("scored at", rows, 2)


def statistics(name: str) -> str:
    """Return an example of statistics from the results that `python -m benchmarks.tables.examples` stored."""
    return examples.page(json.loads((DOCS / "statistics.json").read_text(encoding="utf-8")), name)


def zoo() -> str:
    """Return the backbones of the zoo, each with a link to its card."""
    rows = [(f"[{name}](../zoo/{name}/README.md)", *rest) for name, *rest in map(card.row, entries())]
    return tabulate(rows, card.HEADS, tablefmt="github", disable_numparse=True) if rows else "*The zoo is empty.*"


@cache
def study() -> Page:
    """Return what is made from the results of the study."""
    return Page()


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "formats": ("weights.md", listing),
    "protocols": ("protocols/README.md", protocols),
    "families": ("protocols/README.md", families),
    "settings": ("methods/README.md", settings),
    "speed": ("speed.md", speed),
    "zoo": ("zoo.md", zoo),
    "gpu_day": ("gpu_day.md", gpu_day),
    "memory": ("frozen.md", memory),
    "search": ("frozen.md", search),
    "frozen": ("frozen.md", frozen),
    "report": ("report.md", report),
    "steps": ("protocols/voc12aug_incontext.md", steps),
    "score_at": ("protocols/voc12aug_incontext.md", score_at),
    "findings": ("../README.md", lambda: study().first_screen()),
    "study: findings": ("study.md", lambda: study().findings()),
    "study: results": ("study.md", lambda: study().results()),
    "study: tests": ("study.md", lambda: study().tested()),
    "study: collapse": ("study.md", lambda: study().curves()),
    "study: hours": ("study.md", lambda: study().hours()),
    "study: ranks": ("study.md", lambda: study().ranks()),
    "study: ablations": ("study.md", lambda: study().ablations()),
    "study: longer": ("study.md", lambda: study().longer()),
    "study: search": ("study.md", lambda: study().search()),
    **{f"example of {name}": ("statistics.md", partial(statistics, name)) for name in examples.EXAMPLES},
    **{
        f"facts of {protocol.name}": (f"protocols/{protocol.name}.md", partial(facts, protocol))
        for protocol in all_protocols().values()
        if protocol.framework == "frozen"
    },
}


def updated(name: str, text: str, table: str) -> str:
    """Return ``text`` with ``table`` between the markers of ``name``."""
    begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"the page of {name} must hold the lines {begin} and {end} once each")
    head, rest = text.split(begin)
    return f"{head}{begin}\n\n{table.strip()}\n\n{end}{rest.split(end)[1]}"


def whole_files() -> Iterator[tuple[Path, bytes]]:
    """Yield the files that are generated as a whole, with their content: schema, cards of the zoo, the figure of the study."""
    yield RESULT_JSON_SCHEMA, schema.text().encode()
    found = measured(STUDY)
    for entry in entries():
        yield entry.folder / CARD, card.card(entry, found).encode()
    with tempfile.TemporaryDirectory() as folder:
        study().write_figure(picture := Path(folder) / FIGURE)
        if picture.exists():
            yield DOCS / FIGURE, picture.read_bytes()


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
    for path, content in whole_files():
        if not path.is_file() or path.read_bytes() != content:
            stale.append(path.name if path.name != CARD else f"{path.parent.name}/{path.name}")
            if not check:
                path.write_bytes(content)
    print(f"{'out of date' if check else 'written'}: {', '.join(stale)}" if stale else "all tables are up to date")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(run_command(main, name="generate_docs.py"))
