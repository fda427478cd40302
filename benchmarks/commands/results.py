"""`pixbench results`: list, show, search, check, export, import, merge and upgrade the results of runs (docs/results.md)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixbench.errors import UserError, say

if TYPE_CHECKING:
    from benchmarks.results.reading import Found, Results


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("results", help="list, search, check, export, import and merge results of runs")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, about: str, run: Any, runs: str | None = "+") -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=about, description=about)
        if runs:
            added.add_argument("runs", type=Path, nargs=runs, metavar="RUNS", help="folders with results, at any depth")
        added.set_defaults(run=run)
        return added

    listing = action("list", "list all results in folders", _list)
    query = action("query", "list the results that fulfil conditions", _list, runs=None)
    query.add_argument("query", metavar="QUERY", help="such as 'method=pixpro and protocol~voc and AP>50'")
    query.add_argument("runs", type=Path, nargs="*", metavar="RUNS", default=[Path()], help="folders (default: here)")
    for parser in (listing, query):
        parser.add_argument("--json", action="store_true", help="print a JSON line for each result")
    show = action("show", "show one result", _show, runs=None)
    show.add_argument("result", type=Path, metavar="RUN", help="run folder, or its result.json")
    verify = action("verify", "compute metrics again from what is stored, and compare them with the results", _verify)
    verify.add_argument("--where", metavar="QUERY", help="only the results that fulfil these conditions")
    export = action("export", "write a table with a line for each metric of each result", _export)
    export.add_argument("--parquet", type=Path, metavar="FILE", help="Parquet file (needs the extra: parquet)")
    export.add_argument("--csv", type=Path, metavar="FILE", help="CSV file")
    export.add_argument("--where", metavar="QUERY", help="only the results that fulfil these conditions")
    imported = action("import", "import the result of a run that was made elsewhere", _import, runs=None)
    imported.add_argument(
        "log", type=Path, help="Detectron2's metrics.json, or a log of MMSegmentation (.log or .json)"
    )
    imported.add_argument("--protocol", required=True, help="the protocol that the run followed")
    imported.add_argument("--label", required=True, help="name of the table row")
    imported.add_argument("--out", type=Path, required=True, help="new folder for the result")
    imported.add_argument("--seed", type=int, help="seed of the run (default: not known)")
    imported.add_argument("--scale", choices=("paper", "mini"), default="paper", help="default: paper")
    merge = action("merge", "copy results and what belongs to them from other folders", _merge)
    merge.add_argument("--into", type=Path, required=True, help="folder that gets them, at the same places below it")
    action("upgrade", "rewrite results of an older PixBench, in place, marked as such", _upgrade)


def _list(args: argparse.Namespace) -> None:
    results = _read(args.runs, getattr(args, "query", None))
    if args.json:
        for item in results.found:
            print(json.dumps({"path": str(item.path), **item.result}))
        return
    from tabulate import tabulate

    from benchmarks.results.rows import HEADS, row

    print(tabulate([row(item) for item in results.found], HEADS, tablefmt="simple", disable_numparse=True))
    print(f"\n{len(results.found)} result{'s' * (len(results.found) != 1)}")
    _say_left_out(results)


def _show(args: argparse.Namespace) -> None:
    from benchmarks.results.rows import description
    from pixbench.file_versions import RESULT_FILE
    from pixbench.results import read_result

    path = args.result / RESULT_FILE if args.result.is_dir() else args.result
    if not path.exists():
        raise UserError(
            f"there is no result {path}; `pixbench results list {args.result}` shows those of all folders below"
        )
    print(description(path, read_result(path)))


def _verify(args: argparse.Namespace) -> int:
    from benchmarks.results.verify import verify

    results, bad, silent, matches = _read(args.runs, args.where, heavy=True), 0, 0, False
    for path, result in results.found:
        checks = [*verify(path, result)] if result["status"] == "ok" else []
        wrong = [check for check in checks if not check.fits]
        bad += bool(wrong)
        again = {check.what for check in checks} & set(result.get("metrics") or {})
        silent += not again
        matches |= any("right" in about["arrays"] for about in (result.get("per_image") or {}).values())
        left = [name for name in result.get("metrics") or {} if name not in again]
        state = "DIFFERS" if wrong else "ok" if again else "nothing to compute again"
        more = f"; not computed again: {', '.join(left)}" if left and again else ""
        say(f"{path}: {state}{' (' + ', '.join(sorted(again)) + ')' if again else ''}{more}")
        for check in wrong:
            say(f"  {check.what}: {check.recorded} is recorded, but it is {check.again}")
    _say_left_out(results)
    if matches:
        print(
            "AP: from which detections the run found right; boxes and objects are not stored, so that is not checked again"
        )
    edited = sum(file.problem in ("edited", "damaged") for file in results.left_out)
    print(f"{len(results.found)} results: {bad} differ, {silent} with nothing to compute again")
    return int(bool(bad or edited))


def _export(args: argparse.Namespace) -> None:
    from benchmarks.results.rows import write_csv, write_parquet

    if not args.parquet and not args.csv:
        raise UserError("nothing to write; give --csv FILE or --parquet FILE")
    results = _read(args.runs, args.where)
    for path, write in ((args.csv, write_csv), (args.parquet, write_parquet)):
        if path:
            print(f"{write(results.found, path)} lines written to {path}")
    _say_left_out(results)


def _import(args: argparse.Namespace) -> None:
    from benchmarks.results.foreign import imported
    from pixbench.results import read_result
    from transfer.protocols import find_protocol

    protocol = find_protocol(args.protocol)
    path = imported(args.log, protocol, args.out, args.label, args.seed, args.scale)
    metrics = read_result(path)["metrics"]
    say(f"{path}: {', '.join(f'{name} {protocol.written(name, value)}' for name, value in metrics.items())}")


def _merge(args: argparse.Namespace) -> int:
    from benchmarks.results.merge import merge

    done = merge(args.runs, args.into)
    for line in done.refused:
        say(f"left out: {line}")
    print(f"{len(done.copied)} copied to {args.into}, {len(done.same)} were there, {len(done.refused)} left out")
    return int(bool(done.refused))


def _upgrade(args: argparse.Namespace) -> None:
    from benchmarks.results.merge import upgrade
    from benchmarks.results.reading import Results

    done, left = upgrade(args.runs)
    for path in done:
        say(f"{path}: upgraded")
    _say_left_out(Results([], left), summary=False)
    print(f"{len(done)} upgraded, {len(left)} left out")


def _read(folders: list[Path], query: str | None, heavy: bool = False) -> Results:
    """Return the results below ``folders`` that fulfil ``query``; raise `UserError` if there is no file at all."""
    from benchmarks.results import query as queries
    from benchmarks.results.reading import Results, check_folders, read_all

    check_folders(folders)
    results = read_all(folders, heavy=heavy or bool(query and queries.heavy(query)))
    if not results.found and not results.left_out:
        raise UserError(f"there is no result below {', '.join(map(str, folders))}; give folders of runs")
    found: list[Found] = queries.chosen(results.found, query) if query else results.found
    return Results(found, results.left_out)


def _say_left_out(results: Results, summary: bool = True) -> None:
    for file in results.left_out:
        say(f"left out: {file.path} {file.reason}")
    if summary and results.left_out:
        print(results.summary())
