"""The order of jobs: none before what it waits for, none twice, and what a failure means for the others."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.jobs import Job, Records
from benchmarks.launch.display import Display
from benchmarks.launch.interfaces import Launcher, Running

POLL_S = 0.2


def run_jobs(jobs: Sequence[Job], records: Records, launcher: Launcher) -> dict[str, str]:
    """Run ``jobs``; return name -> done | failed | blocked.

    A failed job blocks only those that wait for it. Finished jobs are not run again. On Ctrl-C the launcher is told, and
    KeyboardInterrupt goes on to the caller.
    """
    states: dict[str, str] = {}
    for job in jobs:  # in order: a job is done only if all that it was made from is
        if all(name in states for name in job.after) and records.done(job):
            states[job.name] = "done"
    running: dict[str, Running] = {}
    with Display(jobs) as display:
        if states:
            display.say(f"{len(states)} of {len(jobs)} jobs were finished before")
        try:
            while len(states) < len(jobs):
                for job in jobs:
                    if job.name not in states and any(states.get(name) in ("failed", "blocked") for name in job.after):
                        states[job.name] = "blocked"
                        running.pop(job.name, None)
                        display.event(len(states), job, "not run: what it waits for failed")
                for taken in launcher.start([job for job in jobs if _may_start(job, states, running, launcher)]):
                    running[taken.job.name] = taken
                    display.event(len(states), taken.job, "started" if taken.state() == "running" else "queued")
                time.sleep(POLL_S)
                for taken in list(running.values()):
                    if (state := taken.state()) in ("done", "failed"):
                        del running[taken.job.name]
                        states[taken.job.name] = state
                        why = state if state == "done" else f"FAILED: {taken.reason} (log: {taken.log})"
                        display.event(len(states), taken.job, why)
                        if state == "failed":
                            break  # those that waited for it are blocked, whatever the launcher makes of them
                display.refresh(states, running)
        except KeyboardInterrupt:
            launcher.stop()
            raise
    return states


def _may_start(job: Job, states: dict[str, str], running: dict[str, Running], launcher: Launcher) -> bool:
    if job.name in states or job.name in running:
        return False
    return all(states.get(name) == "done" or (launcher.queues and name in running) for name in job.after)
