"""Measure how many scenes a second the mini worlds draw and write, with the whole command.

    python -m benchmarks.speed.worlds [--images 600] [--rounds 3] [--workers 2]

The worlds take turns; the median counts. Figures are of the scenes beyond the smallest world, whose time has the start of the
processes and the textures of the everyday world in it. The processor time of a scene depends less on what else the machine
does than scenes/s. Nothing is written.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.miniworld.generate import LEAST, World
from benchmarks.speed import options

WORLDS = ("everyday", "shapes")


def seconds(world: World, workers: int) -> tuple[float, float]:
    """Return how long the command takes for ``world``, and the processor time of its processes."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["data", "mini", "--root", str(Path(folder) / "world"), "--world", world.name]
        words += ["--images", str(world.images), "--workers", str(workers)]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "benchmarks.commands", *words],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def scenes(world: World) -> int:
    """Return the number of scenes in all splits of all data sets."""
    return sum(sum(world.sizes(name).values()) for name in world.writers())


def main() -> None:
    """Measure and print."""
    parser = options.parser("worlds", __doc__)
    parser.add_argument(
        "--images", type=options.positive, default=600, metavar="N", help="size of a world (default: 600)"
    )
    parser.add_argument("--rounds", type=options.positive, default=3, metavar="N", help="turns (default: 3)")
    parser.add_argument("--workers", type=options.positive, default=2, metavar="W", help="processes (default: 2)")
    args = parser.parse_args()
    if args.images <= LEAST:
        parser.error(f"--images {args.images} is too few; choose more than {LEAST}")
    taken: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(args.rounds):
        for name in WORLDS:
            for images in (LEAST, args.images):
                taken.setdefault((name, images), []).append(seconds(World(0, images, name), args.workers))
    for name in WORLDS:
        few, many = (np.median(taken[name, images], 0) for images in (LEAST, args.images))
        count = scenes(World(0, args.images, name)) - scenes(World(0, LEAST, name))
        wall, cpu = ((many - few) / count).tolist()
        print(
            f"{name}: {1 / wall:.0f} scenes/s, {1000 * cpu:.1f} ms of processor time a scene; smallest world {few[0]:.1f} s"
        )


if __name__ == "__main__":
    main()
