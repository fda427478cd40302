"""`pixbench suite SUITE --check`: find the mistakes of all jobs without training, and count what they will cost."""

from __future__ import annotations

import argparse
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import costs
from benchmarks.check import backbones
from benchmarks.check.built import Resolved
from benchmarks.check.findings import Findings
from benchmarks.check.pretraining import check_run
from benchmarks.check.report import JobCost, table, totals
from benchmarks.check.slurm import SlurmChecks
from benchmarks.check.transfer import TransferChecks
from benchmarks.commands import PIXBENCH
from benchmarks.commands import transfer as transfer_command
from benchmarks.commands.pretrain import initial_weights
from benchmarks.dry_step import dry_step
from benchmarks.jobs import Job
from benchmarks.launch.slurm_block import COMMANDS
from benchmarks.launch.slurm_options import options_of
from benchmarks.suite import Row, Suite, like_row, plan
from pixbench.file_versions import MINI_WORLD_FILE
from pretrain.config import parse
from pretrain.data.in_flight import in_flight, readable
from pretrain.settings import RunConfig
from transfer.job import TransferJob
from transfer.weights import Backbone
from transfer.weights.frameworks import express

PLACE = Path("DATA")
"""What the data root is called where none is given."""


def check_suite(suite: Suite, out: Path, data_root: Path | None, gpus: Mapping[str, int], on_slurm: bool) -> int:
    """Check all jobs of a suite, print what was found, and return 1 if there is a problem, else 0.

    Args:
        suite: the suite.
        out: its output folder.
        data_root: folder of the data sets, if it is known.
        gpus: command -> number of GPUs of its jobs on each machine.
        on_slurm: whether its ``slurm`` block is used.
    """
    check = SuiteCheck(suite, out, data_root, gpus, on_slurm)
    with quiet():
        check.run()
    asked = check.slurm.table() if check.slurm else ""
    print(f"{table(check.costs)}\n\n{totals(check.costs)}" + (f"\n\n{asked}" if asked else ""))
    warned = list(dict.fromkeys(check.notes))
    print("".join(f"warning: {note}\n" for note in warned), end="")
    if check.found.problems:
        print(f"\n{check.found.table()}")
        return 1
    print("no problems found" + (f", {len(warned)} warning{'s' * (len(warned) > 1)}" if warned else ""))
    return 0


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

    def __init__(
        self, suite: Suite, out: Path, data_root: Path | None, gpus: Mapping[str, int], on_slurm: bool
    ) -> None:
        self.suite, self.out, self.gpus = suite, out, gpus
        root = data_root or out / "data"
        self.data_is_there = root.is_dir()
        self.root = root if self.data_is_there else PLACE
        self.found, self.notes, self.costs = Findings(), list[str](), list[JobCost]()
        self.slurm = SlurmChecks(self.found, self.notes, suite.slurm) if on_slurm else None
        if not self.data_is_there:
            given = f"there is no folder {root} here; correct --data-root, or check where it is"
            self.notes.append(f"data not looked at: {given if data_root else 'give their folder with --data-root'}")
        self.imagined = self.data_is_there and suite.scale == "paper" and (root / MINI_WORLD_FILE).exists()
        """Whether the images are only a mini world, whose size says nothing about the cost of a run at paper scale."""
        if self.imagined:
            self.notes.append(f"{root} is a mini world: hours are those of ImageNet with {costs.IMAGENET:,} images")
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
                elif self.slurm:
                    self.slurm.add(jobs)
        if self.slurm:
            self.slurm.conclude()
        self._disk()

    def _planned(self) -> list[Job]:
        """Return the jobs of all rows and protocols that can be planned."""
        jobs: dict[str, Job] = {}
        for label, row in self.suite.rows.items():
            parts: list[tuple[str, ...]] = [(name,) for name in self.suite.protocols_of(label)]
            for protocols in parts or [()]:
                with self.found.of("/".join(("transfer", label, *protocols)) if protocols else f"pretrain/{label}"):
                    part = replace(self.suite, rows={label: replace(row, protocols=None)}, protocols=protocols)
                    jobs |= {job.name: job for job in plan(part, self.out, self.root, PIXBENCH)}
        return list(jobs.values())

    def _pretrain(self, job: Job) -> None:
        label, processes = job.name.partition("/")[2], self._processes("pretrain")
        parse(_words(job))  # its own mistakes, before its workers are counted
        more = self.slurm.fewer_workers(job) if self.slurm else ()
        config = self._configs[label] = parse([*_words(job), *more])
        images, said = check_run(self.found, job.name, config, processes, initial_weights, self.data_is_there)
        self.notes += [f"{job.name}: {line}" for line in said]
        step, here, paper = dry_step(config), max(1, self.gpus["pretrain"]), self.suite.scale == "paper"
        self._add(
            [job],
            JobCost(
                name=job.name,
                gpus=processes,
                memory=step.memory(processes),
                rate=costs.images_per_second(config) if paper else None,
                host=in_flight(config, processes, here).memory,
                disk=costs.disk(config),
                cost=costs.pretraining(config, 0 if self.imagined else images) if paper else None,
                why="" if paper else costs.NO_RATE,
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
        if self.slurm:
            self.slurm.fewer_workers(seeds[0])
        self._add(
            seeds,
            JobCost(
                name=name,
                jobs=len(jobs),
                gpus=processes,
                memory=model.memory(-(-resolved.batch // (processes * job.accumulate))),
                rate=resolved.batch / published["seconds"] / int(published["gpus"].split()[0]) if published else None,
                disk=self._features(name, jobs, resolved, backbone) if frozen else resolved.kept * model.checkpoint,
                cost=costs.fine_tuning(job.protocol, resolved.iterations) if published else None,
                why="" if published else costs.unknown(job.protocol, self.suite.scale),
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
        nodes = options_of(self.slurm.block, command).get("nodes", 1) if self.slurm else 1
        return max(1, self.gpus[command]) * int(nodes)

    def _add(self, jobs: Sequence[Job], cost: JobCost) -> None:
        """Add the cost of ``jobs``, and a problem for each limit of Slurm that they do not fit into."""
        self.costs.append(cost)
        if self.slurm:
            self.slurm.add(jobs, cost)

    def _disk(self) -> None:
        """Add a problem if all checkpoints together certainly do not fit; those that are there already count as room."""
        needed, place = sum(cost.disk * cost.jobs for cost in self.costs), self.out
        while not place.exists():
            place = place.parent
        written = sum(path.stat().st_size for path in self.out.rglob("*") if path.is_file())
        if (room := shutil.disk_usage(place).free + written) < needed:
            self.found.add(
                "all jobs",
                f"checkpoints and features need {readable(needed)}, but {place} has room for {readable(room)}; give a folder on "
                "a larger disk with --out, or lower keep_last or raise keep_every (0: none) in the rows' set",
            )


def _words(job: Job) -> tuple[str, ...]:
    """Return the arguments of the job's command."""
    return job.command[job.command.index(job.command_name) + 1 :]
