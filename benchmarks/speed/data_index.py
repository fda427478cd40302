"""Measure how long it takes to index and open very many images, and the memory of the processes that share them.

    python -m benchmarks.speed.data_index [--images 10000000] [--processes 2] [--workers 8] [--json FILE]

Only names are needed: a list with labels is generated, an index is made of it by `pixbench data index`, and processes open it as
training does: check it, permute an epoch, fork workers, and read names and labels all over it. The memory is the proportional
share (PSS) of all processes together: what several share counts once. The same with few images is what Python and PyTorch take.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.commands import PIXBENCH
from benchmarks.speed import options
from pixbench.files import write_json

FEW = 1000
READ = 200_000
"""Number of names and labels that each worker reads, spread over all."""


def write_names(path: Path, images: int) -> None:
    """Write a list of so many names as ImageNet-22k's, with labels."""
    with open(path, "w", encoding="ascii") as stream:
        for first in range(0, images, 100_000):
            numbers = range(first, min(first + 100_000, images))
            stream.write("".join(f"n{k % 21841:08}/n{k % 21841:08}_{k}.JPEG {k % 21841}\n" for k in numbers))
    folder = path.parent / "n00000000"  # one of them must be there
    folder.mkdir(exist_ok=True)
    (folder / "n00000000_0.JPEG").touch()


def pss(process: int) -> int:
    """Return the proportional share of a process in the memory, in bytes."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    (kilobytes,) = re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return int(kilobytes) * 1024


def open_and_hold(index: str, workers: int) -> None:
    """Open the index as training does, print the seconds, and hold it with all workers until the input ends."""
    from pretrain.data.order import EpochOrder
    from pretrain.methods import METHODS
    from pretrain.resume import list_images
    from pretrain.settings import DataConfig, MethodConfig, RunConfig

    start = time.perf_counter()
    config = RunConfig(MethodConfig("pixpro", METHODS["pixpro"].Config()), DataConfig(root=index, pixel_range=(0, 1)))
    _, source, _ = list_images(config, None)
    opened = time.perf_counter() - start
    numbers = EpochOrder.of(source.index, 0).numbers(0, 0)
    permuted = time.perf_counter() - start - opened
    ready = multiprocessing.get_context("fork").Semaphore(0)
    done = multiprocessing.get_context("fork").Event()

    def work(number: int) -> None:
        for index in range(number, len(source), max(1, len(source) // READ)):
            source.names[index], source.label(index)
        ready.release()
        done.wait()

    forked = [multiprocessing.get_context("fork").Process(target=work, args=(number,)) for number in range(workers)]
    for process in forked:
        process.start()
    for _ in forked:
        ready.acquire()
    print(json.dumps({"open_s": opened, "permute_s": permuted, "children": [p.pid for p in forked]}), flush=True)
    sys.stdin.read()
    done.set()
    assert len(numbers) == len(source)


def measure(images: int, processes: int, workers: int, folder: Path) -> dict[str, Any]:
    """Generate, index and open ``images`` names; return seconds and bytes."""
    names, index = folder / "names.txt", folder / "names.index"
    write_names(names, images)
    start = time.perf_counter()
    command = [sys.executable, *PIXBENCH[1:], "data", "index", "--root", str(names), "--out", str(index)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    made = time.perf_counter() - start
    call = [sys.executable, "-m", "benchmarks.speed.data_index", "--hold", str(index), "--workers", str(workers)]
    held = [subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    said = list(_answers(held))
    memory = sum(
        pss(pid) for process, answer in zip(held, said, strict=True) for pid in (process.pid, *answer["children"])
    )
    for process in held:
        process.communicate()
    first_list = _seconds_of_list(index, folder)
    return {
        "images": images,
        "index_s": made,
        "open_s": max(answer["open_s"] for answer in said),
        "permute_s": max(answer["permute_s"] for answer in said),
        "images_txt_s": first_list,
        "index_bytes": index.stat().st_size,
        "pss_bytes": memory,
    }


def _answers(held: list[subprocess.Popen[str]]) -> Iterator[dict[str, Any]]:
    for process in held:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())


def _seconds_of_list(index: Path, folder: Path) -> list[float]:
    """Return the seconds for writing the list of a run, and for checking it when the run goes on."""
    from pretrain.data.image_list import is_list_of, write_list
    from pretrain.data.sources import open_source

    source = open_source(index)
    start = time.perf_counter()
    write_list(folder / "images.txt", source)
    written = time.perf_counter() - start
    if not is_list_of(folder / "images.txt", source.index.lines):
        raise AssertionError("the list is not that of the index")
    return [written, time.perf_counter() - start - written]


def main() -> None:
    """Measure few and many images, and print the table."""
    parser = options.parser("data_index", __doc__)
    parser.add_argument("--images", type=options.positive, default=10_000_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=2, help="training processes of the machine")
    parser.add_argument("--workers", type=int, default=8, help="data workers of each of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.hold:
        open_and_hold(args.hold, args.workers)
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for images in (FEW, args.images):
            found.append(measure(images, args.processes, args.workers, Path(folder)))
    more = (found[1]["pss_bytes"] - found[0]["pss_bytes"]) / 2**20
    rows = [
        [f"{of['images']:,}", *(f"{of[key]:.1f}" for key in ("index_s", "open_s", "permute_s"))]
        + [f"{seconds:.1f}" for seconds in of["images_txt_s"]]
        + [f"{of[key] / 2**20:.0f}" for key in ("index_bytes", "pss_bytes")]
        for of in found
    ]
    headers = ("images", "index s", "open s", "permute s", "write list s", "check list s", "index MiB", "memory MiB")
    print(tabulate(rows, headers, disable_numparse=True))
    print(f"{args.processes} processes with {args.workers} workers each: {more:.0f} MiB for the images")
    if args.json:
        write_json(
            args.json,
            {
                "runs": found,
                "images_mib": round(more, 1),
                "cores": len(os.sched_getaffinity(0)),
                "numpy": np.__version__,
            },
        )


if __name__ == "__main__":
    main()
