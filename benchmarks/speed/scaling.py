"""Measure how much faster two processes train than one, with one thread each, through the real command.

    python -m benchmarks.speed.scaling [--rounds 3] [--into FILE]

Each process has its own batch of 64 images, as on GPUs. The runs take turns; the median of the images/s that a run logs counts.
Nothing is written without --into; the published figure is made with `--into docs/speed.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from statistics import median

from benchmarks.miniworld.generate import World, generate
from benchmarks.speed import options
from pixbench.files import write_json
from pixbench.paths import CONFIGS

STEPS = 24
BATCH = 64
IMAGES = 8 * BATCH


def images_per_second(root: Path, out: Path, processes: int) -> float:
    """Train for `STEPS` steps with so many processes and return the median of the logged images/s."""
    files = [word for name in ("pixpro_100ep", "mini") for word in ("--config", str(CONFIGS / f"pretrain/{name}.yaml"))]
    start = ["torch.distributed.run", f"--nproc_per_node={processes}", "--standalone", "-m"] if processes > 1 else []
    command = [sys.executable, "-m", *start, "pretrain", *files, "--data.root", str(root), "--out", str(out)]
    command += ["--batch_size", str(BATCH * processes), "--log_every", "4", "--data.workers", "0"]
    command += ["--epochs", str(STEPS * BATCH * processes // IMAGES)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return median(line["images_per_s"] for line in lines[2:])


def main() -> None:
    """Measure and print; with ``--into``, store too."""
    parser = options.parser("scaling", __doc__)
    parser.add_argument(
        "--rounds", type=options.positive, default=3, metavar="N", help="runs of each kind (default: 3)"
    )
    parser.add_argument(
        "--into",
        type=options.results,
        metavar="FILE",
        help="add the figures to this JSON file (default: write nothing)",
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "world"
        generate(root, World(images=IMAGES, name="shapes"), workers=2)
        rates: dict[int, list[float]] = {1: [], 2: []}
        for number in range(args.rounds):
            for processes, found in rates.items():
                found.append(images_per_second(root / "imagenet", Path(folder) / f"{number}_{processes}", processes))
    one, two = (median(found) for found in rates.values())
    print(f"1 process {one:.1f} images/s, 2 processes {two:.1f} images/s, × {two / one:.2f} (bound 1.6)")
    if args.into:
        stored = json.loads(args.into.read_text(encoding="utf-8")) if args.into.exists() else {}
        now = {"date": date.today().isoformat(), "one": one, "two": two, "ratio": two / one, "rounds": args.rounds}
        write_json(args.into, {**stored, "scaling": now})
        print(f"stored in {args.into}")


if __name__ == "__main__":
    main()
