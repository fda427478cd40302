"""Check a transfer job without training: its config, batch, data sets and backbone, and its model, built once for equal jobs."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.check import backbones
from benchmarks.check.built import Built, Resolved
from benchmarks.check.findings import Findings
from pixbench.errors import UserError, explain
from transfer.datasets.check import check_own_classes
from transfer.datasets.layout import check_layout
from transfer.frozen.class_folders import SETS_OF_CLASSES, class_folders
from transfer.job import TransferJob
from transfer.run import settings_explained
from transfer.weights import Backbone


class TransferChecks:
    """Checks of the transfer jobs of a suite, which add problems to ``found``."""

    def __init__(self, found: Findings) -> None:
        self.found = found
        self._built: dict[str, Built | str] = {}
        self._layouts: dict[tuple[Path, str, bool], list[str]] = {}

    def check(
        self, name: str, job: TransferJob, backbone: Backbone | None, processes: int
    ) -> tuple[Resolved, Built] | None:
        """Check ``job``, called ``name``; return its config and the sizes of its model, or None if it has a problem.

        Args:
            name: name of the job.
            job: the job; its weights need not exist.
            backbone: what they hold; None for a random one.
            processes: number of training processes.
        """
        with self.found.of(name), settings_explained(job):
            if job.classes:
                check_own_classes(job.protocol)
            resolved = _framework(job).resolve(job, backbone, processes)
            backbone = backbone or backbones.drawn(resolved.spec, 0)
            if isinstance(built := self._build(job, resolved, backbone), Built):
                return resolved, built
            self.found.add(name, built)
        return None

    def check_data(self, name: str, job: TransferJob) -> None:
        """Check that the files of the data sets of ``job`` are there. Its run itself also reads all annotations."""
        for data in job.protocol.datasets:
            key = job.data_root, data, job.classes is not None
            if key not in self._layouts:
                self._layouts[key] = _layout(job, data)
            for problem in self._layouts[key]:
                self.found.add(name, problem)

    def _build(self, job: TransferJob, resolved: Resolved, backbone: Backbone) -> Built | str:
        """Return the sizes of the model of ``job``, or what is wrong with it."""
        extras = {key: tuple(tensor.shape) for key, tensor in backbone.extras.items()}
        about: Any = [resolved.plain, backbone.spec.as_dict(), extras, job.freeze, job.protocol.weights_framework]
        key = json.dumps(about, sort_keys=True)
        if key not in self._built:
            try:
                with settings_explained(job):
                    self._built[key] = _framework(job).build(job, resolved.config, backbone)
            except Exception as error:
                self._built[key] = explain(error)
        return self._built[key]


def _layout(job: TransferJob, data: str) -> list[str]:
    """Return what is wrong with the files of a data set of ``job``."""
    if data in SETS_OF_CLASSES:
        try:
            class_folders(job.data_root / data)
        except UserError as error:
            return [str(error)]
        return []
    own = job.classes is not None
    return check_layout(job.data_root, data, thorough=job.scale == "paper" and not own, own=own)


def _framework(job: TransferJob) -> ModuleType:
    """Return the module that resolves and builds for the framework of ``job``; importing it takes seconds."""
    if job.protocol.framework == "detectron2":
        from benchmarks.check import detection

        return detection
    if job.protocol.framework == "frozen":
        from benchmarks.check import frozen

        return frozen
    from benchmarks.check import segmentation

    return segmentation
