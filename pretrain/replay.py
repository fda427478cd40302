"""Rebuild the batch of one step of a run, and take it through the network once more, in fp32, to see what happens.

Shapes: B images in the whole batch, S view size.
"""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from pixbench.errors import UserError
from pixbench.file_versions import BAD_BATCH_FILE, CHECKPOINT_FILE
from pretrain import checkpoint, earlier
from pretrain.bad_batch import image_of, samples_of
from pretrain.config import from_dict
from pretrain.data.loader import Batches, ViewLoader
from pretrain.data.views import Views
from pretrain.engine import open_views
from pretrain.output_watch import OutputWatch
from pretrain.run import Run, build
from pretrain.settings import RunConfig
from pretrain.step import on_device, passes, step_seed

SETTINGS_FILE = "config.yaml"


@dataclass
class Replay:
    """What a replayed step showed."""

    step: int
    weights: str
    """Whose weights these are, and the file that they come from."""
    precision: str
    """Precision of the run; the replay computes in fp32."""
    images: list[dict[str, Any]] = field(default_factory=list)
    """Name, epoch and index of each image, and "min", "mean" and "max" of each of its two normalised views."""
    losses: list[dict[str, float]] = field(default_factory=list)
    """What the method returned for each part of the batch: those of process 0, then those of process 1, ..."""
    first_not_finite: str = ""
    """Module whose output is the first that is not finite, and the part of the batch; "" if there is none."""
    largest: dict[str, float] = field(default_factory=dict)
    """Largest absolute output of each module."""
    gradient_norm: float = 0.0
    gradients_not_finite: list[str] = field(default_factory=list)
    """Parameters whose gradient is not finite, in the order in which backward meets them."""
    anomaly: str = ""
    """What PyTorch's anomaly detection found in backward."""
    views: tuple[Tensor, Tensor] = field(default_factory=lambda: (torch.empty(0), torch.empty(0)))
    """The two views of each image, (B, 3, S, S), normalised, on the CPU."""

    @property
    def losses_finite(self) -> bool:
        """Whether all that the method returned is finite."""
        return all(math.isfinite(value) for part in self.losses for value in part.values())

    @property
    def finite(self) -> bool:
        """Whether all outputs, losses and gradients are finite."""
        return self.losses_finite and not (self.first_not_finite or self.gradients_not_finite or self.anomaly)


def replay(folder: Path, step: int | None, device: torch.device, *, anomaly: bool = False, root: str = "") -> Replay:
    """Replay step ``step`` (counted from 1) of the run in ``folder``, as all its processes computed it, one after another.

    Losses that compare the images of several processes see only those of one. The run is not changed.

    Args:
        folder: folder of the run.
        step: the step; None takes the one in `BAD_BATCH_FILE`.
        device: where to compute.
        anomaly: whether to let PyTorch find the operation whose gradient is NaN; slower.
        root: folder of the images, if it is no longer the run's.

    Raises:
        UserError: The run, the step or its images cannot be found again.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give the folder of a run, the --out of pixbench pretrain")
    if not any((folder / name).exists() for name in (SETTINGS_FILE, CHECKPOINT_FILE)):
        raise UserError(f"{folder} is not the folder of a pre-training run: it has no {SETTINGS_FILE}")
    noted = _noted(folder)
    if step is None and not noted:
        raise UserError(f"{folder} has no {BAD_BATCH_FILE}: it did not stop for bad steps; choose a step with --step")
    chosen = int(noted["step"]) if step is None else step
    if chosen < 1:
        raise UserError(f"--step is {chosen}, but the first step is 1")
    found = _before(folder, chosen)
    run = build(_config(folder, found, root), device, None, found)
    if chosen > run.total_steps:
        raise UserError(f"there is no step {chosen} in {folder}; it has steps 1 to {run.total_steps}")
    samples = samples_of(run, chosen)
    if noted and noted["step"] == chosen and noted["samples"] != [list(sample) for sample in samples]:
        raise UserError(
            f"{folder / BAD_BATCH_FILE} names other images for step {chosen} than the settings of the run give; put back the "
            "files that belong together"
        )
    result = Replay(chosen, _whose(found, chosen), run.config.precision)
    # older checkpoints do not tell the number of processes
    processes = int(noted.get("processes") or (found.content.get("processes", 1) if found else 1))
    for rank in range(processes):
        for epoch, number in samples[rank::processes]:
            index = image_of(run, (epoch, number))
            result.images.append({"name": run.source.names[index], "epoch": epoch, "index": index})
    _compute(run, result, processes, anomaly)
    return result


def _noted(folder: Path) -> dict[str, Any]:
    """Return the content of the run's `BAD_BATCH_FILE`; {} if there is none."""
    path = folder / BAD_BATCH_FILE
    try:
        noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(noted["step"], int) and isinstance(noted["processes"], int) and noted["processes"] > 0):
            raise ValueError("no numbers of step and processes")
        return {**noted, "samples": list(noted["samples"])}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); choose a step with --step after you have removed it") from error


def _before(folder: Path, step: int) -> earlier.Found | None:
    """Return the last good checkpoint of the run before ``step``; None if there is none."""
    best: tuple[tuple[int, int], earlier.Found] | None = None
    for path in (folder / CHECKPOINT_FILE, *earlier.earlier(folder), *folder.glob("checkpoint_ep*.pth")):
        if not path.exists():
            continue
        try:
            content = checkpoint.load(path, verify=True)
        except checkpoint.DamagedError:
            continue
        changed = _last_change(content)
        rank = changed, -abs(step - 1 - content["step"])
        if changed < step and (best is None or rank > best[0]):
            best = rank, earlier.Found(path, content)
    return best[1] if best else None


def _whose(found: earlier.Found | None, step: int) -> str:
    """Say which weights the checkpoint ``found`` has, and whether the run had the same ones at step ``step``."""
    text, written = "those of the start", 0
    if found is not None:
        written, changed = found.content["step"], _last_change(found.content)
        text = f"{f'those after step {changed}' if changed else text}, from {found.path}"
        if changed < written:
            bad = f"step {written} was" if changed + 1 == written else f"the steps {changed + 1} to {written} were"
            text += f" ({bad} bad and changed no weights)"
    if written < step - 1:
        text += (
            f". There is no checkpoint of step {step - 1}, so the run had other weights here, and the values below differ from "
            "its values"
        )
    return text


def _last_change(content: dict[str, Any]) -> int:
    """Return the last step that changed the weights in a checkpoint: the bad steps after it did not."""
    step, skipped = content["step"], content.get("bad_steps", {}).get("in_a_row", 0)
    return int(step - skipped)


def _config(folder: Path, found: earlier.Found | None, root: str) -> RunConfig:
    """Return the settings of the run, for one process and without workers."""
    path = folder / SETTINGS_FILE
    try:
        content = found.content["config"] if found else yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} is not the folder of a pre-training run: it has no {path.name}") from error
    config = from_dict(content)
    if config.init_from and not found:
        raise UserError(
            f"{folder} has no checkpoint before this step, and the start needs {config.init_from}; choose a later step"
        )
    data = replace(config.data, root=root or config.data.root, workers=0, cache=False)
    return replace(config, out=str(folder), data=data)


def _compute(run: Run, result: Replay, processes: int, anomaly: bool) -> None:
    """Take the batch through forward and backward, and note in ``result`` what comes out."""
    method, config, step = run.method, run.config, result.step - 1
    run.config = replace(config, precision="fp32")
    run.scaler = torch.amp.GradScaler(run.device.type, enabled=False)
    method.train()
    if run.step <= step:  # else the checkpoint is of a later step
        method.update_momentum_encoder()
    kept: list[tuple[Tensor, Tensor]] = []
    with OutputWatch(method) as watch:
        for rank in range(processes):
            part = Batches(
                run.order,
                config.batch_size,
                seed=config.seed,
                first=step,
                last=step + 1,
                rank=rank,
                world=processes,
            )
            views = next(iter(ViewLoader(open_views(run), part)))
            torch.manual_seed(step_seed(config, step, rank))
            for number, chunk in enumerate(views.chunks(config.accumulate)):
                chunk = on_device(chunk, run)
                kept.append((chunk.view1.float().cpu(), chunk.view2.float().cpu()))
                scalars = passes(run, chunk, last=True)
                result.losses.append({name: float(value) for name, value in scalars.items()})
                if watch.first and not result.first_not_finite:
                    place = f" of process {rank}" * (processes > 1) + f" in part {number + 1}" * (config.accumulate > 1)
                    result.first_not_finite = watch.first + place
                if anomaly and not result.anomaly:
                    result.anomaly = _anomaly(run, chunk)
    view1, view2 = (torch.cat(views) for views in zip(*kept, strict=True))
    result.views = view1, view2
    for image, *pair in zip(result.images, view1, view2, strict=True):
        for name, view in zip(("view1", "view2"), pair, strict=True):
            image[name] = {"min": float(view.min()), "mean": float(view.mean()), "max": float(view.max())}
    result.largest = watch.largest
    gradients = [(name, value.grad) for name, value in method.named_parameters() if value.grad is not None]
    result.gradient_norm = float(torch.nn.utils.get_total_norm([grad for _, grad in gradients])) / processes
    result.gradients_not_finite = [name for name, grad in reversed(gradients) if not grad.isfinite().all()]


def _anomaly(run: Run, views: Views) -> str:
    """Repeat one part with anomaly detection; return what it found, with the line of the forward pass. Keeps the gradients."""
    kept = {value: value.grad for value in run.method.parameters()}
    run.method.zero_grad(set_to_none=True)
    found = ""
    with warnings.catch_warnings(record=True) as said, torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("always")
        try:
            passes(run, views, last=True)
        except RuntimeError as error:
            lines = [line.strip() for warning in said for line in str(warning.message).splitlines()]
            ours = [
                number for number, line in enumerate(lines[:-1]) if line.startswith('File "') and "/pretrain/" in line
            ]
            place = f" It belongs to {lines[ours[-1]]}: {lines[ours[-1] + 1]}" if ours else ""
            found = str(error).partition("\n")[0] + place
    for value, gradient in kept.items():
        value.grad = gradient
    return found
