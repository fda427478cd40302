"""Send what a run logs to trackers of experiments: Weights & Biases and MLflow, if asked for.

Each tracker works in a thread of its own. The run never waits for it, and goes on without it after its first error.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from pixbench.errors import UserError, printable
from pixbench.files import write_text
from pretrain.config import flatten
from pretrain.log.screen import tell
from pretrain.run import Run
from pretrain.settings import Tracker

PROJECT = "pixbench"
"""Project or experiment, unless the tracker's own variable names another: WANDB_PROJECT, MLFLOW_EXPERIMENT_NAME."""
KEPT = 1000
"""Number of log lines that wait for a tracker that has not answered yet; further ones are lost to it."""
CLOSE_S = 10.0
"""Seconds that a run waits at its end for its trackers."""

Values = tuple[int, float, Mapping[str, float]]
"""Step, time in seconds since 1970, values by name."""


def check_installed(names: Sequence[Tracker]) -> None:
    """Check that the packages of the trackers ``names`` are installed.

    Raises:
        UserError: One is missing.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"log.trackers asks for {name}, which is not installed; run `pip install {name}`, or leave it out of log.trackers"
            )


class Connection(Protocol):
    """What a tracker does. Any of it may raise any error. ``id`` is the tracker's name of the run."""

    id: str

    def send(self, step: int, at: float, values: Mapping[str, float]) -> None:
        """Send the ``values`` of ``step``, logged at ``at`` (seconds since 1970)."""

    def close(self, finished: bool) -> None:
        """Send what is left. ``finished``: whether the run was trained to its end."""


class Wandb:
    """A run of Weights & Biases. WANDB_MODE=offline keeps it in OUT/wandb, from where `wandb sync` sends it."""

    def __init__(self, out: Path, settings: dict[str, Any], known: str) -> None:
        import wandb

        wandb.setup(wandb.Settings(console="off", silent=True))  # otherwise it may ask for a key in the terminal
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=out.name,
            id=known or None,
            resume="allow" if known else None,
            dir=out,
            config=settings,
        )
        self.id = self._run.id

    def send(self, step: int, at: float, values: Mapping[str, float]) -> None:
        """Hand the values to the process of wandb."""
        self._run.log(dict(values), step=step)

    def close(self, finished: bool) -> None:
        """End the run; exit code 1 marks it as not finished."""
        self._run.finish(exit_code=0 if finished else 1)


class Mlflow:
    """A run of MLflow, at MLFLOW_TRACKING_URI (a server or a file, such as sqlite:///mlflow.db)."""

    def __init__(self, out: Path, settings: dict[str, Any], known: str) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        if known:
            self._client.update_run(known, status="RUNNING")
            self.id = known
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        self.id = self._client.create_run(experiment, run_name=out.name).info.run_id
        params = [Param(key, str(value)) for key, value in flatten(settings).items()]
        self._client.log_batch(self.id, params=params)

    def send(self, step: int, at: float, values: Mapping[str, float]) -> None:
        """Send the values in one request."""
        from mlflow.entities import Metric

        self._client.log_batch(self.id, [Metric(name, value, int(at * 1000), step) for name, value in values.items()])

    def close(self, finished: bool) -> None:
        """Set the status of the run."""
        self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


CONNECTIONS: dict[Tracker, type[Wandb] | type[Mlflow]] = {"wandb": Wandb, "mlflow": Mlflow}


class Reports:
    """The trackers of ``run``. Nothing here raises an error or waits, except `close` for a few seconds."""

    def __init__(self, run: Run) -> None:
        settings = run.config.as_dict()
        self._threads = [_Thread(name, run.out, settings) for name in dict.fromkeys(run.config.log.trackers)]

    def send(self, step: int, values: Mapping[str, float]) -> None:
        """Hand the ``values`` of ``step`` to every tracker."""
        for thread in self._threads:
            thread.put((step, time.time(), dict(values)))

    def close(self, finished: bool) -> None:
        """Let the trackers send what is left. ``finished``: whether the run was trained to its end."""
        for thread in self._threads:
            thread.put(finished)
        ends = time.monotonic() + CLOSE_S
        for thread in self._threads:
            thread.wait(ends)


class _Thread:
    """One tracker in a thread. The thread starts with the first values, when the data workers have been forked."""

    def __init__(self, name: Tracker, out: Path, settings: dict[str, Any]) -> None:
        self._name, self._out, self._settings = name, out, settings
        self._waiting: queue.Queue[Values | bool] = queue.Queue(KEPT)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def put(self, what: Values | bool) -> None:
        """Queue values, or at the end whether the run is finished."""
        if not self._thread.ident:
            self._thread.start()
        with suppress(queue.Full):
            self._waiting.put_nowait(what)

    def wait(self, ends: float) -> None:
        """Wait until the tracker has got everything, at most until ``ends`` (`time.monotonic`)."""
        self._thread.join(max(0, ends - time.monotonic()))
        if self._thread.is_alive():
            tell(
                f"warning: {self._name} has not taken all values of this run in {CLOSE_S:.0f} s; the rest is only in log.jsonl"
            )

    def _work(self) -> None:
        path = self._out / f"{self._name}_run.txt"
        try:
            known = path.read_text(encoding="utf-8").strip() if path.exists() else ""
            connection: Connection = CONNECTIONS[self._name](self._out, self._settings, known)
            write_text(path, f"{connection.id}\n")
            while not isinstance(what := self._waiting.get(), bool):
                connection.send(*what)
            connection.close(what)
        except Exception as error:
            first = printable(str(error).strip().partition("\n")[0])
            tell(
                f"warning: {self._name} gets no more values of this run ({first or type(error).__name__}); the run goes on, and "
                "log.jsonl has them all"
            )
