"""Training loop: train a run from where it is to the end, log, and save.

Under torchrun, every process runs this file: NCCL with one GPU per process, or gloo on CPUs. `batch_size` is divided among
the processes. The order of images, the crops, the learning rate, the momentum of the momentum encoder and the random numbers
depend only on (seed, step), so a continued run equals an uninterrupted run.
"""

from __future__ import annotations

import json
import os
import random
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from pixbench.distributed import leave_group, mean_over_processes, rank, world_size
from pixbench.errors import UserError, explain, worker_deaths_explained
from pixbench.file_versions import IMAGE_LIST, RESULT_FILE, RESULT_SCHEMA
from pixbench.files import make_folder, write_json, write_text
from pixbench.interrupt import StopSignal
from pixbench.lock import owned
from pretrain import checkpoint
from pretrain.config import RunConfig
from pretrain.data.image_list import write_list
from pretrain.data.loader import TwoViews, ViewLoader, agreed
from pretrain.data.views import Views
from pretrain.initial_weights import InitialWeights
from pretrain.log import StepLog
from pretrain.run import Run, batches, modified, setup

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def train(config: RunConfig, initial: InitialWeights | None = None) -> int:
    """Execute the whole run and return 0. If a signal asks it to stop, save and raise KeyboardInterrupt.

    ``initial`` are the weights that ``config.init_from`` names.
    """
    device = start_processes()
    try:
        run = setup(config, device, initial)
        if run.finished:
            say(f"{run.latest}: this run is already finished ({config.epochs} epochs); nothing to do")
        else:
            with owned(run.out) if rank() == 0 else nullcontext():
                if rank() == 0 and modified(run.latest) != run.loaded:  # between loading it and owning the folder
                    raise UserError(f"another process wrote {run.latest} meanwhile; start the same command again")
                try:
                    fit(run)
                except Exception as error:
                    conclude(run, "failed", explain(error))
                    raise
                conclude(run, "ok")
            say(f"finished {config.epochs} epochs in {run.seconds:.0f} s; {run.latest}")
    finally:
        leave_group()
    return 0


def start_processes() -> torch.device:
    """Join the process group if torchrun started several processes, and return the device of this process."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise UserError(f"process {local} finds only {torch.cuda.device_count()} GPUs; start one process per GPU")
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def save(run: Run) -> None:
    """Write the checkpoint of ``run``. After every `keep_every` epochs, also keep it under a second name."""
    epoch = run.step // run.steps_per_epoch
    content = {
        "config": run.config.as_dict(),
        "method": run.config.method.name,
        "backbone": run.config.backbone.as_dict(),
        "exports": list(run.method.exports),
        "left_behind": run.method.left_behind,
        "model": run.method.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "step": run.step,
        "epoch": epoch,
        "seconds": run.seconds,
        "images": run.images,
        "initial": run.initial,
        "lengthened": run.lengthened,
        "finished": run.step == run.total_steps,
    }
    checkpoint.save(run.latest, content)
    if is_kept(run):
        checkpoint.keep(run.latest, f"checkpoint_ep{epoch:04}.pth")


def fit(run: Run) -> None:
    """Train from ``run.step`` to the end.

    After Ctrl-C, SIGTERM or SIGHUP, finish the step, save, and raise KeyboardInterrupt.
    """
    config, data = run.config, run.config.data
    dataset = TwoViews(
        run.source,
        size=data.image_size,
        scale=(data.min_scale, data.max_scale),
        recipe=data.recipe,
        seed=config.seed,
        cache=data.cache,
    )
    sampler = batches(config, len(run.source), run.step, run.total_steps)
    loader = ViewLoader(dataset, sampler, workers=data.workers, pin_memory=run.device.type == "cuda")
    log = open_log(run) if rank() == 0 else None
    run.model.train()
    try:
        with worker_deaths_explained(), StopSignal() as stop:
            for views in agreed(loader, stop):
                if stop.agreed:
                    if log is not None:
                        save(run)
                    raise KeyboardInterrupt
                values = train_step(run, views)
                run.step += 1
                if log is not None:
                    log.tick(run.step)
                    if run.step == 1 or run.step % config.log_every == 0 or run.step == run.total_steps:
                        log.write(run.step, {name: float(value) for name, value in values.items()})
                    run.seconds = log.seconds
                    if is_due(run):
                        save(run)
    finally:
        if log is not None:
            log.close()


def conclude(run: Run, status: str, reason: str = "") -> None:
    """Write `result.json`: the status of the run and, if it failed, the reason. An interrupted run does not write it."""
    if rank() == 0:
        facts = {"step": run.step, "steps": run.total_steps, "seconds": round(run.seconds, 2), "reason": reason}
        write_json(run.out / RESULT_FILE, {"schema": RESULT_SCHEMA, "kind": "pretrain", "status": status, **facts})


def open_log(run: Run) -> StepLog:
    """Prepare the run folder, print a summary of the run, and return the log."""
    make_folder(run.out)
    checkpoint.remove_leftovers(run.out)
    (run.out / RESULT_FILE).unlink(missing_ok=True)  # left by an earlier start that failed
    if not (run.loaded and (run.out / IMAGE_LIST).exists()):  # a list without a checkpoint is of an earlier start
        write_list(run.out / IMAGE_LIST, run.source)
    settings = json.loads(json.dumps(run.config.as_dict()))  # lists instead of tuples, as YAML has them
    write_text(run.out / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
    where = f"{world_size()} × {run.device.type}"
    say(
        f"{run.config.method.name}: {len(run.source)} images, {run.config.epochs} epochs of {run.steps_per_epoch} steps "
        f"of {run.config.batch_size} images on {where}, into {run.out}"
    )
    for note in run.notes:
        say(note)
    if run.step:
        say(f"going on after step {run.step} of {run.total_steps}")
    return StepLog(
        run.out,
        first=run.step,
        total=run.total_steps,
        steps_per_epoch=run.steps_per_epoch,
        batch_size=run.config.batch_size,
        seconds=run.seconds,
    )


def train_step(run: Run, views: Views) -> dict[str, Any]:
    """Make one update and return the values to log; "loss" is the mean over the processes.

    Raises:
        UserError: The loss is not finite.
    """
    config, device = run.config, run.device
    lr = run.schedule.lr(run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    # The random numbers of a method depend on the step only, so no generator state has to be saved.
    torch.manual_seed(random.Random(f"{config.seed}/{run.step}/{rank()}").getrandbits(63))
    run.method.update_momentum_encoder()
    run.optimizer.zero_grad(set_to_none=True)
    logged: list[dict[str, Tensor]] = []
    for number, part in enumerate(views.chunks(config.accumulate), 1):
        model = run.model
        waits = isinstance(model, DistributedDataParallel) and number < config.accumulate
        with model.no_sync() if waits else nullcontext():  # type: ignore[operator]  # exchange gradients with the last part only
            with torch.autocast(device.type, PRECISIONS[config.precision], enabled=config.precision != "fp32"):
                found = model(on_device(part, run))
            run.scaler.scale(found["loss"] / config.accumulate).backward()
        logged.append({name: value.detach() for name, value in found.items()})
    values = {name: torch.stack([part[name] for part in logged]).mean(0) for name in logged[0]}
    loss = mean_over_processes(values["loss"])
    if not loss.isfinite():
        first = ", ".join(run.source.names[index] for index in views.image_index[:3].tolist())
        good = f"; the last good checkpoint is {run.latest}" if run.latest.exists() else ""
        raise UserError(
            f"the loss is {loss.item()} at step {run.step + 1} (images {first}, ...){good}; lower optimizer.base_lr or use "
            "precision fp32, and choose another --out"
        )
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return {**values, "loss": loss, "lr": lr}


def on_device(views: Views, run: Run) -> Views:
    """Return ``views`` on the device of ``run`` and in its memory format."""
    memory_format = torch.channels_last if run.config.channels_last else torch.contiguous_format
    views = views.to(run.device)
    return views._replace(
        view1=views.view1.contiguous(memory_format=memory_format),
        view2=views.view2.contiguous(memory_format=memory_format),
    )


def is_due(run: Run) -> bool:
    """Return whether a checkpoint must be written after the last finished step."""
    config, step = run.config, run.step
    every_epochs = step % (run.steps_per_epoch * config.checkpoint_every) == 0
    every_steps = config.checkpoint_every_steps > 0 and step % config.checkpoint_every_steps == 0
    return every_epochs or is_kept(run) or every_steps or step == run.total_steps


def is_kept(run: Run) -> bool:
    """Return whether the checkpoint after the last finished step is kept under a name of its own."""
    keep_every = run.config.keep_every
    return keep_every > 0 and run.step > 0 and run.step % (run.steps_per_epoch * keep_every) == 0


def say(text: str) -> None:
    """Print ``text`` in the process of rank 0."""
    if rank() == 0:
        print(text, flush=True)
