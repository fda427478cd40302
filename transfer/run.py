"""One transfer run from files to `result.json`: checks, weights, the framework's runner, the record."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixbench.errors import explain, worker_deaths_explained
from pixbench.file_versions import RESULT_FILE
from pixbench.files import sha256, write_json
from pixbench.lock import owned
from pixbench.progress import note_progress
from pixbench.results import config_hash
from transfer import batch_scaling as scaling
from transfer.datasets.check import require_datasets
from transfer.job import Outcome, TransferJob
from transfer.protocols import Protocol, leaves
from transfer.published_config import published_config
from transfer.run_folder import claim, close, finished_result, is_main, now
from transfer.weights.backbone import Backbone
from transfer.weights.frameworks import FRAMEWORKS

NEUTRAL = (
    *("DATALOADER.NUM_WORKERS", "SOLVER.CHECKPOINT_PERIOD", "TEST.EVAL_PERIOD", "MODEL.DEVICE"),
    *("num_workers", "persistent_workers", "checkpoint.interval", "val_interval"),
)
"""Ends of the keys that move no metric: overriding them is no deviation."""


def run_transfer(job: TransferJob, label: str | None = None) -> dict[str, Any]:
    """Do ``job`` unless it is done already, and return its result as stored in ``job.out / "result.json"``.

    An interrupted job leaves no result and goes on from its last checkpoint when started again. A failed one leaves a result
    of status "failed" with the reason, and raises. ``label`` is the name of the row it belongs to in a table; a finished
    job takes over a new one.

    Raises `UserError` for missing data, unusable weights, or a folder that was started for another job.
    """
    from transfer.weights import load

    require_datasets(job.data_root, job.protocol.datasets)
    backbone = load(job.weights) if job.weights else None
    weights = (
        {"path": str(job.weights), "sha256": sha256(job.weights), "source": backbone.source}
        if job.weights and backbone
        else None
    )
    published = published_config(job.protocol)
    job, scaled = scale(job, published)
    identity = {
        "protocol": job.protocol.name,
        "published config": config_hash(published),
        "scale": job.scale,
        "seed": job.seed,
        "weights": weights["sha256"] if weights else "random",
        "overrides": job.all_overrides,
        "freeze": job.freeze,
        "accumulate": job.accumulate,
    }
    started_before = claim(job.out, identity)
    if (finished := finished_result(job.out)) is not None:
        row, what = finished.get("label") or finished["init"], "nothing to do"
        if label not in (None, row):
            finished["label"], what = label, f"its label is now {label} instead of {row}"
            if is_main():
                write_json(job.out / RESULT_FILE, finished)
        print(
            f"{job.out / RESULT_FILE} is there already: {job.protocol.name} was finished {finished['finished']}, {what}"
        )
        return finished
    result: dict[str, Any] = {
        "kind": "transfer",
        "protocol": job.protocol.name,
        "title": job.protocol.title,
        "framework": job.protocol.framework,
        "scale": job.scale,
        "init": Path(job.weights).name if job.weights else "random",
        "weights": weights,
        "label": label,
        "seed": job.seed,
        "overrides": job.all_overrides,
        "freeze": job.freeze,
        "scaling": {"batch": job.batch, "accumulate": job.accumulate, "overrides": job.scaling},
        "deviations": deviations(job, published) + scaled + extra_weights(job.protocol, backbone),
        "published_config_sha256": identity["published config"],
        "resumed": started_before,
        "started": now(),
    }
    clock = time.monotonic()
    with owned(job.out) if is_main() else nullcontext():
        try:
            with worker_deaths_explained():
                outcome = _runner(job.protocol.framework)(job, backbone)
            result |= _measured(job.protocol, outcome)
            result["deviations"] += outcome.deviations
        except Exception as error:
            close(job.out, {**result, "status": "failed", "reason": explain(error)}, clock)
            raise
        if is_main():
            note_progress(job.out, result["iterations"], result["iterations"], 0.0, **result["metrics"])
        return close(job.out, {**result, "status": "ok"}, clock)


def scale(job: TransferJob, published: dict[str, Any]) -> tuple[TransferJob, list[str]]:
    """``job`` with what its batch comes down to, and a sentence on that (and on accumulation), which is printed too."""
    framework, sizes = job.protocol.framework, dict(leaves(published)) | job.sizes
    if job.batch is not None:
        job = replace(job, scaling=scaling.scaled(framework, sizes, job.batch, job.overrides))
    said = scaling.sentences(framework, sizes | job.overrides, job.scaling, job.accumulate)
    if is_main():
        for line in [
            *said,
            *(f"  {key} {_brief(value)} instead of {_brief(sizes[key])}" for key, value in job.scaling.items()),
        ]:
            print(line, flush=True)
    return job, said


def deviations(job: TransferJob, published: dict[str, Any]) -> list[str]:
    """One sentence for each override that can move a metric, and for a backbone that is not trained."""
    found = ["frozen backbone: only what the protocol adds to it is trained"] if job.freeze == "backbone" else []
    for key, value in {**job.sizes, **job.overrides}.items():
        before = _look_up(published, key)
        if not key.endswith(NEUTRAL) and before != value:
            found.append(f"{key} {_brief(value)}" + (f" instead of {_brief(before)}" if before is not None else ""))
    return found


def extra_weights(protocol: Protocol, backbone: Backbone | None) -> list[str]:
    """A sentence if the run starts from more than a backbone, as the published rows do not."""
    if backbone and backbone.extras and FRAMEWORKS[protocol.weights_framework].pyramid_head:
        return ["starts from a pre-trained pyramid (and what the model has of its head) besides the backbone"]
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
    else:
        from transfer.segmentation.run import run
    return run


def _measured(protocol: Protocol, outcome: Outcome) -> dict[str, Any]:
    """What a framework's runner found out. Only rank 0 has metrics."""
    if not is_main():
        return {}
    missing = [theirs for theirs in protocol.metrics.values() if theirs not in outcome.metrics]
    if missing:
        raise RuntimeError(
            f"the evaluator of {protocol.name} gave no {', '.join(missing)}, only {', '.join(outcome.metrics)}"
        )
    return {
        "metrics": {ours: outcome.metrics[theirs] for ours, theirs in protocol.metrics.items()},
        "raw_metrics": outcome.metrics,
        "iterations": outcome.iterations,
        "config": outcome.config,
        "config_sha256": config_hash(outcome.config),
    }
