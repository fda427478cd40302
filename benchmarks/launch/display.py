"""Show the progress of a suite.

On a terminal, a table is updated in place. Elsewhere, a line is printed for each event, and at intervals for each
running job.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from benchmarks.jobs import Job
from benchmarks.launch.interfaces import AcceptedJob
from benchmarks.launch.process import last_line
from pixbench.progress import read_progress

HEARTBEAT_S, REDRAW_S = 20.0, 0.5
STYLES = {"running": "cyan", "done": "green", "failed": "bold red", "blocked": "red"}
RIGHT = ("time", "iteration", "left")
STARTING = re.compile(r"\$ |\w+=|$")
"""How the last line of a log begins before the job has said anything: its command, or settings that a framework prints."""
SHOWN = 2
"""Number of metrics per run for which the table has room."""
URGENCY = ("failed", "running", "blocked", "queued", "done", "waiting")
"""Order of the states when the terminal has too few lines for all jobs: the first ones are shown."""


class Display:
    """Context manager that shows the progress of ``jobs`` on ``console``."""

    def __init__(self, jobs: Sequence[Job], console: Console | None = None) -> None:
        self.jobs, self.console = jobs, console or Console()
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self.began = self.last = time.monotonic()
        self.since: dict[str, float] = {}
        """Job name -> time of the last change of its state."""
        self.took: dict[str, float] = {}

    def __enter__(self) -> Display:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def say(self, text: str) -> None:
        """Print ``text``."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def event(self, ended: int, job: Job, text: str) -> None:
        """Report the event ``text`` of ``job``. On a terminal the table shows it; only failures are also printed."""
        now = time.monotonic()
        if text == "done":
            self.took[job.name] = now - self.since.get(job.name, now)
            text = f"done in {self.took[job.name]:.0f} s"
        self.since[job.name] = now
        if not self.live or "FAILED" in text:
            self.last = now
            self.say(f"[{now - self.began:5.0f} s, {ended:>2}/{len(self.jobs)}] {job.name}: {text}")

    def refresh(self, states: Mapping[str, str], running: Mapping[str, AcceptedJob]) -> None:
        """Update the table, or print the last log line of each running job, if enough time has passed."""
        now = time.monotonic()
        if now - self.last < (REDRAW_S if self.live else HEARTBEAT_S):
            return
        self.last = now
        if self.live:
            self.live.update(self.table(states, running), refresh=True)
            return
        for accepted in running.values():
            line = last_line(accepted.log)
            line = "starting" if STARTING.match(line) else line
            self.say(f"[{now - self.began:5.0f} s]   {accepted.job.name}: {line[:140]}")

    def table(self, states: Mapping[str, str], running: Mapping[str, AcceptedJob]) -> Table:
        """Return the table: run, state, time in this state, iteration, time left, best metrics so far.

        If there is not enough room for all jobs, the most urgent are shown.
        """
        found = {job.name: states.get(job.name, "waiting") for job in self.jobs}
        found |= {name: accepted.state() for name, accepted in running.items()}
        # time in the queue does not count
        self.since |= {name: time.monotonic() for name, state in found.items() if state == "queued"}
        room = max(3, self.console.height - 6)
        shown = sorted(self.jobs, key=lambda job: URGENCY.index(found[job.name]))[:room]
        counts = ", ".join(f"{n} {s}" for s in URGENCY if (n := list(found.values()).count(s)))
        hidden = f"; {len(self.jobs) - len(shown)} rows hidden" if len(shown) < len(self.jobs) else ""
        title = f"{counts}, {_clock(time.monotonic() - self.began)}{hidden}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        names = min(max(len(_short(job)) for job in self.jobs), max(20, self.console.width - 60))
        widths = {"run": names, "state": 7, "time": 8, "iteration": 11, "left": 8}
        widths["best so far"] = max(11, self.console.width - names - 50)
        for head, width in widths.items():
            table.add_column(head, no_wrap=True, max_width=width, justify="right" if head in RIGHT else "left")
        for job in [job for job in self.jobs if job in shown]:
            table.add_row(_short(job), *self._cells(job, found[job.name]), style=STYLES.get(found[job.name], "dim"))
        return table

    def _cells(self, job: Job, state: str) -> tuple[str, ...]:
        if state not in ("running", "done"):
            return (state,)
        progress = read_progress(job.output.parent) if job.command_name in ("pretrain", "transfer") else {}
        best = list(progress.get("best", {}).items())[:SHOWN]  # a protocol names its main metric first
        metrics = "  ".join(f"{name} {value:.1f}" for name, value in best)
        if state == "done":
            return state, _clock(self.took[job.name]) if job.name in self.took else "", "", "", metrics
        count, left = (f"{progress['done']}/{progress['total']}", _clock(progress["left_s"])) if progress else ("", "")
        return state, _clock(time.monotonic() - self.since[job.name]), count, left, metrics


def _short(job: Job) -> str:
    return job.name.removeprefix("transfer/")


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
