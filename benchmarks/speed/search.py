"""Measure the exact search of patches against plain matrix products, and how it grows with the memory.

    python -m benchmarks.speed.search [--patches 100000 300000 1000000] [--channels 384] [--queries 4096] [--into FILE]

`transfer.frozen.search.nearest` looks for the 30 nearest of each query by inner product in random features. `products` is the
time of the same products alone, in tiles of the same size with nothing done to them, measured in turn with the search; `share`
is its part of the time of the search (wanted: 80 % or more). The best of several rounds counts. Run it while nothing else
runs. A million patches of 384 channels take 1.5 GB.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from pixbench.files import write_json
from transfer.frozen.search import PATCHES, QUERIES, nearest

NEIGHBOURS = 30


@dataclass(frozen=True)
class Timing:
    """Seconds of one size of the memory."""

    patches: int
    search_s: float
    products_s: float

    @property
    def share(self) -> float:
        """Part of the search that the products alone would take, in per cent."""
        return 100 * self.products_s / self.search_s


def products(queries: Tensor, memory: Tensor) -> None:
    """Compute all products in the tiles of the search."""
    out = queries.new_empty(QUERIES, PATCHES)
    for some in memory.split(PATCHES):
        for tile in queries.split(QUERIES):
            torch.mm(tile, some.T, out=out.view(-1)[: len(tile) * len(some)].view(len(tile), len(some)))


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long ``work`` takes."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(patches: int, channels: int, queries: int, rounds: int, device: torch.device) -> Timing:
    """Return the best times of ``rounds`` rounds, after one that is not counted."""
    generator = torch.Generator().manual_seed(0)
    memory = torch.randn(patches, channels, generator=generator).to(device)
    asked = torch.randn(queries, channels, generator=generator).to(device)
    pairs = [
        (
            seconds(lambda: nearest(asked, memory, NEIGHBOURS, "inner"), device),
            seconds(lambda: products(asked, memory), device),
        )
        for _ in range(rounds + 1)
    ][1:]
    return Timing(patches, *(min(times) for times in zip(*pairs, strict=True)))


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    for name, default in (("channels", 384), ("queries", 4096), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--into", type=Path, metavar="FILE", help="also write the figures to FILE, in JSON")
    args = parser.parse_args()
    found = [measure(n, args.channels, args.queries, args.rounds, args.device) for n in args.patches]
    about = {"date": date.today().isoformat(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    sizes = {
        "channels": args.channels,
        "queries": args.queries,
        "neighbours": NEIGHBOURS,
        "device": str(args.device),
    }
    stored = {**about, **sizes, "timings": [{**asdict(t), "share": t.share} for t in found]}
    print(page(stored))
    if args.into:
        write_json(args.into, stored)


def page(stored: dict[str, Any]) -> str:
    """Return the table of figures that `main` stored."""
    operations = 2 * stored["queries"] * stored["channels"] / 1e9
    rows = [
        (
            f"{t['patches']:,}",
            t["search_s"],
            t["products_s"],
            operations * t["patches"] / t["products_s"],
            f"{t['share']:.0f} %",
        )
        for t in stored["timings"]
    ]
    headers = ("patches", "search, s", "products, s", "products, GFLOP/s", "share")
    table = tabulate(rows, headers, tablefmt="github", floatfmt=".2f")
    return (
        f"{table}\n\n*{stored['queries']:,} queries of {stored['channels']} channels, {stored['neighbours']} neighbours. "
        f"Measured on {stored['date']} with PyTorch {stored['torch']} on {stored['device']}, {stored['threads']} threads.*"
    )


if __name__ == "__main__":
    main()
