"""Describe a batch whose loss or gradient is not finite, on screen and in a file that `pixbench replay` reads."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any

from torch import Tensor

from pixbench.distributed import rank, world_size
from pixbench.errors import UserError, printable
from pixbench.file_versions import BAD_BATCH_FILE
from pixbench.files import write_json
from pretrain.bad_steps import LateFlags
from pretrain.checkpoint import MAY_CHANGE
from pretrain.config import flatten
from pretrain.data.loader import Batches, SampleId
from pretrain.log.screen import tell
from pretrain.run import Run
from pretrain.saver import Saver
from pretrain.settings import RunConfig


class BadBatches:
    """Follow the flags of the steps of ``run``: count bad steps, tell of them, and stop the run after too many in a row."""

    def __init__(self, run: Run, saver: Saver) -> None:
        self._run, self._saver, self._flags = run, saver, LateFlags()

    def note(self, bad: Tensor) -> None:
        """Take the flag ``bad`` of the step that ended: ``run.step`` counts it already. It may be read some steps later.

        Raises:
            UserError: More than `max_bad_steps` steps in a row were bad.
        """
        self._flags.add(self._run.step, bad)
        self.settle(everything=False)

    def settle(self, everything: bool = True) -> None:
        """Count the steps whose flags have come. With ``everything``, wait for all: what a checkpoint holds must be true.

        Raises:
            UserError: More than `max_bad_steps` steps in a row were bad. `BAD_BATCH_FILE` then describes the last of them, and
                the newest checkpoint is of now. Bad steps have not changed the weights.
        """
        run = self._run
        for step, bad in self._flags.read(everything):
            run.bad_steps.count(bad)
            if run.bad_steps.in_a_row == 1 and rank() == 0:
                tell(
                    f"step {step}: the loss or a gradient is not finite, so the step is skipped (images "
                    f"{_first_names(run, step)}, ...)"
                )
            if run.bad_steps.too_many:
                raise self._give_up(step)

    def finish(self) -> None:
        """Wait for all flags at the end of the run.

        Raises:
            UserError: As `settle`, also if a run that gave up at its last step is started again.
        """
        self.settle()
        if self._run.bad_steps.too_many:
            raise self._give_up(self._run.step)

    def _give_up(self, step: int) -> UserError:
        run, count = self._run, self._run.bad_steps.in_a_row
        for _, bad in self._flags.read(everything=True):  # of steps that had begun meanwhile
            run.bad_steps.count(bad)
        with suppress(UserError):  # not finite either: the newest checkpoint stays
            self._saver.save(run)
            self._saver.finish()
        if rank() == 0:
            write_json(run.out / BAD_BATCH_FILE, describe(run, step, count))
        last = f"; the weights before these steps are in {run.latest}" if run.latest.exists() else ""
        row = f"{count} step{'s' * (count > 1)} in a row"
        advice = "choose another --out with a lower optimizer.base_lr"
        if run.config.precision != "fp32":
            advice += " or precision fp32"
        if run.config.precision == "fp16":
            advice = f"go on with --precision bf16 or fp32, or {advice}"
        return UserError(
            f"the loss or a gradient was not finite in {row}, the last of them step {step} (images {_first_names(run, step)}, "
            f"...){last}; see what happens with `pixbench replay {run.out}`; {advice}"
        )


def describe(run: Run, step: int, in_a_row: int) -> dict[str, Any]:
    """Return the description of the batch of step ``step``, the last of ``in_a_row`` bad steps."""
    samples = samples_of(run, step)
    return {
        "step": step,
        "bad_steps_in_a_row": in_a_row,
        "seed": run.config.seed,
        "processes": world_size(),
        "samples": [list(sample) for sample in samples],
        "images": [run.source.names[image_of(run, sample)] for sample in samples],
        "config": fingerprint(run.config),
        "checkpoint": run.latest.name,
    }


def samples_of(run: Run, step: int) -> list[SampleId]:
    """Return the sample ids of the whole batch of step ``step`` (counted from 1), of all processes."""
    return next(iter(Batches(run.order, run.config.batch_size, seed=run.config.seed, first=step - 1, last=step)))


def image_of(run: Run, sample: SampleId) -> int:
    """Return the index of the image of ``sample``, or of the one that is taken for it because it is missing."""
    return run.source.present(sample[1] % len(run.source))


def fingerprint(config: RunConfig) -> str:
    """Return the SHA-256 digest of all settings on which results depend, in hexadecimal."""
    settings = {key: value for key, value in flatten(config.as_dict()).items() if key not in MAY_CHANGE}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _first_names(run: Run, step: int) -> str:
    samples = samples_of(run, step)
    return ", ".join(printable(run.source.names[image_of(run, sample)]) for sample in samples[:3])
