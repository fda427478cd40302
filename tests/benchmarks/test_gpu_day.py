"""The GPU day: how it goes through its steps, its rehearsal on a CPU, and the commands that it would run on GPUs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from started import finished

from benchmarks.commands import PIXBENCH
from benchmarks.gpu_day.__main__ import STEPS, main
from benchmarks.gpu_day.machine import memory_in_use
from benchmarks.gpu_day.step import ROOT, Place, Step
from benchmarks.gpu_day.training import pretrain
from benchmarks.gpu_day.transfers import few, images_per_gpu, most_at_once
from pretrain.config import parse
from pretrain.methods import METHODS
from transfer.job import TransferJob
from transfer.protocols import Protocol, protocols

DAY = (str(ROOT / "scripts" / "gpu_day.sh"), "--on-cpu")
TRAINED = [protocol for protocol in protocols().values() if protocol.framework != "frozen"]
SLEEPS = """
import os, subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""


def command(code: str) -> Callable[[Place], None]:
    """A step that runs Python ``code``, which writes its figure into a file that its first argument names."""

    def run(place: Place) -> None:
        found = place.folder / "found.json"
        place.run("command", [sys.executable, "-c", code, found], found)
        place.table["row"] = {"figure": json.loads(found.read_text())}

    return run


def writes(value: int) -> str:
    return f"import sys; open(sys.argv[1], 'w').write('{value}')"


def defect(place: Place) -> None:
    place.table["before"] = {"figure": 3}
    place.table["after"] = {"figure": 1 / len(place.peaks)}


def outcomes(out: Path) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in json.loads((out / "report.json").read_text())["steps"]}


def statuses(out: Path) -> dict[str, str]:
    return {name: outcome["status"] for name, outcome in outcomes(out).items()}


@pytest.mark.e2e
def test_each_step_has_its_outcome_and_only_what_has_not_passed_runs_again(tmp_path: Path) -> None:
    out = tmp_path / "day"
    steps = [
        Step("breaks", "", command("raise SystemExit('the reason')")),
        Step("writes-nothing", "", command("")),
        Step("takes-too-long", "", command(SLEEPS), minutes=0.05),
        Step("needs-gpus", "", command(""), not_on_cpu="it needs GPUs"),
        Step("too-long-for-today", "", command(""), minutes=90),
        Step("defect", "", defect),
        Step("passes", "it works", command(writes(7)), "A table"),
    ]
    words = ["--on-cpu", f"--out={out}"]
    assert main(words, steps) == 1
    found = outcomes(out)
    assert statuses(out) == {
        **dict.fromkeys(("breaks", "writes-nothing", "takes-too-long", "defect"), "failed"),
        **{"needs-gpus": "skipped", "too-long-for-today": "not run", "passes": "passed"},
    }
    assert found["breaks"]["reason"] == "command: the reason"
    assert "did not write" in found["writes-nothing"]["reason"]
    assert "time limit" in found["takes-too-long"]["reason"]
    assert found["needs-gpus"]["reason"] == "it needs GPUs"
    assert "ZeroDivisionError" in found["defect"]["reason"]
    assert found["defect"]["figures"] == {"before": {"figure": 3}}
    assert found["passes"]["figures"] == {"row": {"figure": 7}}
    grandchild = int((out / "steps/takes-too-long/command.log").read_text().split()[-1])
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE
    text = (out / "report.md").read_text()
    assert "## A table" in text
    assert "| `passes`" in text
    with tarfile.open(out / "gpu_day.tar.gz") as archive:
        names = archive.getnames()
    assert {"gpu_day/report.md", "gpu_day/report.json", "gpu_day/steps/breaks/command.log"} <= set(names)
    assert not [name for name in names if "/data_" in name]

    mended = [Step(step.name, "", command(writes(8)), step.figures) for step in steps]
    assert main([*words, "--only", "breaks", "passes"], mended) == 0
    found = outcomes(out)
    assert (found["breaks"]["status"], found["breaks"]["figures"]["row"]["figure"]) == ("passed", 8)
    assert found["passes"]["figures"]["row"]["figure"] == 7
    assert found["defect"]["status"] == "failed"  # what was known of the others stays
    assert main([*words, "--only", "pass*", "--again", "passes"], mended) == 0
    assert outcomes(out)["passes"]["figures"]["row"]["figure"] == 8


@pytest.mark.parametrize("on_cpu", [False, True])
def test_the_list_says_what_is_skipped_and_how_long_it_may_take(
    on_cpu: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [
        Step("short", "it works", command("")),
        Step("needs-gpus", "they work", command(""), gpus=2, minutes=7, not_on_cpu="it needs GPUs"),
    ]
    assert main(["--list", *(["--on-cpu"] if on_cpu else [])], steps) == 0
    other = "skipped: it needs GPUs" if on_cpu else "they work (needs 2 GPUs)"
    assert capsys.readouterr().out.splitlines() == [
        "short         5 min at most  it works",
        f"needs-gpus    7 min at most  {other}",
        f"time limits of {1 if on_cpu else 2} steps: {5 if on_cpu else 12} minutes",
    ]


@pytest.mark.slow
def test_ctrl_c_writes_the_report_and_ends_the_command(tmp_path: Path) -> None:
    out, pids = tmp_path / "day", []

    def interrupted(place: Place) -> None:
        with place.starts("command", [sys.executable, "-c", SLEEPS], place.folder) as started:
            pids.append(started.process.pid)
            started.reach(lambda: started.output().count("\n") > 1)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

    steps = [Step("first", "", command(writes(1))), Step("second", "", interrupted), Step("third", "", command(""))]
    assert main(["--on-cpu", f"--out={out}"], steps) == 130
    assert statuses(out) == {"first": "passed", "second": "not run", "third": "not run"}
    assert outcomes(out)["second"]["reason"] == "interrupted"
    assert not psutil.pid_exists(pids[0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "protocol-voc_c5"], "did you mean protocol-voc_c4?"),
        (["--again", "nothing"], "there is no step 'nothing'"),
        (["--on-cpu", "--out", "."], "holds other files"),
    ],
)
def test_what_cannot_be_done_is_said(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").touch()
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_minutes_are_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--on-cpu", "--out", str(tmp_path / "day"), "--minutes", "nan"])
    assert "argument --minutes: 'nan' is not a finite number" in capsys.readouterr().err
    assert not (tmp_path / "day").exists()


def test_a_report_that_cannot_be_read_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text("{")
    assert main(["--on-cpu", f"--out={tmp_path}"]) == 2
    assert "is no report of a GPU day" in capsys.readouterr().err
    assert (tmp_path / "report.json").read_text() == "{"


@pytest.mark.e2e
def test_without_gpus_it_says_how_to_try_it(tmp_path: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "VENV": sys.prefix}
    words = [DAY[0], f"--out={tmp_path / 'day'}"]
    done = finished(words, env=environment)
    assert done.returncode == 2
    assert "no CUDA device; --on-cpu tries" in done.stderr
    assert not (tmp_path / "day").exists()


def test_every_method_and_every_protocol_has_a_step() -> None:
    names = [step.name for step in STEPS]
    assert len(set(names)) == len(names)
    assert {f"pretrain-{name}" for name in METHODS} | {f"protocol-{name}" for name in protocols()} < set(names)


@pytest.mark.parametrize("gpus", [1, 8])
@pytest.mark.parametrize("method", METHODS)
def test_the_settings_of_a_run_on_gpus_exist(method: str, gpus: int, tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "data", gpus, deadline=0)
    words = pretrain(place, method, tmp_path / "run", gpus, precision="fp16", optimizer__base_lr=0.05)
    config = parse(words[len(PIXBENCH) + 1 :])
    assert (config.method.name, config.batch_size, config.data.image_size) == (method, 64 * gpus, 224)
    assert (config.augment.device, config.precision) == ("cuda", "fp16")
    assert METHODS[method].needs_tokens or config.backbone.width == 1.0


@pytest.mark.frameworks
@pytest.mark.parametrize("protocol", TRAINED, ids=lambda protocol: protocol.name)
def test_the_settings_of_a_protocol_at_paper_scale_exist(protocol: Protocol, tmp_path: Path) -> None:
    from transfer.detection.config import build_config
    from transfer.segmentation.config import resolve

    images = images_per_gpu(protocol)
    assert images in (1, 2, 4, 8)  # as published: one for ViTDet, eight for U2PL on VOC, otherwise two or four
    job = TransferJob(protocol, tmp_path, tmp_path, overrides=few(protocol, 10, 8 * images))
    if protocol.framework == "detectron2":
        assert build_config(job, None).SOLVER.MAX_ITER == 10
    else:
        assert resolve(job, None).train_cfg.max_iters == 10


def test_runs_at_the_same_time_are_counted() -> None:
    day = "2020-01-01T00:00:{:02}+00:00".format
    times = [(day(0), day(10)), (day(5), day(20)), (day(10), day(30))]
    assert most_at_once([(start, end) for start, end in times]) == 2  # one may start when another ends
    assert most_at_once([]) == 0


def test_memory_of_gpus_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '512 MiB\\n81000 MiB\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert memory_in_use() == [512, 81000]
    place = Place(tmp_path, tmp_path, gpus=2, deadline=time.monotonic() + 60, peaks=[700, 3])
    place.look()
    assert place.peaks == [700, 81000]


def rehearse(out: Path, *words: str, timeout: float) -> dict[str, str]:
    environment = {**os.environ, "VENV": sys.prefix}
    done = subprocess.run(
        [*DAY, f"--out={out}", *words], env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return statuses(out)


@pytest.mark.e2e
def test_a_few_steps_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "day"
    found = rehearse(out, "--only", "exchange", "tests", "pretrain-pixpro", timeout=300)
    assert (found["exchange"], found["tests"], found["pretrain-pixpro"]) == ("passed", "skipped", "passed")
    assert found["scaling"] == "not run"
    assert outcomes(out)["scaling"]["reason"] == "not asked for (--only)"
    row = outcomes(out)["pretrain-pixpro"]["figures"]["pixpro, bf16"]
    assert row["images/s"] > 0
    assert row["first loss"] == pytest.approx(row["last loss"], abs=0.5)


@pytest.mark.e2e
def test_the_whole_day_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "day"
    found = rehearse(out, "--minutes=240", timeout=3 * 3600)
    assert set(found.values()) == {"passed", "skipped"}
    assert {name for name, status in found.items() if status == "skipped"} == {"tests", "syncbn", "out-of-memory"}
