"""Measure the cost of one step of each pre-training method at the paper's size, on this machine.

    python -m benchmarks.speed.methods [--batch 4] [--rounds 3] [--into FILE]

Counted, not timed: trained parameters; per image, the floating-point operations of a step (both views, forward and backward)
and the activations (fp32) that are stored together: those of one view, if the views go through the student one after the other.
Timed: seconds per step. The methods take turns, and the fastest round counts; it is
printed as a ratio to supervised training, which sees one view. Rows are the methods, as their first config says (a ResNet-50,
for iBOT a ViT), the instance branches, and the shipped configs with other networks, such as a ViT.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import options
from benchmarks.tables import insert
from pixbench.paths import CONFIGS
from pretrain.config import parse
from pretrain.data.views import NO_LOCAL_CROPS, LocalCrops, Views
from pretrain.method_descriptions import config_files
from pretrain.methods import METHODS
from pretrain.methods.base import Method, TwoPassMethod
from pretrain.models.families import build_backbone
from pretrain.models.named_spec import NamedSpec
from pretrain.settings import RunConfig

HEADERS = ("method", "trained parameters (M)", "GFLOPs an image", "activations (MB an image)", "time of a step")


def configs() -> dict[str, str]:
    """Return one config for each method, and one more for each of its instance branches and for each network by name."""
    found: dict[str, str] = {}
    for name in METHODS:
        for file in config_files(name):
            found.setdefault(_row(parse(["--config", str(CONFIGS / "pretrain" / file)])), file)
    return {"supervised": found.pop("supervised"), **found}


def _row(config: RunConfig) -> str:
    """Return the name of a row of the table."""
    branch, backbone = getattr(config.method.settings, "instance", "none"), config.backbone
    words = [config.method.name, *([] if branch == "none" else [f"instance {branch}"])]
    return ", ".join([*words, *([backbone.function] if isinstance(backbone, NamedSpec) else [])])


def build(config_file: str) -> tuple[RunConfig, Method]:
    """Return the config in ``config_file`` and its method with random weights, in training mode."""
    config = parse(["--config", str(CONFIGS / "pretrain" / config_file)])
    torch.manual_seed(0)
    backbone = build_backbone(config.backbone, config.zero_init_residual)
    return config, METHODS[config.method.name](backbone, config.method.settings, total_steps=100).train()


def views(batch: int, size: int, local: LocalCrops = NO_LOCAL_CROPS) -> Views:
    """Return views and local crops with random pixels; the crop boxes of both views are the whole image."""
    one, two = torch.randn(2, batch, 3, size, size).contiguous()
    box, index = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(batch, 4), torch.arange(batch)
    crops = torch.randn(batch, local.count, 3, local.size, local.size) if local.count else None
    return Views(one, two, box, box, index, index, local=crops)


def losses(method: Method, images: Views) -> Iterator[Tensor]:
    """Yield what the engine sends backward in a step, one after the other: the loss, or the loss of each view."""
    if not isinstance(method, TwoPassMethod):
        yield method(images)["loss"]
        return
    with torch.no_grad():
        targets = method.targets(images)
    for view in (0, 1):
        yield method(images, targets, view)["loss"]


def step(method: Method, images: Views) -> None:
    """Update the momentum encoder and run the forward and backward passes of one step."""
    method.update_momentum_encoder()
    method.zero_grad(set_to_none=True)
    for loss in losses(method, images):
        loss.backward()


def operations(method: Method, images: Views) -> int:
    """Return the number of floating-point operations of one step."""
    with FlopCounterMode(display=False) as counter:
        step(method, images)
    return counter.get_total_flops()


def activations(method: Method, images: Views) -> int:
    """Return the bytes that autograd stores between a forward and its backward pass, without the weights."""
    own = {p.untyped_storage().data_ptr() for p in [*method.parameters(), *method.buffers()]}
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        if (place := x.untyped_storage().data_ptr()) not in own:
            kept[place] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = next(losses(method, images))
        total = sum(kept.values())  # while the graph exists, no address is used twice
        del loss
    return total


def measure(batch: int, rounds: int) -> str:
    """Measure all methods and return the table in Markdown."""
    made = {name: build(config_file) for name, config_file in configs().items()}
    images = {name: views(batch, config.data.image_size, config.data.local) for name, (config, _) in made.items()}
    seconds = dict.fromkeys(made, float("inf"))
    for _ in range(rounds):
        for name, (_, method) in made.items():
            start = time.perf_counter()
            step(method, images[name])
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    rows = []
    for name, (_, method) in made.items():
        trained = sum(p.numel() for p in method.parameters() if p.requires_grad) / 1e6
        flops = operations(method, images[name]) / batch / 1e9
        memory = activations(method, images[name]) / batch / 1e6
        ratio = seconds[name] / seconds["supervised"]
        rows.append((f"`{name}`", f"{trained:.1f}", f"{flops:.0f}", f"{memory:.0f}", f"× {ratio:.1f}"))
    return tabulate(rows, headers=HEADERS, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Print the table and, with ``--into``, insert it into a file."""
    parser = options.parser("methods", __doc__)
    parser.add_argument("--batch", type=options.positive, default=4, metavar="N", help="images in a step (default: 4)")
    parser.add_argument("--rounds", type=options.positive, default=3, metavar="N", help="steps to time (default: 3)")
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help="also insert the table into this page (default: write nothing)"
    )
    args = parser.parse_args()
    table = measure(args.batch, args.rounds)
    print(table)
    if args.into:
        insert(table, args.into)


if __name__ == "__main__":
    main()
