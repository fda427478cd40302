"""Steps that run other programs of this project: the tests for GPUs, the exchange between processes, the speed benchmark."""

from __future__ import annotations

import json
import sys
from xml.etree import ElementTree

from benchmarks.gpu_day.step import ROOT, Place, Step, require
from benchmarks.speed.__main__ import GPU_GROUPS


def tests(place: Place) -> None:
    """Run the tests that need a GPU."""
    report = place.folder / "tests.xml"
    words = ("-m", "pytest", ROOT / "tests", "-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={report}")
    place.run("pytest", [sys.executable, *words], report)
    suite = next(ElementTree.parse(report).iter("testsuite")).attrib
    passed = int(suite["tests"]) - int(suite["skipped"])
    require(passed > 0, "no test ran")
    place.table["pytest -m gpu"] = {"passed": passed, "skipped": int(suite["skipped"])}


def exchange(place: Place) -> None:
    """Let all processes exchange tensors."""
    found = place.folder / "found.json"
    words = [sys.executable, "-m", "benchmarks.gpu_day.exchange", found]
    place.run("exchange-run", words, found, place.processes)
    place.table[f"exchange, {place.processes} processes"] = json.loads(found.read_text(encoding="utf-8"))


def speed(place: Place) -> None:
    """Measure how fast one core makes views; on a GPU, also parts and steps of PixPro, and the formats of feature maps."""
    found = place.folder / "speed.json"
    rounds = 5 if place.gpus else 1
    words = (sys.executable, "-m", "benchmarks.speed", "input", f"--rounds={rounds}", f"--into={found}")
    place.run("input", words, found)
    measured = json.loads(found.read_text(encoding="utf-8"))["input"]["lines"]
    for line in measured:
        rate = line["images"] / line["seconds"]
        place.table[f"one core, {line['title']}"] = {"images/s": rate, "× published": 1 / line["ratio"]}
    if place.gpus:
        place.run("gpu", (*words[:3], *GPU_GROUPS, f"--rounds={rounds}", f"--into={found}"), found)
        stored = json.loads(found.read_text(encoding="utf-8"))
        for line in [line for group in GPU_GROUPS for line in stored[group]["lines"]]:
            place.table[line["title"]] = {"ms": 1000 * line["seconds"], "× published": 1 / line["ratio"]}
        step = (sys.executable, "-m", "benchmarks.speed.pretrain_step", f"--data-root={place.data / 'imagenet'}")
        log = place.run("step", step, place.folder)
        place.table["channels_last"] = {"printed": log.read_text(encoding="utf-8").strip().splitlines()[-2]}


TESTS = Step("tests", "`pytest -m gpu` passes", tests, minutes=10, not_on_cpu="each of these tests needs a GPU")
EXCHANGE = Step("exchange", "all processes exchange tensors, through NCCL on GPUs and gloo on a CPU", exchange, gpus=2)
SPEED = Step("speed", "the speed benchmark runs; how many cores feed a GPU", speed, "Speed benchmark", minutes=8)
