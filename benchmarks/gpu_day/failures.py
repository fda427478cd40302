"""Steps in which something goes wrong: processes are killed and stopped, and a GPU has too little memory."""

from __future__ import annotations

import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.gpu_day.step import POLL_S, STANDALONE, Command, Place, Step, require
from benchmarks.gpu_day.training import difference, log_of, pretrain, train
from benchmarks.launch.process import interrupt
from pixbench.file_versions import CHECKPOINT_FILE, RESULT_FILE
from pixbench.results import read_result

LEFT_BYTES = 4 * 10**9
"""GPU memory that another process leaves: enough to start, too little for a step at the published size."""
GONE_S = 60
"""Seconds within which all processes must end after one failed."""
LOOSE = 0.02
"""Largest difference of a loss between a run that was interrupted and one that was not: a GPU adds up in any order."""
SENTENCE = "the GPU has too little memory for this run"
GOES_ON = "going on after step"

OTHER_PROCESS = """
import sys, time, torch
device, left = torch.device("cuda", int(sys.argv[1])), int(sys.argv[2])
block = torch.empty(torch.cuda.mem_get_info(device)[0] - left, dtype=torch.uint8, device=device)
print("holds the memory", flush=True)
time.sleep(3600)
"""


def last_step(out: Path) -> int:
    """Return the last step that a run has logged."""
    lines = log_of(out)
    return int(lines[-1]["step"]) if lines else 0


def last_worker(command: Command) -> psutil.Process:
    """Return the process with the highest rank among those that torchrun has started."""
    workers = psutil.Process(command.process.pid).children()
    return max(workers, key=lambda worker: int(worker.environ().get("RANK", "-1")))


def goes_on(place: Place, stopped: bool) -> None:
    """Stop a run of all processes in its middle, or kill one of them; it must end as a run that nothing happened to."""
    every = 10 if place.gpus else 4
    settings: dict[str, Any] = {"epochs": 5 * every, "checkpoint_every_steps": every, "log_every": 1}
    settings |= {"optimizer__base_lr": 0.05, "precision": "fp16" if place.gpus else "fp32"}
    straight, out = train(place, "straight", "pixpro", place.processes, **settings), place.folder / "run"
    words, end = pretrain(place, "pixpro", out, place.processes, **settings), out / RESULT_FILE
    restarts = STANDALONE if stopped else (*STANDALONE, "--max-restarts=1")
    with place.starts("first", words, end, place.processes, restarts) as command:
        command.reach(lambda: last_step(out) > every and (out / CHECKPOINT_FILE).exists())
        began = time.monotonic()
        if stopped:
            interrupt(command.process)
            command.fail()
            seconds = time.monotonic() - began
        else:
            last_worker(command).send_signal(signal.SIGKILL)
            command.reach(lambda: GOES_ON in command.output())
            seconds = time.monotonic() - began
            command.succeed()
    if stopped:
        log = place.run("again", words, end, place.processes)
        require(GOES_ON in log.read_text(encoding="utf-8"), "the run began anew")
    expected, found = ({line["step"]: line["loss"] for line in log_of(folder)} for folder in (straight, out))
    require(list(found) == list(expected), "the log lacks steps or repeats them")
    off = max(difference(expected[step], found[step]) for step in expected)
    what = "asked to stop, until all have saved" if stopped else "one killed, until all go on"
    place.table[what] = {"seconds": seconds, "largest difference of a loss": f"{off:.1e}"}
    require(off <= LOOSE, f"the losses differ by {off:.2g} from those of a run that was not interrupted")


def one_dies(place: Place) -> None:
    """Kill one process of a run that torchrun does not restart: all others must be gone soon."""
    out = place.folder / "run"
    words = pretrain(place, "pixpro", out, place.processes, epochs=10**6, log_every=1)
    with place.starts("run", words, out / RESULT_FILE, place.processes) as command:
        command.reach(lambda: last_step(out) >= 3)
        last_worker(command).send_signal(signal.SIGKILL)
        place.table["one killed, until all are gone"] = {"seconds": until_gone(command, out)}


def out_of_memory(place: Place) -> None:
    """Let another process hold nearly all memory of the last GPU: its process must say so, and the others must not wait."""
    holder = (sys.executable, "-c", OTHER_PROCESS, place.gpus - 1, LEFT_BYTES)
    out = place.folder / "run"
    words = pretrain(place, "pixpro", out, place.processes, precision="fp32")
    with place.starts("other", holder, out) as other:
        other.reach(lambda: "holds the memory\n" in other.output())
        with place.starts("run", words, out / RESULT_FILE, place.processes, STANDALONE) as command:
            command.reach(lambda: f"error: {SENTENCE}" in command.output())
            place.table["CUDA out of memory, until all are gone"] = {"seconds": until_gone(command, out)}
    reason = read_result(out / RESULT_FILE)["reason"]
    require(SENTENCE in reason, f"result.json has another reason: {reason}")


def until_gone(command: Command, out: Path) -> float:
    """Return the seconds until the command, which must fail, and all processes of the run in ``out`` are gone."""
    began = time.monotonic()
    command.fail()
    while there := [p for p in psutil.process_iter(["cmdline"]) if f"--out={out}" in (p.info["cmdline"] or ())]:
        require(time.monotonic() - began < GONE_S, f"after {GONE_S} s, {len(there)} processes still run")
        time.sleep(POLL_S)
    return time.monotonic() - began


TABLE = "After a failure"
FAILURES = [
    Step(
        "killed",
        "a process is killed: torchrun starts all again, and the run ends as planned",
        partial(goes_on, stopped=False),
        TABLE,
    ),
    Step(
        "stopped",
        "a run that is asked to stop saves, and the same command goes on",
        partial(goes_on, stopped=True),
        TABLE,
    ),
    Step("one-dies", "a process is killed: no other waits for it", one_dies, TABLE, gpus=2),
    Step(
        "out-of-memory",
        "one GPU has too little memory: the reason is printed and recorded, and nobody waits",
        out_of_memory,
        TABLE,
        not_on_cpu="it is about the memory of a GPU",
    ),
]
