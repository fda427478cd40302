"""The examples of docs/statistics.md, made from results that are stored in docs/statistics.json.

pixbench suite configs/suites/seeds.yaml --out seeds
python -m benchmarks.tables.examples seeds --into docs/statistics.json
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from benchmarks.statistics.intervals import independent, t_factor
from benchmarks.tables import compared
from benchmarks.tables.ablation import ablation
from benchmarks.tables.agreement import agreement_document
from benchmarks.tables.beside import beside
from benchmarks.tables.collected import Entry, Group, Task
from benchmarks.tables.formats.markdown import grid
from benchmarks.tables.options import Options
from benchmarks.tables.pretraining import joined
from benchmarks.tables.table import Document
from pixbench.file_versions import RESULT_FILE
from pixbench.files import write_json
from pixbench.results import read_result

KEPT = "kind protocol scale seed label deviations".split()
TUNED = "cityscapes_fcn16s"
ROW, BASELINE, METRIC = "pixpro", "simclr", "mIoU"
ORDER = "random", BASELINE, ROW


def stored(folder: Path) -> dict[str, Any]:
    """Return what the examples need of a suite's results."""
    results = []
    for path in sorted((folder / "runs").rglob(RESULT_FILE)):
        if (run := read_result(path))["status"] != "ok":
            continue
        about = {"metrics": {METRIC: run["metrics"][METRIC]}, "pretrained": run["weights"] is not None}
        results.append({key: run[key] for key in KEPT} | about)
    configs = {}
    for path in sorted((folder / "pretrain").glob("*/config.yaml")):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        del config["out"], config["data"]["root"]  # places on the machine of the suite
        configs[path.parent.name] = config
    return {"results": results, "pretraining": configs}


@contextmanager
def groups_of(content: dict[str, Any]) -> Iterator[list[Group]]:
    """Yield the groups of the stored results; the folders of their pre-training runs exist meanwhile."""
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        for label, config in content["pretraining"].items():
            (root / label).mkdir()
            (root / label / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        groups: dict[str, Group] = {}
        for run in content["results"]:
            path = {"path": str(root / run["label"] / "checkpoint.pth")}
            group = groups.setdefault(run["kind"], Group(run["scale"], run["kind"]))
            entry = group.rows.setdefault(run["label"], {}).setdefault(Task(run["protocol"]), Entry())
            entry.runs.append({**run, "weights": run["pretrained"] and path})
        yield [*groups.values()]


def numbers(groups: Sequence[Group]) -> str:
    """Return the numbers of one row, what they are averaged to, and the interval."""
    group = joined(_tuned(groups))
    (task,) = group.rows[ROW]
    samples = group.rows[ROW][task].samples(METRIC)
    means = ", ".join(task.about.written(METRIC, value) for value in independent(samples).values())
    (record,) = (r for r in compared([group], (), Options()).records if r["label"] == ROW and r["metric"] == METRIC)
    low, high, mean, std = (task.about.written(METRIC, record[key]) for key in ("low", "high", "mean", "std"))
    rows = [
        (f"the n = {record['n']} pre-training runs", means),
        ("mean ± standard deviation of these", f"{mean} ± {std}"),
        (f"95 % interval: ± {t_factor(record['n']):.2f} standard errors", f"{low} to {high}"),
    ]
    return tabulate(rows, (f"{ROW}, {task.protocol} {METRIC}", "value"), tablefmt="github", disable_numparse=True)


def comparison(groups: Sequence[Group]) -> str:
    """Return the table of all rows over their seeds."""
    return _first(compared([joined(group) for group in beside(groups)], (), Options(ORDER, BASELINE), beside=True))


def tests(groups: Sequence[Group]) -> str:
    """Return what stands behind the marks."""
    records = compared([joined(_tuned(groups))], (), Options(baseline=BASELINE)).records
    rows = [
        (
            record["label"],
            f"{record['difference']:+.2f} [{record['difference_low']:.2f}, {record['difference_high']:.2f}]",
            *(
                record["test"],
                f"{record['p']:.3f}",
                f"{record['p_holm']:.3f}",
                f"{record['effect']:.2f}",
                record["mark"],
            ),
        )
        if record["p"] is not None
        else (record["label"], f"{record['difference']:+.2f}", "–", "–", "–", "–", record["mark"])
        for record in records
        if record["metric"] == METRIC and record["label"] != BASELINE
    ]
    heads = (f"row, {TUNED}", f"difference from {BASELINE}", "test", "p", "p, Holm", "effect", "mark")
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


def ablated(groups: Sequence[Group]) -> str:
    """Return the ablation over γ."""
    both = beside(groups)
    rows = [label for label in both[0].rows if label.startswith(ROW)]
    options = Options(baseline="method.gamma 2")
    return _first(compared([ablation(group, ["method.gamma"], rows) for group in both], (), options, beside=True))


def agreement(groups: Sequence[Group]) -> str:
    """Return Kendall's τ of both protocols, each pre-training run being a row."""
    return _first(agreement_document(beside(groups)[0]))


EXAMPLES: dict[str, Callable[[Sequence[Group]], str]] = {
    "numbers": numbers,
    "comparison": comparison,
    "tests": tests,
    "ablation": ablated,
    "agreement": agreement,
}


def page(content: dict[str, Any], name: str) -> str:
    """Return the example ``name`` of docs/statistics.md."""
    with groups_of(content) as groups:
        return EXAMPLES[name](groups)


def _tuned(groups: Sequence[Group]) -> Group:
    return next(group for group in groups if group.kind == "transfer")


def _first(document: Document) -> str:
    return grid(document.tables[0])


def main() -> None:
    """Store the results of a suite."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suite", type=Path, help="output folder of the suite")
    parser.add_argument("--into", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    write_json(args.into, stored(args.suite))


if __name__ == "__main__":
    main()
