"""The CPU cores that a job uses on each machine: one for each training process and one for each of its data workers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cache
from typing import Any

import yaml

from benchmarks.jobs import Job
from pixbench.errors import UserError
from transfer.protocols import find_protocol, leaves

READERS = 4
"""Processes that read the pictures of a frozen protocol, if nothing is known of the cores."""


@cache
def data_workers(job: Job) -> int:
    """Return the number of data workers of each training process of ``job``; 0 if its command does not train.

    Raises:
        UserError: a setting of the job is wrong, or its framework is not installed.
    """
    if job.command_name not in ("pretrain", "transfer") or job.command_name not in job.command:
        return 0
    words = job.command[job.command.index(job.command_name) + 1 :]
    try:
        return _of_pretraining(words) if job.command_name == "pretrain" else _of_transfer(words)
    except UserError as error:
        raise UserError(f"{job.name}: {error}") from error
    except ModuleNotFoundError as error:
        raise UserError(f"{job.name} needs {error.name}, which is not installed; see pixbench doctor") from error


def cores_needed(job: Job) -> int:
    """Return the number of cores with which no process of ``job`` has to share its core."""
    return max(1, job.gpus) * (1 + data_workers(job))


def fewer_workers(job: Job, cores: int | None) -> tuple[tuple[str, ...], str]:
    """Fit the data workers of ``job`` to ``cores`` (None: not known, so nothing is done).

    Only pre-training gets fewer workers, and never less than one: its batches do not depend on their number. A transfer
    run could not be continued with another number, because its settings are its identity.

    Returns:
        The words to add to the command of the job, and a sentence for the user; both are empty if there are enough
        cores.
    """
    if cores is None:
        return (), ""
    processes, workers = max(1, job.gpus), data_workers(job)
    room = max(1, cores // processes - 1)
    if room >= workers or _is_frozen(job):  # which has as many readers as there are cores
        return (), ""
    enough = f"cpus_per_task: {cores_needed(job)} in the slurm block is enough for all"
    if job.command_name == "transfer":
        shared = f"{processes} training processes and {processes * workers} data workers share {cores} CPUs"
        return (), f"transfer: {shared}; {enough}"
    return (f"--data.workers={room}",), (
        f"{job.name}: {room} data workers per training process instead of {workers}, to fit into {cores} CPUs; results "
        f"do not depend on it, but the GPUs may wait for images ({enough})"
    )


def _of_pretraining(words: Sequence[str]) -> int:
    from pretrain.config import parse

    return parse(words).data.workers


def _of_transfer(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("protocol")
    parser.add_argument("--scale")
    parser.add_argument("--set", action="append", default=[])
    known, _ = parser.parse_known_args(words)
    if find_protocol(known.protocol).framework == "frozen":
        return READERS
    sizes = find_protocol(known.protocol).mini if known.scale == "mini" else {}
    own = {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in known.set)}
    settings = _published(known.protocol) | sizes | own
    counts = [value for key, value in settings.items() if key.lower().endswith("num_workers")]
    # training and validation take turns, so the larger number counts; a wrong value is refused when the job starts
    return max((count for count in counts if isinstance(count, int)), default=0)


def _is_frozen(job: Job) -> bool:
    return job.command_name == "transfer" and find_protocol(job.name.split("/")[2]).framework == "frozen"


@cache
def _published(protocol: str) -> dict[str, Any]:
    from transfer.published_config import published_config

    return dict(leaves(published_config(find_protocol(protocol))))
