"""Training loop: train a run from where it is to the end, log, and save.

Under torchrun, every process runs this file: NCCL with one GPU per process, or gloo on CPUs. `batch_size` is divided among
the processes. The order of images, the crops, the learning rate, the momentum of the momentum encoder and the random numbers
depend only on (seed, step), so a continued run equals an uninterrupted run.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import yaml

from pixbench.curve import read_curve
from pixbench.distributed import rank, world_size
from pixbench.errors import UserError, explain, worker_deaths_explained
from pixbench.file_versions import BAD_BATCH_FILE, IMAGE_LIST, RESULT_FILE, STEP_LOG, VIEWS_FILE
from pixbench.files import make_folder, write_text
from pixbench.interrupt import SaveSignal, StopSignal
from pixbench.lock import owned
from pixbench.process_group import AgreedStop, ends_in_time, may_record, process_deaths_explained, process_group
from pixbench.provenance import now
from pixbench.results import config_hash, stored_file, write_result
from pixbench.usage import Usage
from pretrain import checkpoint, earlier
from pretrain.bad_batch import BadBatches
from pretrain.cpu import keep_freed_memory
from pretrain.data.image_list import is_list_of, write_list
from pretrain.data.loader import ViewLoader, agreed
from pretrain.data.two_views import Backend, TwoViews
from pretrain.initial_weights import InitialWeights
from pretrain.log.online_knn import OnlineKNN
from pretrain.log.profiling import Profiler
from pretrain.log.screen import tell
from pretrain.log.steps import StepLog, is_logged
from pretrain.log.trackers import check_installed
from pretrain.run import Run, batches, modified, setup
from pretrain.saver import Saver, is_due
from pretrain.settings import RunConfig
from pretrain.skipped import skip, write_skipped
from pretrain.step import train_step
from pretrain.watcher import Watcher

UNITS = {"loss": "1", "knn": "%"}
"""What the result of a run has as its metrics, the last ones that were logged, and their units."""


def train(config: RunConfig, initial: InitialWeights | None = None) -> int:
    """Execute the whole run and return 0. If a signal asks it to stop, save and raise KeyboardInterrupt.

    ``initial`` are the weights that ``config.init_from`` names.
    """
    check_installed(config.log.trackers)
    with SaveSignal() as save:
        return _train(config, initial, save)


def _train(config: RunConfig, initial: InitialWeights | None, save: SaveSignal) -> int:
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.backends.cudnn.benchmark = True
    else:
        keep_freed_memory()
    kind, backend = ("cuda", "cpu:gloo,cuda:nccl") if on_gpu else ("cpu", "gloo")
    with process_group(kind, config.process_timeout, backend) as device:
        with ends_in_time(partial(fail_early, config)), process_deaths_explained():
            run = setup(config, device, initial)
        if run.finished:
            say(f"{run.latest}: this run is already finished ({config.epochs} epochs); nothing to do")
            return 0
        with owned(run.out) if rank() == 0 else nullcontext():
            if rank() == 0 and modified(run.latest) != run.loaded:  # between loading it and owning the folder
                raise UserError(f"another process wrote {run.latest} meanwhile; start the same command again")
            if rank() == 0 and run.recovered is not None:
                earlier.put_back(run.out, run.recovered)
            fit(run, save)
            if rank() == 0:
                conclude(run, "ok")
        say(f"finished {config.epochs} epochs in {run.seconds:.0f} s; {run.latest}")
    return 0


def open_views(run: Run) -> TwoViews:
    """Return the samples of ``run``."""
    data = run.config.data
    return TwoViews(
        run.source,
        size=data.image_size,
        scale=(data.min_scale, data.max_scale),
        recipe=data.recipe,
        seed=run.config.seed,
        cache=data.cache,
        backend=cast(Backend, data.backend),
        colours=run.config.augment.device == "cpu",
        most_skipped=data.most_skipped(len(run.source)),
        local=data.local,
    )


def fit(run: Run, save: SaveSignal) -> None:
    """Train from ``run.step`` to the end. If that fails, write `result.json` with the reason.

    After Ctrl-C, SIGTERM or SIGHUP, finish the step, save, and raise `AgreedStop`. After SIGUSR1, noted in ``save``, finish
    the step, save, and go on.
    """
    watchers: list[Watcher] = []
    try:
        with Usage() as run.usage, ends_in_time(partial(fail, run)), process_deaths_explained():
            follow(run, save, watchers)
    finally:
        with ExitStack() as closing:  # each, even if another one cannot be closed
            for watcher in reversed(watchers):
                closing.callback(watcher.close)


def follow(run: Run, save: SaveSignal, watchers: list[Watcher]) -> None:
    """Do the steps of `fit`. All that must be closed in the end is put into ``watchers``."""
    config, data = run.config, run.config.data
    dataset = open_views(run)
    sampler = batches(config, run.order, run.step, run.total_steps)
    loader = ViewLoader(dataset, sampler, workers=data.workers, pin_memory=run.device.type == "cuda")
    saver = Saver(run)
    bad_batches = BadBatches(run, saver)
    watchers += watch(run, loader, saver)
    run.model.train()
    with worker_deaths_explained(), StopSignal() as stop:
        for views, broken in agreed(loader, stop, save, saver.check):
            if stop.agreed or save.agreed:
                bad_batches.settle()
                saver.save(run)
            if stop.agreed:
                saver.finish()
                say(f"stopped and saved after step {run.step} of {run.total_steps}")
                raise AgreedStop
            skip(run, broken, replaced=views is not None, writes=rank() == 0)
            assert views is not None
            values = train_step(run, views)
            run.step += 1
            bad_batches.note(values.pop("bad"))
            if is_due(run) or is_logged(run):
                bad_batches.settle()
            for watcher in watchers:
                watcher.after_step(run, views, values)
        bad_batches.finish()
        saver.finish()


def fail_early(config: RunConfig, error: Exception) -> None:
    """Write `result.json` after an ``error`` before the first step, but not after a user's, who may have meant another folder."""
    path = Path(config.out) / RESULT_FILE
    if not config.out or isinstance(error, UserError) or not may_record(error, path):
        return
    with suppress(OSError, ValueError):  # there is none, or it is damaged
        if json.loads(path.read_text(encoding="utf-8"))["status"] == "ok":
            return
    facts = {"kind": "pretrain", "status": "failed", "reason": explain(error), "seed": config.seed}
    write_result(path.parent, facts | {"started": now(), "finished": now()} | ended(Usage()))


def fail(run: Run, error: Exception) -> None:
    """Write `result.json` after ``error``, in whichever process it was; the cause counts more than its consequences."""
    if may_record(error, run.out / RESULT_FILE):
        conclude(run, "failed", explain(error))


def conclude(run: Run, status: str, reason: str = "") -> None:
    """Write `result.json`: the status of the run and, if it failed, the reason. An interrupted run does not write it."""
    config, curve = run.config.as_dict(), read_curve(run.out / STEP_LOG, always="knn")
    measured: dict[str, Any] = {}
    for point in curve:
        measured |= {name: value for name, value in point.items() if name in UNITS}
    facts = {"step": run.step, "steps": run.total_steps, "seconds": round(run.seconds, 2), "skipped": len(run.skipped)}
    about = {
        "method": run.config.method.name,
        "seed": run.config.seed,
        "config": config,
        "config_sha256": config_hash(config),
        "images": run.images,
    }
    numbers = {"metrics": measured, "units": {name: UNITS[name] for name in measured}, "curve": curve}
    what = {"kind": "pretrain", "status": status, "reason": reason, "initial": run.initial}
    views = run.out / VIEWS_FILE
    stored = {"stored": {views.name: stored_file(views)}} if views.exists() else {}
    times = {"started": run.started, "finished": now()} | ended(run.usage or Usage())
    write_result(run.out, what | facts | about | numbers | stored | times)


def ended(usage: Usage) -> dict[str, Any]:
    """Stop ``usage`` and return what the result records of it."""
    return {"usage": usage.stop(), "wall_time_s": usage.seconds}


def watch(run: Run, loader: ViewLoader, saver: Saver) -> list[Watcher]:
    """Return what is called after each step, in this order. All processes compute the k-NN accuracy; rank 0 logs and saves."""
    log = open_log(run, loader) if rank() == 0 else None
    watchers: list[Watcher] = [OnlineKNN(run)] if run.config.log.knn_every else []
    if log:
        watchers += [log, saver, *([Profiler(run)] if run.config.profile else [])]
    return watchers


def open_log(run: Run, loader: ViewLoader) -> StepLog:
    """Prepare the run folder, print a summary of the run, and return the log. ``loader`` gives the batches."""
    make_folder(run.out)
    checkpoint.remove_leftovers(run.out)
    for left in (RESULT_FILE, BAD_BATCH_FILE):  # by an earlier start that failed
        (run.out / left).unlink(missing_ok=True)
    if not (run.loaded and is_list_of(run.out / IMAGE_LIST, run.source.index.lines)):  # of an earlier start, or damaged
        write_list(run.out / IMAGE_LIST, run.source)
    write_skipped(run)  # it may know more than the checkpoint
    settings = json.loads(json.dumps(run.config.as_dict()))  # lists instead of tuples, as YAML has them
    write_text(run.out / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
    where = f"{world_size()} × {run.device.type}"
    images = f"{len(run.source)} images" + (f", {len(run.order)} in an epoch" if run.source.index.parts else "")
    say(
        f"{run.config.method.name}: {images}, {run.config.epochs} epoch{'s' * (run.config.epochs > 1)} of "
        f"{run.steps_per_epoch} step{'s' * (run.steps_per_epoch > 1)} "
        f"of {run.config.batch_size} images on {where}, into {run.out}"
    )
    for note in run.notes:
        say(note)
    if run.step:
        say(f"going on after step {run.step} of {run.total_steps}")
    return StepLog(run, loader)


def say(text: str) -> None:
    """Print ``text`` in the process of rank 0."""
    if rank() == 0:
        tell(text)
