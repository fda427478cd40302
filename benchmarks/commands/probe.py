"""`pixbench probe`: evaluate one backbone, frozen, under all frozen protocols, with features that are computed once."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.commands import CLASSES, DATA_ROOT
from benchmarks.commands.transfer import add_cache_options, check_seed, like_of, parse_settings
from pixbench.errors import UserError, explain
from pixbench.file_versions import RESULT_FILE
from pixbench.lock import owned
from pixbench.results import read_result
from transfer.datasets.check import can_have_own_classes, check_own_classes
from transfer.datasets.classes import Classes, read_classes
from transfer.datasets.layout import home_of
from transfer.job import TransferJob
from transfer.protocols import SCALES, Protocol, find_protocol, leaves, protocols

FEATURES = ".features"
"""Folder of the features in the output folder, if the user names none."""


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("probe", help="evaluate a frozen backbone under all frozen protocols")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "weights", nargs="?", type=Path, metavar="CKPT", help="any file that `pixbench convert` reads or writes"
    )
    start.add_argument("--init", choices=["random"], help="evaluate a random backbone")
    parser.add_argument(
        "--like", type=Path, metavar="FILE", help="backbone whose network and pixels --init random takes"
    )
    parser.add_argument("--data-root", type=Path, required=True, metavar="DIR", help=DATA_ROOT)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the runs, one for each protocol; what is finished "
        "there is not repeated"
    )  # fmt: skip
    parser.add_argument(
        "--protocols", nargs="+", metavar="NAME", help="frozen protocols (default: all whose data is below the data root)"
    )  # fmt: skip
    parser.add_argument(
        "--scale",
        choices=SCALES,
        default="paper",
        help="paper: as published; mini: small enough for a CPU (default: paper)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the random backbone and of the methods (default: 0)"
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help=CLASSES)
    parser.add_argument("--label", help="name of the table row that these runs belong to")
    parser.add_argument(
        "--no-check", action="store_true", help="do not check data again that has not changed since it was checked"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[NAME:]KEY=VALUE",
        help="set a config key of all these protocols, e.g. images.size=448, or of those called NAME, which may have a * as in "
        "'*_knn:images.size=448'; may be repeated",
    )
    add_cache_options(parser)
    parser.set_defaults(run=probe, continues=lambda args: True)


def probe(args: argparse.Namespace) -> None:
    """Run the protocols one after another, and print their metrics in one table.

    What fails does not keep the others from running; its error ends the command. Under torchrun, the first failure ends the
    command, because the processes are no longer at the same place then; those that failed come last at the next start.
    """
    jobs = jobs_of(args)
    from pixbench.distributed import world_size
    from pixbench.patience import PROCESS_TIMEOUT_H
    from transfer.frozen.config import resolve
    from transfer.frozen.fair_random import uncalibrated
    from transfer.frozen.parallel import processes
    from transfer.run import run_transfer, start_of
    from transfer.run_folder import is_main

    start = start_of(jobs[0])
    spec = (start.backbone or uncalibrated(jobs[0])).spec
    for job in jobs:
        resolve(job, spec)
    failures: list[Exception] = []
    checked: set[str] = set()
    with processes(PROCESS_TIMEOUT_H), owned(args.out) if is_main() else nullcontext(), _cache(args, failures):
        for number, job in enumerate(jobs, 1):
            if is_main():
                print(f"[{number}/{len(jobs)}] {job.protocol.name}: {job.protocol.title}", flush=True)
            try:
                trust = args.no_check or checked.issuperset(job.protocol.datasets)
                run_transfer(job, args.label, trust, start)
                checked.update(job.protocol.datasets)
            except Exception as error:
                failures.append(error)
                if world_size() > 1:
                    raise
                print(f"{job.protocol.name} failed: {explain(error)}", flush=True)
    if is_main():
        print(_table(jobs))
    if failures:
        raise failures[0]


def jobs_of(args: argparse.Namespace) -> list[TransferJob]:
    """Return the jobs that the arguments describe, those that failed before last.

    Raises:
        UserError: an argument is wrong, for any of the protocols.
    """
    check_seed(args.seed)
    root, out = args.data_root.resolve(), args.out.resolve()
    names, classes = dict.fromkeys(args.protocols or ()), read_classes(args.classes) if args.classes else None
    chosen = [_frozen(name) for name in names] if names else _possible(root, classes)
    if names:
        _need_data(root, chosen)
    for protocol in chosen if classes else ():
        check_own_classes(protocol)
    settings = settings_of(args.set, chosen)
    jobs = [
        TransferJob(
            protocol,
            root,
            out / protocol.name,
            args.weights,
            args.scale,
            args.seed,
            settings[protocol.name],
            classes=classes,
            like=like_of(args),
            cache=args.cache.resolve() if args.cache else out / FEATURES,
            cache_gb=args.cache_gb,
            workers=args.workers,
        )
        for protocol in chosen
    ]
    return sorted(jobs, key=lambda job: _status(job.out) == "failed")


def settings_of(pairs: list[str], chosen: list[Protocol]) -> dict[str, dict[str, Any]]:
    """Return what ``pairs``, "KEY=VALUE" or "NAME:KEY=VALUE", set for each protocol. Those with a name win.

    Raises:
        UserError: a name fits no protocol, or a key without a name is no setting of some of them.
    """
    from transfer.published_config import published_config

    settings = [(*key.rpartition(":")[::2], value) for key, value in parse_settings(pairs).items()]
    known = {protocol.name: dict(leaves(published_config(protocol))) for protocol in chosen} if settings else {}
    found: dict[str, dict[str, Any]] = {protocol.name: {} for protocol in chosen}
    for pattern, key, value in sorted(settings, key=lambda setting: bool(setting[0])):
        wanted = [name for name in found if fnmatchcase(name, pattern or "*")]
        if not wanted:
            raise UserError(
                f"--set {pattern}:{key}: no protocol here is called {pattern} (there are: {', '.join(found)})"
            )
        have = [name for name in wanted if key in known[name]]
        if have and (lack := [name for name in wanted if name not in have]):
            raise UserError(
                f"--set {key}: {', '.join(lack)} {'have' if lack[1:] else 'has'} no such setting; set it for others alone, as in "
                f"--set {have[0]}:{key}=VALUE"
            )
        for name in wanted:
            found[name][key] = value
    return found


def _need_data(root: Path, chosen: list[Protocol]) -> None:
    """Raise UserError if the folder of a data set is missing."""
    homes = dict.fromkeys(home_of(root, name) for protocol in chosen for name in protocol.datasets)
    if missing := [str(home) for home in homes if not home.is_dir()]:
        raise UserError(
            f"the data of these protocols is not below {root}: there is no {', no '.join(missing)}; correct --data-root, or "
            f"generate a mini world there: pixbench data mini --root {root}"
        )


def _frozen(name: str) -> Protocol:
    protocol = find_protocol(name)
    if protocol.framework != "frozen":
        raise UserError(
            f"{name} is a protocol of {protocol.framework}, which runs alone: pixbench transfer {name}; `pixbench protocols` "
            "lists those of the framework frozen"
        )
    return protocol


def _possible(root: Path, classes: Classes | None) -> list[Protocol]:
    """Return the frozen protocols whose data is below ``root``, and print why the others are left out."""
    from transfer.run_folder import is_main

    frozen = [protocol for protocol in protocols().values() if protocol.framework == "frozen"]
    published = [protocol for protocol in frozen if classes and not can_have_own_classes(protocol)]
    frozen = [protocol for protocol in frozen if protocol not in published]
    absent = {p.name: [home for d in p.datasets if not (home := home_of(root, d)).is_dir()] for p in frozen}
    found = [protocol for protocol in frozen if not absent[protocol.name]]
    if not found:
        folders = dict.fromkeys(str(homes[0]) for homes in absent.values())
        raise UserError(
            f"no data set of a frozen protocol is below {root}: there is none of {', '.join(folders)}; correct --data-root, or "
            f"generate a mini world there: pixbench data mini --root {root}"
        )
    for protocol in published if is_main() else ():
        print(f"left out: {protocol.name}, because it cannot run on classes of your own", flush=True)
    for name, homes in absent.items() if is_main() else ():
        if homes:
            print(f"left out: {name}, because there is no folder {homes[0]}", flush=True)
    return found


@contextmanager
def _cache(args: argparse.Namespace, failures: list[Exception]) -> Iterator[None]:
    """Remove the features at the end, unless the user named their folder or the command has to be started again."""
    from transfer.run_folder import is_main

    yield
    folder = args.out / FEATURES
    if args.cache or not is_main() or not folder.exists():
        return
    if failures:
        print(f"{folder} keeps the features for the next start", flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _status(run: Path) -> str:
    path = run / RESULT_FILE
    return str(read_result(path, older=True)["status"]) if path.exists() else ""


def _table(jobs: list[TransferJob]) -> str:
    """Return one line for each metric of the protocols that are finished."""
    order = list(protocols())
    rows = []
    for job in sorted(jobs, key=lambda job: order.index(job.protocol.name)):
        if _status(job.out) != "ok":
            rows.append((job.protocol.name, "failed", ""))
            continue
        for name, value in read_result(job.out / RESULT_FILE, older=True)["metrics"].items():
            rows.append((job.protocol.name, name, job.protocol.written(name, value)))
    return "\n" + tabulate(
        rows, ("protocol", "metric", "value"), disable_numparse=True, colalign=("left", "left", "right")
    )
