"""Steps that fine-tune or evaluate: every protocol at paper scale, and several runs at a time on devices of their own."""

from __future__ import annotations

import json
import re
from datetime import datetime
from functools import partial
from typing import Any

import yaml

from benchmarks.commands import PIXBENCH
from benchmarks.gpu_day.step import Place, Step, require
from benchmarks.miniworld.generate import LEAST
from pixbench.file_versions import RESULT_FILE
from pixbench.files import write_text
from pixbench.results import read_result
from transfer.batch_scaling import KEYS
from transfer.protocols import Protocol, find_protocol, leaves, protocols

ITERATIONS = 10
USUAL_GPUS = 8
"""GPUs of a protocol that was published without its cost, as in the names of MMDetection's configs (8xb2)."""
AT_LEAST_MB = 250
"""More memory than this on a GPU means that a run uses it."""


def few(protocol: Protocol, iterations: int, batch: int) -> dict[str, object]:
    """Return the settings that make a run so short. Sizes, heads and schedules stay."""
    settings: dict[str, object] = {KEYS[protocol.framework]["batch"]: batch}
    if protocol.framework == "detectron2":
        settings |= {"SOLVER.MAX_ITER": iterations, "SOLVER.STEPS": [iterations - 1]}
        return settings | {"TEST.PRECISE_BN.NUM_ITER": 2}
    return {**settings, "train_cfg.max_iters": iterations, "train_cfg.val_interval": iterations}


def images_per_gpu(protocol: Protocol) -> int:
    """Return the published number of images of a protocol that trains on a GPU at a time."""
    from transfer.published_config import published_config

    config = dict(leaves(published_config(protocol)))
    batch = config[KEYS[protocol.framework]["batch"]]
    if not protocol.cost and protocol.framework == "mmseg":  # its configs have it
        return int(config["train_dataloader.batch_size"])
    gpus = int(protocol.cost["gpus"].split()[0]) if protocol.cost else USUAL_GPUS
    return max(1, int(batch) // gpus)


def fine_tune(place: Place, name: str) -> None:
    """Run some iterations and the whole evaluation from random weights, with the published number of images on each GPU."""
    protocol, out = find_protocol(name), place.folder / "run"
    if protocol.framework == "frozen":
        evaluate(place, protocol)
        return
    scale, iterations = ("paper", ITERATIONS) if place.gpus else ("mini", 2)
    batch = place.gpus * images_per_gpu(protocol) if place.gpus else 2
    changes = [f"--set={key}={json.dumps(value)}" for key, value in few(protocol, iterations, batch).items()]
    how = (
        "--init=random",
        f"--scale={scale}",
        f"--gpus={max(1, place.gpus)}",
        f"--data-root={place.data}",
        f"--out={out}",
    )
    log = place.run("run", [*PIXBENCH, "transfer", name, *how, *changes], out / RESULT_FILE)
    result = read_result(out / RESULT_FILE)
    require(result["iterations"] == iterations, f"{result['iterations']} iterations instead of {iterations}")
    require(result["metrics"].keys() == protocol.metrics.keys(), f"the metrics are {', '.join(result['metrics'])}")
    paces = re.findall(r"([\d.]+) s/it", log.read_text(encoding="utf-8"))
    memory: dict[str, float | str] = {"GB": max(place.peaks) / 1000} if place.peaks else {}
    pace = {"images a step": batch, "s a step": float(paces[-1])}
    place.table[name] = {**pace, **memory, "s in all": result["wall_time_s"]}


def evaluate(place: Place, protocol: Protocol) -> None:
    """Run a frozen protocol with a random backbone, its features shared among all processes."""
    from transfer.published_config import published_config

    out, scale = place.folder / "run", "paper" if place.gpus else "mini"
    how = ("--init=random", f"--scale={scale}", f"--gpus={max(1, place.gpus)}")
    words = [*PIXBENCH, "transfer", protocol.name, *how, f"--data-root={place.data}", f"--out={out}"]
    config = dict(leaves(published_config(protocol)))
    if "settings.batch" in config:  # a mini world has fewer images than one such batch
        words.append("--set=settings.batch=1")
    if config["images.pool"] and not place.gpus:  # nor has the smallest one as many images as neighbours are asked for
        words.append(f"--set=settings.neighbours={LEAST}")
    place.run("run", words, out / RESULT_FILE)
    result = read_result(out / RESULT_FILE)
    require(result["metrics"].keys() == protocol.metrics.keys(), f"the metrics are {', '.join(result['metrics'])}")
    place.table[protocol.name] = {"s in all": result["wall_time_s"]}


def packing(place: Place) -> None:
    """Run a suite with one GPU for each run: as many at a time as there are GPUs, and none on the GPU of another."""
    names, at_a_time = ("voc_c4", "cityscapes_fcn16s"), place.processes
    seeds = range(max(2, place.gpus)) if place.gpus else range(1)
    suite = place.folder / "suite.yaml"
    content: dict[str, Any] = {"scale": "mini", "rows": {"random": {}}, "protocols": [*names], "seeds": [*seeds]}
    content["overrides"] = {name: few(find_protocol(name), 20 if place.gpus else 2, 2) for name in names}
    write_text(suite, yaml.safe_dump(content))
    how = [f"--gpus={place.gpus}", "--gpus-per-run=1"] if place.gpus else [f"--jobs-at-a-time={at_a_time}"]
    out = place.folder / "out"
    words = [*PIXBENCH, "suite", suite, f"--data-root={place.data}", f"--out={out}", *how]
    place.run("suite-run", words, out / "table.md")
    results = [read_result(path) for path in out.glob(f"runs/**/{RESULT_FILE}")]
    require(len(results) == len(names) * len(seeds), f"{len(results)} results instead of {len(names) * len(seeds)}")
    most = most_at_once([(result["started"], result["finished"]) for result in results])
    place.table["packing"] = {"runs": len(results), "most at a time": most}
    require(most >= min(2, at_a_time), "the runs followed one another")
    require(most <= at_a_time, f"{most} runs at a time on {at_a_time} GPUs")
    idle = [number for number, peak in enumerate(place.peaks) if peak < AT_LEAST_MB]
    require(not idle, f"no run used GPU {', '.join(map(str, idle))}")


def most_at_once(times: list[tuple[str, str]]) -> int:
    """Return how many of the runs with these (start, end) ran at the same time."""
    events = [(datetime.fromisoformat(when), step) for pair in times for when, step in zip(pair, (1, -1), strict=True)]
    most = now = 0
    for _, step in sorted(events):
        now += step
        most = max(most, now)
    return most


PACKING = Step("packing", "a suite gives each run a GPU of its own, and uses all of them", packing)
PROTOCOLS = [
    Step(
        f"protocol-{name}",
        "trains and is evaluated at paper scale" if protocol.framework != "frozen" else "is evaluated at paper scale",
        partial(fine_tune, name=name),
        "Protocols at paper scale (on a CPU: mini scale)",
        minutes=4,
    )
    for name, protocol in protocols().items()
]
