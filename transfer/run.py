"""Run one transfer job: check the data, load the weights, call the framework's runner and write `result.json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixbench.curve import CURVE_FILE, read_curve
from pixbench.errors import UserError, explain, is_out_of_memory, worker_deaths_explained
from pixbench.file_versions import RESULT_FILE
from pixbench.lock import owned
from pixbench.process_group import ends_in_time, may_record, process_deaths_explained
from pixbench.progress import note_progress
from pixbench.provenance import code, now
from pixbench.results import config_hash, rewrite_result
from pixbench.usage import Usage
from transfer import batch_scaling as scaling
from transfer.datasets.check import Outcome as DataOutcome
from transfer.datasets.check import check_own_classes, needs_of, require_datasets
from transfer.datasets.checked import fingerprint
from transfer.datasets.layout import SETS, home_of
from transfer.datasets.prepared import prepare
from transfer.frozen.class_folders import SETS_OF_CLASSES, class_folders, other_counts
from transfer.job import Outcome, TransferJob
from transfer.protocols import NEUTRAL, Protocol, leaves
from transfer.published_config import published_config
from transfer.run_folder import claim, close, finished_result, is_main, row_of
from transfer.weights.backbone import Backbone
from transfer.weights.frameworks import FRAMEWORKS
from transfer.weights.sources import Source

_said: set[str] = set()
"""Notes on data that this process has printed; a command may run several protocols on the same data."""
PUBLISHED_ONLY = ("fgIoU",)
"""Metrics that are defined for the published classes only."""


@dataclass(frozen=True)
class Start:
    """The files that a run starts from, found and read."""

    weights: Source | None
    """The file of ``job.weights``."""
    backbone: Backbone | None
    """What it holds; None for a random backbone."""
    like: Source | None
    """The file of ``job.like``."""


def start_of(job: TransferJob) -> Start:
    """Find and read the weights of ``job``; raise UserError if that is not possible."""
    from transfer.weights import load
    from transfer.weights.sources import locate

    weights = locate(job.weights) if job.weights else None
    return Start(weights, load(weights) if weights else None, locate(job.like) if job.like else None)


def run_transfer(
    job: TransferJob, label: str | None = None, trust_data: bool = False, start: Start | None = None
) -> dict[str, Any]:
    """Run ``job`` unless it is finished already, and return its result as stored in ``job.out / "result.json"``.

    An interrupted job leaves no result; when it is started again, it continues from its last checkpoint. A failed job
    leaves a result with status "failed" and the reason, and raises its error. ``label`` is the name of the table row
    that the job belongs to; a new label replaces the one of a finished job. The data is checked completely first; with
    ``trust_data``, only what has changed since it was checked. ``start`` is what `start_of` returned for this job or for
    another one with the same weights.

    Raises:
        UserError: the data has problems, the weights cannot be used, or ``job.out`` belongs to another job.
    """
    published = published_config(job.protocol)
    known = deviations(job, published)
    ended_before = (job.out / RESULT_FILE).exists()  # then there may be nothing to do
    data = DataOutcome() if ended_before else checked_data(job, trust_data)
    start = start or start_of(job)
    located, backbone = start.weights, start.backbone
    weights = (
        {
            "path": str(job.weights),
            "sha256": located.sha256,
            "source": backbone.source,
            "pretraining": backbone.pretraining,
        }
        if located and backbone
        else None
    )
    if job.protocol.kind == "frozen":
        job = replace(job, freeze="backbone")
    job, batch_notes = apply_batch(job, published)
    identity = {
        "protocol": job.protocol.name,
        "published config": config_hash(published),
        "scale": job.scale,
        "seed": job.seed,
        "weights": weights["sha256"] if weights else "random",
        "like": start.like.sha256 if start.like else None,
        "overrides": job.all_overrides,
        "freeze": job.freeze,
        "accumulate": job.accumulate,
        "classes": list(job.classes.names) if job.classes else None,
        "content of files": job.files,
    }
    root = str(job.data_root.resolve())  # no part of the identity: a copy on another disk holds the same data
    started_before = claim(job.out, identity)
    if (finished := finished_result(job.out)) is not None:
        row, what = row_of(finished), "nothing to do"
        if label not in (None, row):
            finished["label"], what = label, f"its label is now {label} instead of {row}"
            if is_main():
                rewrite_result(job.out / RESULT_FILE, finished)
        measured = (finished.get("data") or {}).get("root", root)
        where = "" if measured == root else f" with the data in {measured}, not {root}"
        print(
            f"{job.out / RESULT_FILE} exists already: {job.protocol.name} was finished at {finished['finished']}{where}, {what}"
        )
        return finished
    if ended_before:
        data = checked_data(job, trust_data)
    more = batch_notes + extra_weights(job.protocol, backbone) + data.differs
    result: dict[str, Any] = {
        "kind": job.protocol.kind,
        "protocol": job.protocol.name,
        "title": job.protocol.title,
        "framework": job.protocol.framework,
        "scale": job.scale,
        "init": Path(job.weights).name if job.weights else "random",
        "weights": weights,
        "like": identity["like"],
        "label": label,
        "seed": job.seed,
        "overrides": job.all_overrides,
        "files": job.files,
        "freeze": job.freeze,
        "scaling": {"batch": job.batch, "accumulate": job.accumulate, "overrides": job.scaling},
        "classes": identity["classes"],
        "data": {"root": root, "notes": data.notes, "fingerprints": fingerprints(job) if is_main() else {}},
        "deviations": known + more,
        "published_config_sha256": identity["published config"],
        "resumed": started_before,
        "started": now(),
    }
    code()  # as it is now, not at the end
    with owned(job.out) if is_main() else nullcontext(), Usage() as usage:
        if is_main() and (job.out / RESULT_FILE).exists():  # written between reading it and owning the folder
            raise UserError(f"another process wrote {job.out / RESULT_FILE} meanwhile; start the same command again")

        def fail(error: Exception) -> None:
            if may_record(error, job.out / RESULT_FILE):
                close(job.out, {**result, "status": "failed", "reason": explain(error)}, usage)

        with ends_in_time(fail):
            if is_main():
                prepare(job.out, data)
            with settings_explained(job), worker_deaths_explained(), process_deaths_explained():
                outcome = _runner(job.protocol.framework)(job, backbone)
            result |= _measured(job, outcome) | {"curve": read_curve(job.out / CURVE_FILE)}
            if is_main():
                result["deviations"] = deviations(job, published, outcome.config) + more
            result["deviations"] += outcome.deviations
        if not is_main():
            return result
        note_progress(job.out, result["iterations"], result["iterations"], 0.0, **result["metrics"])
        return close(job.out, {**result, "status": "ok"}, usage, outcome.kept.arrays)


@contextmanager
def settings_explained(job: TransferJob) -> Iterator[None]:
    """Turn an error of the framework into a `UserError` that names the settings of the user's own, if there are any.

    The frameworks do not check most settings; a value that does not fit ends in any error, anywhere.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        if not job.overrides or is_out_of_memory(error):
            raise
        listed = " ".join(f"--set {key}={_brief(value)}" for key, value in job.overrides.items())
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise UserError(
            f"{job.protocol.framework} stopped ({type(error).__name__}: {reason}); this run has settings of its own that may not "
            f"fit: {listed}; correct them or leave them out (if it stops without them too, that is a defect in PixBench)"
        ) from error


def checked_data(job: TransferJob, trust: bool) -> DataOutcome:
    """Check the data of ``job`` on rank 0, and print how unusual data is read. Other ranks wait for it in the process group."""
    if job.classes:
        check_own_classes(job.protocol)
    if not is_main():
        return DataOutcome()
    names, published = list(job.protocol.datasets), job.scale == "paper" and not job.classes
    of_classes = [name for name in names if name in SETS_OF_CLASSES]
    splits = [(name, class_folders(job.data_root / name, shared=False)) for name in of_classes]
    listed = [name for name in names if name not in of_classes]
    found = require_datasets(job.data_root, listed, needs_of(job.protocol, job.classes), trust, published)
    if published and not found.differs:
        found.differs += [line for name, both in splits for line in other_counts(name, both)]
    for line in found.notes + found.differs:
        if line not in _said:
            print(f"data: {line}", flush=True)
    _said.update(found.notes + found.differs)
    return found


def fingerprints(job: TransferJob) -> dict[str, str]:
    """Return data set -> digest of what it holds, which is the same for a copy in another place.

    It covers the relative names and the sizes of all files, and the content of lists and annotation files.
    """
    homes = {name: home_of(job.data_root, name) for name in job.protocol.datasets}
    return {name: fingerprint(home, SETS[name]) for name, home in homes.items()}


def apply_batch(job: TransferJob, published: dict[str, Any]) -> tuple[TransferJob, list[str]]:
    """Return ``job`` with the overrides that its batch needs, and sentences on batch and accumulation. Print both."""
    framework, sizes = job.protocol.framework, dict(leaves(published)) | job.sizes
    if framework == "frozen":
        if job.batch is not None or job.accumulate > 1:
            raise UserError(f"{job.protocol.name} trains nothing in batches; leave out --batch and --accumulate")
        return job, []
    if job.batch is not None:
        job = replace(job, scaling=scaling.scaled(framework, sizes, job.batch, job.overrides))
    notes = scaling.sentences(framework, sizes | job.overrides, job.scaling, job.accumulate)
    if is_main():
        for line in [
            *notes,
            *(f"  {key} {_brief(value)} instead of {_brief(sizes[key])}" for key, value in job.scaling.items()),
        ]:
            print(line, flush=True)
    return job, notes


def deviations(job: TransferJob, published: dict[str, Any], resolved: dict[str, Any] | None = None) -> list[str]:
    """Return one sentence for each override that can change a metric, one for a frozen backbone, and one for own classes.

    What the protocol itself changes in the public definition comes first. Values of the model are those of the ``resolved``
    config if it is known: a backbone may have another width than the mini scale says.
    """
    froze = job.freeze == "backbone" and job.protocol.kind != "frozen"
    found = [*job.protocol.differs]
    found += ["frozen backbone: only what the protocol adds to it is trained"] if froze else []
    if job.classes:
        found.append(f"{job.classes.brief} of its own instead of those of the protocol")
    idle = _without_effect(job)
    for key, given in {**job.sizes, **job.overrides}.items():
        before, fitted = (
            _look_up(published, key),
            resolved is not None and key.upper().startswith(("MODEL.", "VITDET.")),
        )
        value = _look_up(resolved, key) if fitted else given
        if fitted and value is None:
            continue  # it describes a backbone that this run does not have
        if not key.endswith(NEUTRAL) and key not in idle and before != value:
            content = f" (content {job.files[key][:12]})" if key in job.files else ""
            found.append(
                f"{key} {_brief(value)}{content}" + (f" instead of {_brief(before)}" if before is not None else "")
            )
    return found


def _without_effect(job: TransferJob) -> Iterable[str]:
    """Return the keys of a frozen protocol that change nothing; sizes of the mini scale may be among them."""
    if job.protocol.framework != "frozen":
        return ()
    from transfer.frozen.config import resolve

    return resolve(job).without_effect()


def extra_weights(protocol: Protocol, backbone: Backbone | None) -> list[str]:
    """Return a sentence if the run starts from more than a backbone; published rows start from a backbone only.

    A frozen protocol has no framework, and takes the backbone alone.
    """
    taken = protocol.weights_framework
    if backbone and backbone.extras and taken and FRAMEWORKS[taken].pyramid_head:
        return [
            "starts from a pre-trained feature pyramid (and the layers of its head that the model has), not only from a "
            "backbone"
        ]
    return []


def _look_up(config: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(config, dict) and part in config:
            config = config[part]
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        else:
            return None
    return config


def _brief(value: Any) -> str:
    if isinstance(value, list | tuple):
        items = [_brief(item) for item in value]
        return f"({', '.join(items if len(items) <= 6 else [items[0], '…', items[-1]])})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _runner(framework: str) -> Any:
    if framework == "detectron2":
        from transfer.detection.run import run
    elif framework == "frozen":
        from transfer.frozen.run import run
    else:
        from transfer.segmentation.run import run
    return run


def _measured(job: TransferJob, outcome: Outcome) -> dict[str, Any]:
    """Return the part of the result that comes from the framework's runner; empty except on rank 0."""
    if not is_main():
        return {}
    wanted = {
        ours: theirs for ours, theirs in job.protocol.metrics.items() if not (job.classes and theirs in PUBLISHED_ONLY)
    }
    missing = [theirs for theirs in wanted.values() if theirs not in outcome.metrics]
    if missing:
        raise RuntimeError(
            f"the evaluator of {job.protocol.name} gave no {', '.join(missing)}, only {', '.join(outcome.metrics)}"
        )
    kept = outcome.kept
    return {
        "metrics": {ours: outcome.metrics[theirs] for ours, theirs in wanted.items()},
        "units": {ours: job.protocol.unit(ours) for ours in wanted},
        "per_class": {ours: kept.per_class[theirs] for ours, theirs in wanted.items() if theirs in kept.per_class},
        "per_image": {ours: kept.per_image[theirs] for ours, theirs in wanted.items() if theirs in kept.per_image},
        "raw_metrics": outcome.metrics,
        "iterations": outcome.iterations,
        "config": outcome.config,
        "config_sha256": config_hash(outcome.config),
    } | ({"evaluation": outcome.evaluation} if outcome.evaluation else {})
