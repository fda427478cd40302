"""Plot the loss and the feature spread of pre-training runs for the pages in `docs/methods`.

    python scripts/loss_curves.py RUN [RUN ...] -o docs/methods/curves.png

RUN is a run folder of `python -m pretrain`; its name is the title of its panel.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt


def main() -> None:
    """Plot the runs on the command line into one image file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", required=True, type=Path)
    args = parser.parse_args()
    columns = min(4, len(args.runs))
    rows = -(-len(args.runs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.2 * columns, 2.4 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(args.runs) :]:
        axis.axis("off")
    for axis, run in zip(axes.flat, args.runs, strict=False):
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in lines]
        axis.plot(steps, [line["loss"] for line in lines], color="C0", linewidth=1)
        axis.set_title(run.name, fontsize=9)
        axis.set_ylabel("loss", color="C0", fontsize=8)
        spread = axis.twinx()
        spread.plot(steps, [line["feature_std"] for line in lines], color="C1", linewidth=1)
        spread.set_ylim(0, 1.05)
        spread.set_ylabel("feature_std", color="C1", fontsize=8)
        for one in (axis, spread):
            one.tick_params(labelsize=7)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=110)


if __name__ == "__main__":
    main()
