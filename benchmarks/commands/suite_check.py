"""`pixbench suite SUITE --check`: find the mistakes of all jobs without training, and count what they will cost."""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import costs
from benchmarks.check import backbones
from benchmarks.check.built import Resolved
from benchmarks.check.findings import Findings
from benchmarks.check.pretraining import check_run
from benchmarks.check.report import JobCost, table, totals
from benchmarks.check.transfer import TransferChecks
from benchmarks.commands import PIXBENCH
from benchmarks.commands import transfer as transfer_command
from benchmarks.commands.pretrain import initial_weights
from benchmarks.dry_step import dry_step
from benchmarks.jobs import Job
from benchmarks.launch.slurm_options import COMMANDS, REQUEUES, job_options, options_of
from benchmarks.suite import Row, Suite, like_row, plan
from pretrain.config import parse
from pretrain.data.in_flight import in_flight, readable
from pretrain.settings import RunConfig
from transfer.job import TransferJob
from transfer.weights import Backbone
from transfer.weights.frameworks import express

PLACE = Path("DATA")
"""What the data root is called where none is given."""
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
"""Units of memory in the slurm block."""


def check_suite(suite: Suite, out: Path, data_root: Path | None, gpus: Mapping[str, int], on_slurm: bool) -> int:
    """Check all jobs of a suite, print what was found, and return 1 if there is a problem, else 0.

    Args:
        suite: the suite.
        out: its output folder.
        data_root: folder of the data sets, if it is known.
        gpus: command -> number of GPUs of its jobs on each machine.
        on_slurm: whether its ``slurm`` block is used.
    """
    check = SuiteCheck(suite, out, data_root or out / "data", gpus, on_slurm)
    with quiet():
        check.run()
    print(f"{table(check.costs)}\n\n{totals(check.costs)}")
    needed, place = sum(cost.disk * cost.jobs for cost in check.costs), out
    while not place.exists():
        place = place.parent
    if (free := shutil.disk_usage(place).free) < needed:
        check.notes.append(
            f"warning: checkpoints and features need {readable(needed)}, but {place} has {readable(free)} free"
        )
    print("".join(f"{note}\n" for note in dict.fromkeys(check.notes)), end="")
    if not check.found.problems:
        print("no problems found")
        return 0
    print(f"\n{check.found.table()}")
    return 1


@contextmanager
def quiet() -> Iterator[None]:
    """Let the frameworks warn of nothing: a run writes their warnings to its log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class SuiteCheck:
    """The check of one suite; what equal jobs have in common is checked once."""

    def __init__(self, suite: Suite, out: Path, root: Path, gpus: Mapping[str, int], on_slurm: bool) -> None:
        self.suite, self.out, self.gpus, self.on_slurm = suite, out, gpus, on_slurm
        self.data_is_there = root.is_dir()
        self.root = root if self.data_is_there else PLACE
        self.found, self.notes, self.costs = Findings(), list[str](), list[JobCost]()
        if not self.data_is_there:
            self.notes.append(f"data not looked at: there is no folder {root}; give it with --data-root")
        self._configs: dict[str, RunConfig] = {}
        self._backbones: dict[str, Backbone | None] = {}
        self._transfers = TransferChecks(self.found)
        self._computed: set[tuple[str, str]] = set()
        self._parser = argparse.ArgumentParser()
        transfer_command.register(self._parser.add_subparsers())

    def run(self) -> None:
        """Check everything."""
        groups: dict[str, list[Job]] = {}
        for job in self._planned():
            name = job.name.rpartition("/")[0] if job.command_name == "transfer" else job.name  # without the seed
            groups.setdefault(name, []).append(replace(job, gpus=self.gpus.get(job.command_name, 0)))
        for name, jobs in sorted(groups.items(), key=lambda group: COMMANDS.index(group[1][0].command_name)):
            with self.found.of(name):
                if jobs[0].command_name == "pretrain":
                    self._pretrain(jobs[0])
                elif jobs[0].command_name == "transfer":
                    self._transfer(name, jobs)
                else:
                    self._options(jobs[0])

    def _planned(self) -> list[Job]:
        """Return the jobs of all rows and protocols that can be planned."""
        jobs: dict[str, Job] = {}
        for label, row in self.suite.rows.items():
            parts: list[tuple[str, ...]] = [(name,) for name in self.suite.protocols]
            for protocols in parts or [()]:
                with self.found.of("/".join(("transfer", label, *protocols)) if protocols else f"pretrain/{label}"):
                    part = replace(self.suite, rows={label: row}, protocols=protocols)
                    jobs |= {job.name: job for job in plan(part, self.out, self.root, PIXBENCH)}
        return list(jobs.values())

    def _pretrain(self, job: Job) -> None:
        label, processes = job.name.partition("/")[2], self._processes("pretrain")
        config = self._configs[label] = parse(_words(job))
        images, said = check_run(self.found, job.name, config, processes, initial_weights, self.data_is_there)
        self.notes += [f"{job.name}: {line}" for line in said]
        step, here, paper = dry_step(config), max(1, self.gpus["pretrain"]), self.suite.scale == "paper"
        self._add(
            job,
            JobCost(
                name=job.name,
                gpus=processes,
                memory=step.memory(processes),
                rate=costs.images_per_second(config) if paper else None,
                host=in_flight(config, processes, here).memory,
                disk=costs.disk(config),
                cost=costs.pretraining(config, images) if paper else None,
            ),
        )

    def _transfer(self, name: str, seeds: Sequence[Job]) -> None:
        _, label, _ = name.split("/")
        jobs = [self._job(job) for job in seeds]
        job, row, processes = jobs[0], self.suite.rows[label], self._processes("transfer")
        if self.data_is_there:
            self._transfers.check_data(name, job)
        if row.pretrain and label not in self._configs:
            return  # its settings are wrong
        backbone = self._backbone(label, row)
        if row.pretrain and backbone and job.protocol.weights_framework:
            express(backbone, job.protocol.weights_framework)  # as its convert job does
        frozen = job.protocol.framework == "frozen"
        if job.protocol.kind == "frozen" and backbone is None and (like := like_row(self.suite)):
            if self.suite.rows[like].pretrain and like not in self._configs:
                return
            backbone = self._backbone(like, self.suite.rows[like])
        if (checked := self._transfers.check(name, job, backbone, processes)) is None:
            return
        resolved, model = checked
        published = job.protocol.cost if self.suite.scale == "paper" else None
        self._add(
            seeds[0],
            JobCost(
                name=name,
                jobs=len(jobs),
                gpus=processes,
                memory=model.memory(-(-resolved.batch // (processes * job.accumulate))),
                rate=resolved.batch / published["seconds"] / int(published["gpus"].split()[0]) if published else None,
                disk=self._features(name, jobs, resolved, backbone) if frozen else resolved.kept * model.checkpoint,
                cost=costs.fine_tuning(job.protocol, resolved.iterations) if published else None,
            ),
        )

    def _features(self, name: str, jobs: Sequence[TransferJob], resolved: Resolved, backbone: Backbone | None) -> int:
        """Return the bytes of features that no job before has computed already, for each of ``jobs``.

        Random backbones of other seeds have other features.
        """
        if not self.data_is_there:
            return 0
        from benchmarks.check.frozen import features_of

        job = jobs[0]
        found = features_of(job, resolved.config, backbone or backbones.drawn(resolved.spec, 0))
        if (most := max(found.values())) > self.suite.features_gb * 1e9:
            self.found.add(
                name,
                f"the features of one split take {readable(most)}, but the suite's features_gb is {self.suite.features_gb:g}; "
                "raise it, or lower images.size",
            )
        label, new = name.split("/")[1], 0
        for key, size in found.items():
            new += 0 if (label, key) in self._computed else size
            self._computed.add((label, key))
        return new if job.weights is None else new // len(jobs)

    def _job(self, job: Job) -> TransferJob:
        return transfer_command.job_of(self._parser.parse_args(["transfer", *_words(job)]))

    def _backbone(self, label: str, row: Row) -> Backbone | None:
        """Return the backbone that the jobs of a row start from; None for a random one."""
        if label not in self._backbones:
            self._backbones[label] = self._made(label, row)
        return self._backbones[label]

    def _made(self, label: str, row: Row) -> Backbone | None:
        if row.pretrain:
            return backbones.pretrained(self._configs[label])
        if row.weights:
            return backbones.read(row.weights)
        if row.init == "random":
            return None
        backbone, note = backbones.supervised()
        self.notes += [note] if note else []
        return backbone

    def _processes(self, command: str) -> int:
        """Return the number of processes of a job, on all machines."""
        nodes = options_of(self.suite.slurm, command).get("nodes", 1) if self.on_slurm else 1
        return max(1, self.gpus[command]) * int(nodes)

    def _options(self, job: Job) -> dict[str, Any]:
        """Return the options of sbatch for ``job``; nothing without Slurm."""
        return job_options(self.suite.slurm, job) if self.on_slurm else {}

    def _add(self, job: Job, cost: JobCost) -> None:
        """Add the cost of ``job``, and a problem for each limit of Slurm that it does not fit into."""
        self.costs.append(cost)
        if not (options := self._options(job)):
            return
        time, starts = options["time"], options.get("max_num_timeout", REQUEUES) + 1
        if cost.cost and cost.hours and cost.hours > time * starts / 60:
            self.found.add(
                cost.name,
                f"it needs at least {cost.hours:.0f} hours on {cost.gpus} GPUs ({cost.cost.gpu}), but {starts} × {time} minutes "
                f"are {time * starts / 60:.1f} hours; raise time or max_num_timeout in the slurm block",
            )
        memory = re.fullmatch(r"(\d+)([KMGT])B?", str(options.get("mem", "")).strip().upper())
        if memory and cost.host and (given := int(memory[1]) * UNITS[memory[2]]) < cost.host:
            self.found.add(
                cost.name,
                f"its data workers may hold {readable(cost.host)} of batches on each machine, but mem in the slurm block is "
                f"{readable(given)}; lower data.workers or raise mem",
            )


def _words(job: Job) -> tuple[str, ...]:
    """Return the arguments of the job's command."""
    return job.command[job.command.index(job.command_name) + 1 :]
