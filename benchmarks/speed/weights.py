"""Measure the time and memory of the commands that inspect and convert a weight file.

    python -m benchmarks.speed.weights [--rounds 3]

The files contain a ResNet-50 of full width, about 94 MB. The time is the wall time of the fastest round, the memory is
the largest resident set; the last column is the memory divided by the file size. The first row is Python with `import
torch` alone, which both commands need: the bounds are 1.0 s and 2.5 times the file's size more than that.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from benchmarks.commands import PIXBENCH
from benchmarks.speed import options

FILES = {"zip.pth": "mmseg", "pickle.pkl": "detectron2_fpn", "plain.safetensors": "huggingface"}
CONVERSIONS = {
    "zip.pth": ("detectron2", "x.pkl"),
    "pickle.pkl": ("mmseg", "x.pth"),
    "plain.safetensors": ("mmseg", "x.pth"),
}


def measure(words: list[str], rounds: int, made: Path | None = None) -> tuple[float, float]:
    """Return the seconds and bytes of ``python WORDS``; Linux counts resident pages of mapped files in the bytes.

    The file ``made`` is removed before each round, because a command that finds its output there also compares with it.

    Linux also counts the memory of the process that starts a command, up to the start. So this process must stay small:
    it must not import PyTorch.
    """
    seconds, memory = [], []
    for _ in range(rounds):
        if made:
            made.unlink(missing_ok=True)
        start = time.perf_counter()
        quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        pid = os.posix_spawn(sys.executable, [sys.executable, *words], os.environ, file_actions=quiet)
        _, status, usage = os.wait4(pid, 0)
        if status:
            raise SystemExit(f"python {' '.join(words)} failed")
        seconds.append(time.perf_counter() - start)
        memory.append(usage.ru_maxrss * 1024)
    return min(seconds), max(memory)


def make(folder: Path) -> None:
    """Write the weight files with random weights into ``folder``."""
    import torch

    from pretrain.models.backbone_spec import BackboneSpec
    from pretrain.models.resnet import build_resnet
    from transfer.weights import Backbone, save

    torch.manual_seed(0)
    spec = BackboneSpec()
    backbone = Backbone(spec, dict(build_resnet(spec, zero_init_residual=False).state_dict()), "random")
    for name, framework in FILES.items():
        save(backbone, folder / name, framework)


def rows(folder: Path, rounds: int) -> list[tuple[str, str, str, str]]:
    """Measure all commands and return the rows of the table."""
    seconds, memory = measure(["-c", "import torch"], rounds)
    found = [("import torch", f"{seconds:.2f}", f"{memory / 1e6:.0f}", "")]
    for name, (framework, output) in CONVERSIONS.items():
        size = (folder / name).stat().st_size
        convert = ["convert", str(folder / name), "--to", framework, "-o", str(folder / output), "--no-verify"]
        for label, command in (
            ("inspect", ["weights", "inspect", str(folder / name)]),
            (f"convert --to {framework} --no-verify", convert),
        ):
            seconds, memory = measure([*PIXBENCH[1:], *command], rounds, folder / output)
            found.append((f"{label} {name}", f"{seconds:.2f}", f"{memory / 1e6:.0f}", f"{memory / size:.1f}"))
    return found


def main() -> None:
    """Write the weight files, measure the commands and print the table."""
    parser = options.parser("weights", __doc__)
    parser.add_argument(
        "--rounds", type=options.positive, default=3, metavar="N", help="the fastest counts (default: 3)"
    )
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make(args.make)
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "benchmarks.speed.weights", "--make", folder], check=True)
        print(tabulate(rows(Path(folder), args.rounds), headers=("command", "s", "MB", "× file")))


if __name__ == "__main__":
    main()
