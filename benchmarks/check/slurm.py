"""Check what a suite asks Slurm for, and show it before anything is submitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from tabulate import tabulate

from benchmarks.check.findings import Findings
from benchmarks.check.report import JobCost
from benchmarks.jobs import Job
from benchmarks.launch.cores import fewer_workers
from benchmarks.launch.slurm_block import COMMANDS, without, wrong
from benchmarks.launch.slurm_options import (
    REQUEUES,
    cores_of,
    job_options,
    memory_of,
    options_of,
    says_memory,
    time_limit,
)
from pixbench.errors import UserError
from pretrain.data.in_flight import readable

BLOCK = "slurm block"
OURS = ("job_name", "signal_delay_s", "srun_args", "additional_parameters", "ntasks_per_node", "max_num_timeout")
"""Options that are not shown: they are the same for all jobs, or say nothing of the machines."""
SHOWN = ("time", "nodes", "gpus_per_node", "cpus_per_task", "mem")
"""Options that have a column of their own."""


class SlurmChecks:
    """Checks of the ``slurm:`` block of a suite, which add problems to ``found`` and sentences to ``notes``."""

    def __init__(self, found: Findings, notes: list[str], block: Mapping[str, Any]) -> None:
        self.found, self.notes = found, notes
        mistakes = wrong(block)
        for part, _, sentence in mistakes:
            found.add(f"{BLOCK}, {part}" if part else BLOCK, sentence)
        self.block = without(block, mistakes)
        self._no_time = {part for part, option, _ in mistakes if option == "time"}
        """Parts of the block whose time is wrong; it is not missing, too."""
        self._asked: list[tuple[str, dict[str, Any], list[Job]]] = []
        self._most = 0

    def options(self, job: Job) -> dict[str, Any]:
        """Return the options of sbatch for ``job``; nothing if there is no time for it, which is a problem of the block."""
        if options_of(self.block, job.command_name).get("time") is None and {"", job.command_name} & self._no_time:
            return {}
        try:
            time_limit(self.block, job)
        except UserError as error:
            self.found.add(BLOCK, str(error))
            return {}
        return job_options(self.block, job)

    def fewer_workers(self, job: Job) -> tuple[str, ...]:
        """Return the words that fit the data workers of ``job`` to its CPUs, as when it is submitted."""
        options = options_of(self.block, job.command_name)
        words, sentence = fewer_workers(job, cores_of(options, job))
        self.notes += [sentence] if sentence else []
        return words

    def add(self, jobs: Sequence[Job], cost: JobCost | None = None) -> None:
        """Note what ``jobs``, which have the same options, ask for; add a problem for each limit that ``cost`` exceeds."""
        if not (options := self.options(jobs[0])):
            return
        command = jobs[0].command_name
        same = next((members for name, others, members in self._asked if (name, others) == (command, options)), None)
        if same is None:
            self._asked.append((command, options, same := []))
        same += jobs
        if not cost:
            return
        time, starts = options["time"], options.get("max_num_timeout", REQUEUES) + 1
        if cost.cost and cost.hours and cost.hours > time * starts / 60:
            self.found.add(
                cost.name,
                f"it needs at least {cost.hours:.0f} hours on {cost.gpus} GPUs ({cost.cost.gpu}), but {starts} × {time} minutes "
                f"are {time * starts / 60:.1f} hours; raise time or max_num_timeout in the slurm block",
            )
        given = memory_of(options, jobs[0])
        if cost.host and given and given < cost.host:
            self.found.add(
                cost.name,
                f"its data workers may hold {readable(cost.host)} of batches on each machine, but mem in the slurm block is "
                f"{readable(given)}; lower data.workers or raise mem",
            )
        if cost.host and not says_memory(options):
            self._most = max(self._most, cost.host)

    def conclude(self) -> None:
        """Note what is about all jobs; call it after the last of them."""
        if self._most:
            self.notes.append(
                f"the slurm block has no mem, but the batches of a job may take {readable(self._most)} on each machine, and more "
                "is needed beside them; unless your cluster gives whole machines, add for example mem: 400GB"
            )

    def table(self) -> str:
        """Return one line for all jobs that ask for the same; "" if nothing is known."""
        rows = []
        order = sorted(self._asked, key=lambda entry: COMMANDS.index(entry[0]))
        for command, options, jobs in order:
            arrays: dict[tuple[str, ...], int] = {}
            for job in jobs:
                arrays[job.after] = arrays.get(job.after, 0) + 1
            sizes = [size for size in arrays.values() if size > 1]
            rest = [f"{name} {value}" for name, value in options.items() if name not in (*SHOWN, *OURS)]
            rows.append(
                (
                    command + (f" × {len(jobs)}" if len(jobs) > 1 else ""),
                    clock(options["time"]),
                    options.get("nodes", 1),
                    *(options.get(name, "") for name in SHOWN[2:]),
                    f"{len(sizes)} of up to {max(sizes)}" if sizes else "",
                    ", ".join(rest),
                )
            )
        heads = ("asked of Slurm", "time", "nodes", "GPUs a node", "CPUs a node", "mem", "arrays", "other options")
        return tabulate(rows, heads, tablefmt="plain", disable_numparse=True) if rows else ""


def clock(minutes: int) -> str:
    """Return a time limit as Slurm shows it: D-HH:MM:SS."""
    span = timedelta(minutes=minutes)
    return f"{span.days}-{span.seconds // 3600:02}:{span.seconds // 60 % 60:02}:00"
