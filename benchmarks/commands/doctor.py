"""`pixbench doctor`: report which packages work, which data sets are there, and what to do about the others.

With --config it also reports what a pre-training run needs of a machine, and compares it with this one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import chain
from pathlib import Path

from packaging.specifiers import SpecifierSet

from benchmarks import nvidia
from benchmarks.commands import DATA_ROOT
from pixbench.errors import UserError

INSTALL = "run scripts/install.sh (make install)"


@dataclass(frozen=True)
class Package:
    """A required package, with a test that it works."""

    label: str
    names: tuple[str, ...]
    """Names of distributions that provide it; any one of them is enough."""
    probe: str
    """Statements that load and use its compiled parts; it works if they raise nothing. Their output is hidden."""


PACKAGES = (
    Package("torch", ("torch",), "import torch; (torch.ones(2, 2) @ torch.ones(2, 2)).sum().item()"),
    Package(
        "torchvision",
        ("torchvision",),
        "import torch, torchvision.ops; torchvision.ops.nms(torch.tensor([[0., 0., 1., 1.]]), torch.ones(1), 0.5)",
    ),
    Package("mmengine", ("mmengine", "onedl-mmengine"), "import mmengine.runner"),
    Package(
        "mmcv with ops",
        ("mmcv", "onedl-mmcv"),
        "import torch, mmcv.ops; mmcv.ops.nms(torch.tensor([[0., 0., 1., 1.]]), torch.ones(1), 0.5)",
    ),
    Package("mmsegmentation", ("mmsegmentation", "onedl-mmsegmentation"), "import mmseg.models"),
    Package("mmdetection", ("mmdet", "onedl-mmdetection"), "import mmdet.models"),
    Package("detectron2", ("detectron2", "sal-detectron2"), "import detectron2.engine, detectron2.model_zoo"),
    Package(
        "pycocotools",
        ("pycocotools",),
        "import numpy; from pycocotools import mask; mask.encode(numpy.ones((2, 2), 'uint8', order='F'))",
    ),
    Package(
        "cityscapesscripts",
        ("cityscapesscripts",),
        "from cityscapesscripts.preparation.json2labelImg import json2labelImg",
    ),
)

# Runs in a separate process: a broken compiled module may crash it, and a new process then continues after that module.
PROBER = """
import contextlib, io, json, sys, warnings
warnings.simplefilter("ignore")
for position, statements in json.load(sys.stdin):
    print(json.dumps([position, None]), flush=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(statements, {})
        problem = ""
    except BaseException as error:
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
    print(json.dumps([position, problem]), flush=True)
"""
CUDA = "import torch; raise SystemExit(str(torch.version.cuda))"
GPUS = """
import torch
if not torch.cuda.is_available():
    raise SystemExit("no GPU")
raise SystemExit(", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))
"""


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("doctor", help="report what is installed, what is missing and what to do about it")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help=DATA_ROOT)
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="pre-training config, as for pixbench pretrain: compare what its run needs with this machine",
    )
    parser.add_argument(
        "--gpus", type=int, metavar="N", help="with --config: GPUs of the run (default: all that are here)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; return 1 if a package, a data set below --data-root or something for --config is not as needed."""
    if args.gpus is not None and not (args.config and args.gpus > 0):
        raise UserError(f"--gpus {args.gpus} is the number of GPUs of a run; give its --config too, and at least 1 GPU")
    fine = True
    everything = examine(args.data_root, every_data_set=not args.config)
    for state, what, advice in chain(everything, of_run(args.config, args.data_root, args.gpus)):
        fine = fine and state not in ("MISSING", "BROKEN", "SHORT")
        print(f"{state:<8} {what}" + (f"\n         -> {advice}" if advice else ""), flush=True)
    print("\nEverything needed is there." if fine else "\nSomething needed is missing: see the arrows above.")
    return 0 if fine else 1


def of_run(configs: Sequence[str], data_root: Path | None, gpus: int | None) -> Iterator[tuple[str, str, str]]:
    """Yield (state, what, advice) of what a run of ``configs`` needs; besides the states of `examine`, SHORT is too little."""
    if not configs:
        return
    import torch

    from benchmarks.needs import needs
    from pretrain.config import parse

    config = parse([word for path in configs for word in ("--config", path)])
    if data_root and not config.data.root:
        if (root := data_root / "imagenet").is_dir():
            config = replace(config, data=replace(config.data, root=str(root)))
        else:
            yield "MISSING", f"images: there is no folder {root}", "correct --data-root, or put the images there"
    yield from needs(config, gpus or max(1, torch.cuda.device_count()))


def examine(data_root: Path | None, every_data_set: bool = True) -> Iterator[tuple[str, str, str]]:
    """Yield (state, what, advice) of each item; state is ok, MISSING, BROKEN, absent (not needed) or "" (a remark)."""
    wanted = supported_pythons()
    good = SpecifierSet(wanted).contains(platform.python_version(), prereleases=True)
    advice = "" if good else f"PixBench needs Python {wanted}: PYTHON=python3.11 scripts/install.sh"
    yield ("ok" if good else "BROKEN", f"Python {platform.python_version()} ({sys.executable})", advice)
    problems = probe([*(package.probe for package in PACKAGES), GPUS])
    gpus = problems.pop()
    for package, problem in zip(PACKAGES, problems, strict=True):
        yield judge(package, version(package.names), problem)
    found = {name: version((name,)) for name in other_requirements()}
    there = ", ".join(f"{name} {number.split()[-1]}" for name, number in found.items() if number)
    lacking = [name for name, number in found.items() if not number]
    if there:
        yield "ok", there, ""
    if lacking:
        yield "MISSING", ", ".join(lacking), INSTALL
    yield "", machine(data_root, gpus), ""
    yield from driver(works="no GPU" not in gpus)
    if every_data_set:
        yield from datasets(data_root)


def driver(works: bool) -> Iterator[tuple[str, str, str]]:
    """Yield (state, what, advice) if there are GPUs that the installed PyTorch cannot use; ``works``: whether it finds one."""
    if works or nvidia.hidden() or not (found := nvidia.nvidia_smi("driver_version")):
        return
    yield "BROKEN", *nvidia.problem(probe([CUDA])[0].removeprefix("SystemExit: "), found[0].strip())


def supported_pythons() -> str:
    """Return the versions of Python that the installed PixBench declares, such as ">=3.10"; empty if it is not installed."""
    try:
        return metadata.metadata("pixbench")["Requires-Python"]
    except metadata.PackageNotFoundError:
        return ""


def judge(package: Package, installed: str | None, problem: str) -> tuple[str, str, str]:
    """Return (state, what, advice) of a package from its installed version and the problem that its test found."""
    if not problem:
        return "ok", f"{package.label:<18} {installed or 'version unknown'}", ""
    if installed is None:
        return "MISSING", package.label, INSTALL
    rebuild = "its compiled parts may belong to another torch: " if "mmcv" in package.label else ""
    return "BROKEN", f"{package.label:<18} {installed}: {problem}", f"{rebuild}remove the environment, then {INSTALL}"


def other_requirements() -> list[str]:
    """Return the declared requirements of PixBench other than `PACKAGES`; "pixbench" if it is not installed."""
    try:
        lines = metadata.requires("pixbench") or []
    except metadata.PackageNotFoundError:
        return ["pixbench"]
    names = [re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line]
    return [name for name in names if not any(name in package.names for package in PACKAGES)]


def version(names: tuple[str, ...]) -> str | None:
    """Return name and version of the first of ``names`` that is installed, or None."""
    for name in names:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return None


def probe(probes: list[str]) -> list[str]:
    """Run each of the ``probes`` and return its problem, or "" if it ran. A crash does not affect the other probes."""
    problems = ["not tried"] * len(probes)
    waiting = list(enumerate(probes))
    while waiting:
        child = subprocess.run(
            [sys.executable, "-c", PROBER], input=json.dumps(waiting), capture_output=True, text=True, check=False
        )
        current = waiting[0][0]
        for line in child.stdout.splitlines():
            current, problem = json.loads(line)
            problems[current] = f"crashed Python (exit code {child.returncode})" if problem is None else problem
        waiting = [entry for entry in waiting if entry[0] > current]
    return problems


def machine(data_root: Path | None, gpus: str) -> str:
    """Return one line on cores, memory, GPUs and free disk space."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    place = data_root if data_root and data_root.exists() else Path.cwd()
    free = shutil.disk_usage(place).free / 2**30
    gpus = gpus.removeprefix("SystemExit: ") if gpus.startswith("SystemExit") else "GPUs unknown"
    return f"{len(os.sched_getaffinity(0))} CPU cores, {memory:.0f} GiB memory, {gpus}; {free:.0f} GiB free at {place}"


def datasets(data_root: Path | None) -> Iterator[tuple[str, str, str]]:
    """Yield (state, what, advice) of each data set below ``data_root``, or else below $DETECTRON2_DATASETS."""
    from transfer.datasets.layout import SETS, check_layout

    named = os.environ.get("DETECTRON2_DATASETS")
    root = data_root or (Path(named) if named else None)
    if root is None:
        yield (
            "",
            "data sets: not looked for",
            "give their folder with --data-root; pixbench data mini generates a mini world",
        )
        return
    bad = "MISSING" if data_root else "absent"  # needed only if --data-root is given
    for name in SETS:
        problems = check_layout(root, name)
        yield ("ok" if not problems else bad, f"{name} in {root}", "\n         -> ".join(problems[:3]))
