"""The options of sbatch and srun for a job, from the ``slurm:`` block of a suite."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from benchmarks.jobs import Job
from benchmarks.launch.cores import cores_needed
from benchmarks.launch.slurm_block import COMMANDS, check, minutes
from pixbench.errors import UserError

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
"""Units of memory in the block."""
GPU_OPTIONS = ("gres", "gpus_per_node", "gpus_per_task")
REQUEUES = 20
"""Number of times that a job may reach its time limit (``max_num_timeout``)."""
MARGIN = 2.0
"""Time limit with ``time: auto``, as a multiple of the published hours: GPUs wait for images and for one another."""
EVALUATION_H = 1.0
"""Hours that ``time: auto`` adds for start and evaluation."""
LONGEST_AUTO_MIN = 24 * 60
"""Longest limit of ``time: auto`` in minutes, which most clusters allow; a longer job saves and goes on."""
SAVE_S = 90
"""Seconds before the time limit at which a job is asked to save (``signal_delay_s``)."""
WAIT_S = 120
"""Seconds for which the other machines of a job go on after the first of them has ended (srun's ``--wait``).

Those that see the failure of the first one end earlier, with a reason. It is longer than a shared file system takes to show
a file that another machine wrote.
"""


def options_of(settings: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Return the sbatch options for the jobs of ``command``: the common ones and its own.

    For commands that do not train (data, convert) the common options are used without GPUs and ``nodes``. An option
    without a value counts as left out.
    """
    common = {name: value for name, value in settings.items() if name not in COMMANDS}
    if command in ("data", "convert"):
        common = {name: value for name, value in common.items() if name not in (*GPU_OPTIONS, "nodes")}
    own = settings.get(command) or {}
    return {name: value for name, value in (common | own).items() if value is not None}


def time_limit(settings: Mapping[str, Any], job: Job) -> int:
    """Return the time limit of ``job`` in minutes. "auto" is `MARGIN` times the published hours of such a job, or a day.

    ``settings`` have no mistakes.

    Raises:
        UserError: they have no time for it, or it is "auto" and the hours are not known.
    """
    command, options = job.command_name, options_of(settings, job.command_name)
    given = options.get("time")
    example = "whole minutes, e.g. time: 1440"
    if given is None:
        raise UserError(f"the suite's slurm block has no time for {command}; add {example}")
    if given == "auto":
        from benchmarks import costs  # it imports PyTorch

        hours = costs.hours(job, max(1, job.gpus) * int(options.get("nodes", 1)))
        if hours is None:
            raise UserError(
                f"the suite's slurm block: time: auto for {command}, but its hours are not known; give {example}"
            )
        return min(math.ceil(60 * (MARGIN * hours + EVALUATION_H)), LONGEST_AUTO_MIN)
    return minutes(given) or 0  # never 0: the block was checked


def job_options(settings: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """Return submitit's options for ``job``: those of ``settings``, and what every job of ours needs.

    Raises:
        UserError: there is a mistake in ``settings``, or they have no time for this job.
    """
    check(settings)
    options = options_of(settings, job.command_name) | {"time": time_limit(settings, job)}
    if job.gpus and not options.keys() & set(GPU_OPTIONS):
        options["gpus_per_node"] = job.gpus
    if job.command_name in ("pretrain", "transfer") and "cpus_per_gpu" not in options:
        options.setdefault("cpus_per_task", cores_needed(job))
    names = {"job_name": f"pixbench-{job.command_name}", "ntasks_per_node": 1, "signal_delay_s": SAVE_S}
    more = {"kill-on-invalid-dep": "yes", "requeue": True, **options.get("additional_parameters", {})}
    srun = [*srun_options(options), *options.get("srun_args", ())]  # of two equal ones, srun takes the last
    return {**names, **options, "additional_parameters": more, "srun_args": srun}


def cores_of(options: Mapping[str, Any], job: Job) -> int | None:
    """Return the number of CPUs that ``options`` ask for on each machine of ``job``; None if that is left to Slurm."""
    if "cpus_per_gpu" in options:
        return int(options["cpus_per_gpu"]) * max(1, job.gpus)
    return options.get("cpus_per_task")


def memory_of(options: Mapping[str, Any], job: Job) -> int | None:
    """Return the bytes of memory that ``options`` ask for on each machine of ``job``; None if that is left to Slurm.

    Without a unit the number is in megabytes; ``mem: 0`` is all that the machine has, which is not known here.
    """
    more = options.get("additional_parameters", {})
    shares = {"mem": 1, "mem_per_cpu": cores_of(options, job), "mem_per_gpu": max(1, job.gpus)}
    for name, share in shares.items():
        given = str(options.get(name) or more.get(name.replace("_", "-")) or "").strip().upper()
        if share and (found := re.fullmatch(r"(\d+)([KMGT]?)B?", given)):
            return share * int(found[1]) * UNITS[found[2] or "M"]
    return None


def says_memory(options: Mapping[str, Any]) -> bool:
    """Return whether ``options`` say anything about memory."""
    more = {name.replace("-", "_") for name in options.get("additional_parameters", {})}
    return bool({"mem", "mem_per_cpu", "mem_per_gpu"} & {*options, *more})


def srun_options(options: Mapping[str, Any]) -> list[str]:
    """Return the options of srun, which do not all follow from those of sbatch.

    - ``--cpus-per-task``: from Slurm 22.05 until before 23.11 srun does not take it over from sbatch. Where tasks are
      bound to cores (TaskPluginParam), all processes of a task would share one core.
    - ``--kill-on-bad-exit=0``: many sites set KillOnBadExit. When a job on several machines saves, the machine that ends
      first would kill the first machine, which still saves and puts the job into the queue again.
    - ``--wait``: ends a job one of whose machines has failed even if the others do not notice. Without it, the site's
      WaitTime holds, which may be less than the time of a save, or unlimited.
    """
    cores = [f"--cpus-per-task={options['cpus_per_task']}"] if "cpus_per_task" in options else []
    return [*cores, "--kill-on-bad-exit=0", f"--wait={WAIT_S}"]
