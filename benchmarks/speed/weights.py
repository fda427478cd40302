"""What it takes to look at a file of weights and to convert one, each as the command that a user starts.

    python -m benchmarks.speed.weights [--rounds 3]

The files hold a ResNet-50 of full width, some 94 MB. Wall time is the fastest of the rounds, memory the largest resident
set, in the last column over the size of the file. The first row is what Python needs for `import torch` alone, which both
do without.
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

FILES = {"zip.pth": "mmseg", "pickle.pkl": "detectron2_fpn", "plain.safetensors": "huggingface"}
TARGETS = {
    "zip.pth": ("detectron2", "x.pkl"),
    "pickle.pkl": ("mmseg", "x.pth"),
    "plain.safetensors": ("mmseg", "x.pth"),
}


def measure(words: list[str], rounds: int) -> tuple[float, float]:
    """Seconds and bytes of ``python WORDS``; bytes as Linux counts them, resident pages of mapped files included.

    Linux counts the process that starts a command too, up to its start. So this one must stay small: no PyTorch here.
    """
    seconds, memory = [], []
    for _ in range(rounds):
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
    seconds, memory = measure(["-c", "import torch"], rounds)
    found = [("import torch", f"{seconds:.2f}", f"{memory / 1e6:.0f}", "")]
    for name, (target, output) in TARGETS.items():
        size = (folder / name).stat().st_size
        convert = ["convert", str(folder / name), "--to", target, "-o", str(folder / output), "--no-verify"]
        for label, command in (
            ("inspect", ["weights", "inspect", str(folder / name)]),
            (f"convert --to {target} --no-verify", convert),
        ):
            seconds, memory = measure([*PIXBENCH[1:], *command], rounds)
            found.append((f"{label} {name}", f"{seconds:.2f}", f"{memory / 1e6:.0f}", f"{memory / size:.1f}"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
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
