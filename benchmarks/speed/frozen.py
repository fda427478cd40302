"""Measure how long all frozen protocols on one data set take for one backbone, and how much memory.

    python -m benchmarks.speed.frozen [--images 30000] [--protocols NAME ...] [--into FILE]

A mini world is made, a quarter-width backbone is pre-trained for a step, and `pixbench probe` runs the protocols with one
extraction of features. Printed are the seconds of each, in their order, so the first one with images of a kind pays for their
extraction; the time of the whole command; and the largest memory of one of its processes. Stored in docs/frozen.json, they are
the table in docs/frozen.md. Run it while nothing else runs; it takes ten minutes, most of them for the world.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from benchmarks.commands import PIXBENCH
from pixbench.file_versions import CHECKPOINT_FILE, RESULT_FILE
from pixbench.files import write_json
from pixbench.paths import CONFIGS
from pixbench.results import read_result
from transfer.protocols import protocols

DATASETS = ("VOC2012aug", "VOC2012")


def measured(images: int, names: list[str], work: Path) -> dict[str, Any]:
    """Return the figures of the protocols ``names`` on a mini world of ``images`` in ``work``, an empty folder."""
    world, run, out = work / "world", work / "pretrain", work / "probe"
    _run("data", "mini", "--world", "shapes", "--root", world, "--seed", 1, "--images", images)
    configs = [f"--config={CONFIGS / 'pretrain' / name}" for name in ("pixpro_100ep.yaml", "mini.yaml")]
    few = ("--data.limit=32", "--batch_size=32", "--epochs=1", "--data.workers=0")
    _run("pretrain", *configs, *few, f"--data.root={world / 'imagenet'}", f"--out={run}")
    start = time.perf_counter()
    options = ("--scale", "mini", "--data-root", world, "--out", out, "--protocols", *names)
    _run("probe", run / CHECKPOINT_FILE, *options)
    seconds = time.perf_counter() - start
    results = [read_result(out / name / RESULT_FILE) for name in names]
    return {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": results[0]["host"]["device"],
        "seconds": seconds,
        "bytes": 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
        "protocols": [
            {
                "name": result["protocol"],
                "seconds": result["wall_time_s"],
                "pictures": {key.split()[0]: count for key, count in result["evaluation"]["pictures"].items()},
            }
            for result in results
        ],
    }


def _run(*words: object) -> None:
    subprocess.run([*PIXBENCH, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def page(stored: dict[str, Any]) -> str:
    """Return the table of figures that `main` stored."""
    rows = [
        (f"`{one['name']}`", " + ".join(f"{count:,}" for count in one["pictures"].values()), f"{one['seconds']:.0f}")
        for one in stored["protocols"]
    ]
    table = tabulate(rows, ("protocol, in this order", "pictures", "seconds"), tablefmt="github", disable_numparse=True)
    whole = f"{stored['seconds'] // 60:.0f} min {stored['seconds'] % 60:.0f} s"
    return (
        f"{table}\n\n*The whole command: {whole}, {stored['bytes'] / 2**30:.1f} GiB. Measured on {stored['date']} with PyTorch "
        f"{stored['torch']} on {stored['device']}, {stored['threads']} threads.*"
    )


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, default=30000, help="images of the world: 2,000 pictures of VOC have masks"
    )
    here = [name for name, p in protocols().items() if p.framework == "frozen" and p.datasets[0] in DATASETS]
    parser.add_argument("--protocols", nargs="+", default=here)
    parser.add_argument("--into", type=Path, metavar="FILE", help="also write the figures to FILE, in JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        stored = measured(args.images, args.protocols, Path(work))
    print(page(stored))
    if args.into:
        write_json(args.into, stored)


if __name__ == "__main__":
    main()
