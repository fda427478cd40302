"""Run jobs in order: each once, after the jobs that it waits for; a failure blocks only the jobs that depend on it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.jobs import Job, Records
from benchmarks.launch.display import Display
from benchmarks.launch.interfaces import AcceptedJob, Launcher

POLL_S = 0.2


def run_jobs(jobs: Sequence[Job], records: Records, launcher: Launcher) -> dict[str, str]:
    """Run ``jobs``; return job name -> "done", "failed" or "blocked".

    A failed job blocks only the jobs that wait for it. Finished jobs are not run again. On Ctrl-C the launcher is
    stopped and KeyboardInterrupt is raised again.
    """
    states: dict[str, str] = {}
    for job in jobs:
        _ = job.key  # of the config files as they are now
    for job in jobs:  # in order: a job is done only if all jobs that it waits for are done
        if all(name in states for name in job.after) and records.done(job):
            states[job.name] = "done"
    running: dict[str, AcceptedJob] = {}
    with Display(jobs) as display:
        if states:
            display.say(f"{len(states)} of {len(jobs)} jobs were finished before")
        try:
            while len(states) < len(jobs):
                for job in jobs:
                    if job.name not in states and any(states.get(name) in ("failed", "blocked") for name in job.after):
                        states[job.name] = "blocked"
                        running.pop(job.name, None)
                        display.event(len(states), job, "not run: a job that it waits for failed")
                for accepted in launcher.start([job for job in jobs if _may_start(job, states, running, launcher)]):
                    running[accepted.job.name] = accepted
                    display.event(len(states), accepted.job, "started" if accepted.state() == "running" else "queued")
                time.sleep(POLL_S)
                for accepted in list(running.values()):
                    if (state := accepted.state()) in ("done", "failed"):
                        del running[accepted.job.name]
                        states[accepted.job.name] = state
                        why = state if state == "done" else f"FAILED: {accepted.reason} (log: {accepted.log})"
                        display.event(len(states), accepted.job, why)
                        if state == "failed":
                            break  # block the jobs that wait for it first, before the launcher reports on them
                display.refresh(states, running)
        except KeyboardInterrupt:
            launcher.stop()
            raise
    return states


def _may_start(job: Job, states: dict[str, str], running: dict[str, AcceptedJob], launcher: Launcher) -> bool:
    if job.name in states or job.name in running:
        return False
    return all(states.get(name) == "done" or (launcher.queues and name in running) for name in job.after)
