"""Describe a batch whose loss is not finite, on screen and in a file that `pixbench replay` reads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from pixbench.distributed import rank, world_size
from pixbench.errors import UserError, printable
from pixbench.file_versions import BAD_BATCH_FILE
from pixbench.files import write_json
from pretrain.checkpoint import MAY_CHANGE
from pretrain.config import RunConfig, flatten
from pretrain.data.loader import Batches, SampleId
from pretrain.run import Run
from pretrain.saver import Saver


def note(run: Run, saver: Saver, bad: bool) -> None:
    """Count the last finished step of ``run`` as bad or good, and stop the run after too many bad ones in a row.

    Then the state before the first of them becomes the newest checkpoint, so that it can be replayed: they changed nothing.

    Args:
        run: the run, of which ``run.step`` counts the step already. No later step may have begun if the step is bad and the
            one before it was, too.
        saver: what writes its checkpoints.
        bad: whether the loss was not finite, so that the step was skipped.

    Raises:
        UserError: More than `max_bad_steps` steps in a row were bad. The file `BAD_BATCH_FILE` describes the last of them.
    """
    steps = run.bad_steps
    steps.count(bad)
    if steps.in_a_row == 1 and rank() == 0:
        tqdm.write(f"step {run.step}: the loss is not finite, so the step is skipped (images {_first_names(run)}, ...)")
    if not steps.too_many:
        return
    good = replace(run, step=run.step - steps.in_a_row, bad_steps=steps.before_the_row())
    try:
        saver.save(good)
        saver.finish()
    except UserError:  # it is not finite either: the newest checkpoint stays
        pass
    if rank() == 0:
        write_json(run.out / BAD_BATCH_FILE, describe(run))
    last = f"; the last good checkpoint is {run.latest}" if run.latest.exists() else ""
    row = f"{steps.in_a_row} step{'s' * (steps.in_a_row > 1)} in a row"
    raise UserError(
        f"the loss was not finite in {row}, the last of them step {run.step} (images {_first_names(run)}, ...){last}; see what "
        f"happens with `pixbench replay {run.out}`; lower optimizer.base_lr or use precision fp32, and choose another --out"
    )


def describe(run: Run) -> dict[str, Any]:
    """Return the description of the batch of the last finished step of ``run``."""
    samples = samples_of(run.config, len(run.source), run.step)
    return {
        "step": run.step,
        "bad_steps_in_a_row": run.bad_steps.in_a_row,
        "seed": run.config.seed,
        "processes": world_size(),
        "samples": [list(sample) for sample in samples],
        "images": [run.source.names[run.source.present(index)] for _, index in samples],
        "config": fingerprint(run.config),
        "checkpoint": run.latest.name,
    }


def samples_of(config: RunConfig, images: int, step: int) -> list[SampleId]:
    """Return the sample ids of the whole batch of step ``step`` (counted from 1), of all processes."""
    return next(iter(Batches(images, config.batch_size, seed=config.seed, first=step - 1, last=step)))


def fingerprint(config: RunConfig) -> str:
    """Return the SHA-256 digest of all settings on which results depend, in hexadecimal."""
    settings = {key: value for key, value in flatten(config.as_dict()).items() if key not in MAY_CHANGE}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _first_names(run: Run) -> str:
    samples = samples_of(run.config, len(run.source), run.step)
    return ", ".join(printable(run.source.names[run.source.present(index)]) for _, index in samples[:3])
