"""Jobs handed to submitit: its local and debug stand-ins by default, a real Slurm of this machine where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from submitit.core.utils import DelayedSubmission

from benchmarks.commands import PIXBENCH
from benchmarks.commands.main import main
from benchmarks.jobs import Job, Records
from benchmarks.launch.scheduler import run_jobs
from benchmarks.launch.slurm import Slurm
from pixbench.errors import UserError

REPO = Path(__file__).parents[2]
SETTINGS = {"time": 5, "cpus_per_task": 1}
RESUMING = """
import os, signal, sys, time
folder = sys.argv[1]
def stop(*_):
    open(folder + '/saved', 'w').close()
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
if not os.path.exists(folder + '/saved'):
    open(folder + '/up', 'w').close()
    time.sleep(100)
open(folder + '/out', 'w').close()
"""


def job(tmp_path: Path, name: str, code: str = "", after: tuple[str, ...] = ()) -> Job:
    output = tmp_path / f"{name.replace('/', '.')}.out"
    return Job(name, (sys.executable, "-c", f"{code}\nopen({str(output)!r}, 'w').close()"), output, after)


def resuming(tmp_path: Path) -> Job:
    (tmp_path / "script.py").write_text(RESUMING)
    return Job("pretrain/a", (sys.executable, str(tmp_path / "script.py"), str(tmp_path)), tmp_path / "out")


def launcher(tmp_path: Path, cluster: str = "slurm", **settings: Any) -> Slurm:
    return Slurm(Records(tmp_path / "jobs"), tmp_path, SETTINGS | settings, cluster=cluster, ask_s=0.3)


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_submitit_runs_the_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [
        job(tmp_path, "pretrain/a", "import os; print(os.environ['OMP_NUM_THREADS'])"),
        job(tmp_path, "pretrain/b", "raise SystemExit('the disk is on fire')"),
        job(tmp_path, "convert/a", after=("pretrain/a",)),
        job(tmp_path, "convert/b", after=("pretrain/b",)),
    ]
    states = run_jobs(jobs, Records(tmp_path / "jobs"), launcher(tmp_path, "local"))
    assert states == {"pretrain/a": "done", "pretrain/b": "failed", "convert/a": "done", "convert/b": "blocked"}
    assert "the disk is on fire" in capsys.readouterr().out
    assert (tmp_path / "logs" / "pretrain.a.log").read_text().split()[-1].isdigit()
    run_jobs(jobs[:1], Records(tmp_path / "jobs"), launcher(tmp_path, "local"))
    assert "1 of 1 jobs were finished before" in capsys.readouterr().out


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 always takes the current folder first")
def test_it_starts_in_a_folder_with_packages_called_like_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("benchmarks", "pixbench"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong package')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    states = run_jobs([job(tmp_path, "data")], Records(tmp_path / "jobs"), launcher(tmp_path, "local"))
    assert states == {"data": "done"}


def test_submitit_in_this_process(tmp_path: Path) -> None:
    states = run_jobs([job(tmp_path, "data")], Records(tmp_path / "jobs"), launcher(tmp_path, "debug"))
    assert states == {"data": "done"}


def test_a_job_whose_time_is_over_saves_and_goes_on(tmp_path: Path) -> None:
    here = launcher(tmp_path, "local")
    (taken,) = here.start([resuming(tmp_path)])
    wait_for((tmp_path / "up").exists)
    # the controller of submitit's stand-in passes on what its first child gets from Slurm
    children = Path(f"/proc/{taken.number}/task/{taken.number}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGUSR2)
    wait_for(lambda: taken.state() == "done")
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"time": None}, "no time for pretrain"), ({"partitoin": "x"}, "no option 'partitoin'; did you mean partition")],
)
def test_wrong_options_are_one_sentence(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        launcher(tmp_path, "local", **settings).start([job(tmp_path, "pretrain/a")])


def pretend_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, sbatch: str) -> None:
    """Put an ``sbatch`` that is this shell script, and an empty queue, first in the PATH."""
    for name, does in (("squeue", "exit 0"), ("srun", "exit 0"), ("sbatch", sbatch)):
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_nothing_is_submitted_while_the_queue_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of an earlier start may be running: submitted again, there would be two in one folder."""
    pretend_slurm(tmp_path, monkeypatch, f"touch {tmp_path}/submitted; echo Submitted batch job 7")
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: Socket timed out' >&2; exit 1\n")
    slurm = launcher(tmp_path)
    slurm.ask_s = 0.01
    with pytest.raises(
        UserError, match=r"squeue fails \(slurm_load_jobs error: Socket timed out\).*nothing was submitted"
    ):
        slurm.start([job(tmp_path, "pretrain/a")])
    assert not (tmp_path / "submitted").exists()
    (tmp_path / "squeue").write_text(f"#!/bin/sh\ntest -e {tmp_path}/once && exit 0; touch {tmp_path}/once; exit 1\n")
    assert [taken.number for taken in slurm.start([job(tmp_path, "pretrain/a")])] == ["7"]


def test_what_sbatch_refuses_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = "sbatch: error: invalid partition specified: gpo\\nsbatch: error: Batch job submission failed: Invalid partition"
    pretend_slurm(tmp_path, monkeypatch, f"printf '{refusal}' >&2; exit 1")
    with pytest.raises(
        UserError, match=r"refused pretrain/a: sbatch: error: invalid partition specified: gpo; sbatch: "
    ) as caught:
        launcher(tmp_path).start([job(tmp_path, "pretrain/a")])
    assert "CPUs" not in str(caught.value)
    eight = replace(job(tmp_path, "pretrain/a"), gpus=8)
    with pytest.raises(UserError, match="it asked for 8 CPUs, one for each process and data worker; cpus_per_task: N "):
        Slurm(Records(tmp_path / "jobs"), tmp_path, {"time": 5}).start([eight])


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A Slurm that accepts each job and keeps its file; the function returns what was submitted."""
    kept = tmp_path / "kept"
    kept.mkdir()
    pretend_slurm(tmp_path, monkeypatch, f'n=$(ls {kept} | wc -l); cp "$1" {kept}/$n; echo "Submitted batch job $n"')
    return lambda: [path.read_text() for path in sorted(kept.iterdir(), key=lambda path: int(path.name))]


def test_srun_gets_the_cores_of_the_job(tmp_path: Path, written: Callable[[], list[str]]) -> None:
    """Also where Slurm (22.05 until before 23.11) does not let it take them over from sbatch."""
    launcher(tmp_path, cpus_per_task=6).start([job(tmp_path, "pretrain/a")])
    (text,) = written()
    (srun,) = (line for line in text.splitlines() if line.startswith("srun "))
    assert "#SBATCH --cpus-per-task=6" in text.splitlines()
    assert {"--cpus-per-task=6", "--kill-on-bad-exit=0"} < set(srun.split())


def test_jobs_of_rows_and_seeds_share_arrays(tmp_path: Path, written: Callable[[], list[str]]) -> None:
    """They may if nothing differs but the command; neither other GPUs nor another time limit go into one array."""
    jobs = [job(tmp_path, f"transfer/{row}/p/seed{seed}") for row in "ab" for seed in range(3)]
    jobs += [replace(job(tmp_path, "transfer/c/p/seed0"), gpus=2), job(tmp_path, "convert/a")]
    taken = launcher(tmp_path, convert={"time": 3}).start(jobs)
    assert sorted(line for text in written() for line in text.splitlines() if "--array" in line) == [
        "#SBATCH --array=0-5%6"
    ]
    numbers = {submitted.job.name: submitted.number for submitted in taken}
    assert numbers["transfer/b/p/seed2"] == f"{numbers['transfer/a/p/seed0'].partition('_')[0]}_5"
    assert len({number.partition("_")[0] for number in numbers.values()}) == len(written()) == 3


def test_the_limit_of_arrays(tmp_path: Path, written: Callable[[], list[str]]) -> None:
    jobs = [job(tmp_path, f"transfer/{row}") for row in "abc"]
    launcher(tmp_path, array_parallelism=2).start(jobs)
    limited = launcher(tmp_path, array_parallelism=2)
    limited.array_limit = 1
    limited.start(jobs)
    assert [line for text in written() for line in text.splitlines() if "--array" in line] == [
        "#SBATCH --array=0-2%2",
        "#SBATCH --array=0-2%1",
    ]


def test_the_limit_of_arrays_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = []
    monkeypatch.setattr(
        "benchmarks.launch.scheduler.run_jobs",
        lambda jobs, records, slurm: limits.append(slurm.array_limit) or {job.name: "failed" for job in jobs},
    )
    suite = ["suite", str(REPO / "configs" / "suites" / "slurm.yaml"), "--launcher", "slurm", "--out", str(tmp_path)]
    assert main([*suite, "--data-root", str(tmp_path), "--array-limit", "4"]) == 1
    assert limits == [4]
    assert main([*suite, "--data-root", str(tmp_path), "--array-limit", "0"]) == 2
    assert "--array-limit 0 is not possible; choose 1 or more" in capsys.readouterr().err


def test_too_few_cores_for_the_data_workers(
    tmp_path: Path, written: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The user's number of cores is kept, workers are fewer, and the job remains the same."""
    words = ("pretrain", "--config", str(REPO / "configs" / "pretrain" / "mini.yaml"), "--method.name", "moco_v2")
    big = Job("pretrain/a", (*PIXBENCH, *words, "--data.root", "x", "--data.workers=16"), tmp_path / "out", gpus=8)
    before = big.key
    (taken,) = launcher(tmp_path, cpus_per_task=64).start([big])
    assert capsys.readouterr().out.startswith("pretrain/a: 7 data workers per training process instead of 16, to fit")
    (pickled,) = (tmp_path / "slurm").glob("*_submitted.pkl")
    task = DelayedSubmission.load(pickled).function
    assert task.words == ("--data.workers=7",)
    assert task.job.key == before
    assert json.loads((tmp_path / "slurm" / "pretrain.a.json").read_text()) == {"number": taken.number, "key": before}
    assert "--cpus-per-task=64" in written()[0]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm with two nodes that are both this machine."""
    missing = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if missing or os.getuid():
        pytest.skip(f"{', '.join(missing)} not installed" if missing else "starting slurmd needs root")
    folder, script = tmp_path_factory.mktemp("slurm"), REPO / "scripts" / "slurm_here.sh"
    started = subprocess.run([script, "start", folder], capture_output=True, text=True, check=False)
    assert started.returncode == 0, started.stderr
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield
    subprocess.run([script, "stop", folder], check=False)
    del os.environ["SLURM_CONF"]


@pytest.mark.e2e
@pytest.mark.usefixtures("slurm")
def test_slurm_keeps_the_order_while_nobody_watches(tmp_path: Path) -> None:
    """The watcher leaves and comes back: nothing is submitted twice, and arrays are used where jobs wait for the same."""
    note = f"open({str(tmp_path / 'order')!r}, 'a').write({{!r}} + ' ')"
    jobs = [
        job(tmp_path, "data", "import time; time.sleep(2); " + note.format("data")),
        job(tmp_path, "pretrain/a", "import time; time.sleep(3); " + note.format("a"), ("data",)),
        job(tmp_path, "pretrain/b", "raise SystemExit('the disk is on fire')", ("data",)),
        job(tmp_path, "transfer/a", note.format("ta"), ("pretrain/a",)),
        job(tmp_path, "transfer/b", note.format("tb"), ("pretrain/b",)),
    ]

    class Left(Exception):
        pass

    class Leaving(Slurm):
        def start(self, jobs: Any) -> Any:
            taken = super().start(jobs)
            if len(self._taken) == 5:
                raise Left
            return taken

    leaving = Leaving(Records(tmp_path / "jobs"), tmp_path, SETTINGS, ask_s=0.3)
    with pytest.raises(Left):
        run_jobs(jobs, leaving.records, leaving)
    numbers = {name: taken.number for name, taken in leaving._taken.items()}
    assert numbers["pretrain/a"].partition("_")[0] == numbers["pretrain/b"].partition("_")[0]
    time.sleep(3)
    back = launcher(tmp_path)
    states = run_jobs(jobs, back.records, back)
    assert states == {
        "data": "done",
        "pretrain/a": "done",
        "pretrain/b": "failed",
        "transfer/a": "done",
        "transfer/b": "blocked",
    }
    assert {name: taken.number for name, taken in back._taken.items()}.items() <= numbers.items()
    assert (tmp_path / "order").read_text().split() == ["data", "a", "ta"]


@pytest.mark.e2e
@pytest.mark.usefixtures("slurm")
def test_slurm_queues_again_whose_time_is_over(tmp_path: Path) -> None:
    here = launcher(tmp_path)
    (taken,) = here.start([resuming(tmp_path)])
    wait_for((tmp_path / "up").exists)
    subprocess.run(["scancel", "--signal=USR2", taken.number], check=True)  # as Slurm itself does before the limit
    wait_for((tmp_path / "saved").exists)
    wait_for(lambda: taken.state() == "done", 200)


@pytest.mark.e2e
@pytest.mark.usefixtures("slurm")
def test_torchrun_over_two_nodes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch, torch.distributed as dist; dist.init_process_group('gloo'); x = torch.ones(1); dist.all_reduce(x)\n"
        f"if dist.get_rank() == 0: open({str(tmp_path / 'out')!r}, 'w').write(str(x.item()))\n"
    )
    jobs = [Job("pretrain/a", (sys.executable, str(script)), tmp_path / "out")]
    here = launcher(tmp_path, nodes=2)
    assert run_jobs(jobs, here.records, here) == {"pretrain/a": "done"}, (
        tmp_path / "logs" / "pretrain.a.log"
    ).read_text()
    assert (tmp_path / "out").read_text() == "2.0"


@pytest.mark.e2e
@pytest.mark.usefixtures("slurm")
def test_a_job_may_use_the_cores_it_asked_for(tmp_path: Path) -> None:
    count = len(os.sched_getaffinity(0))
    here = launcher(tmp_path, cpus_per_task=count)
    cores = job(tmp_path, "pretrain/a", "import os; print('cores', len(os.sched_getaffinity(0)))")
    assert run_jobs([cores], here.records, here) == {"pretrain/a": "done"}
    assert f"cores {count}" in (tmp_path / "logs" / "pretrain.a.log").read_text()


def two_machines(tmp_path: Path, first: str, second: str) -> Job:
    """A job that runs shell commands, other ones on each machine, instead of torchrun."""
    script = tmp_path / "command"
    script.write_text(f'#!/bin/bash\ncd {tmp_path}\nif [ "$SLURM_NODEID" = 0 ]; then\n{first}\nelse\n{second}\nfi\n')
    script.chmod(0o755)
    return Job("pretrain/a", (str(script),), tmp_path / "out")


@pytest.mark.e2e
@pytest.mark.usefixtures("slurm")
def test_two_machines_save_and_go_on(tmp_path: Path) -> None:
    """The second one ends, with an error, while the first still saves; this Slurm has KillOnBadExit."""
    save = "trap 'touch asked; sleep 10; touch saved; exit 130' INT; touch up; while true; do sleep 0.1; done"
    end = "while [ ! -f asked ]; do sleep 0.1; done; exit 130"
    again = "if [ -f saved ]; then touch out; exit 0; fi; "
    here = launcher(tmp_path, nodes=2)
    (taken,) = here.start([two_machines(tmp_path, again + save, again + end)])
    wait_for((tmp_path / "up").exists)
    subprocess.run(["scancel", "--signal=USR2", taken.number], check=True)  # as Slurm itself does before the limit
    wait_for((tmp_path / "saved").exists)
    wait_for(lambda: taken.state() == "done", 200)


@pytest.mark.e2e
@pytest.mark.usefixtures("slurm")
def test_a_failure_on_one_machine_ends_the_job(tmp_path: Path) -> None:
    """The other one notices nothing, as in a collective operation without a time limit."""
    here = launcher(tmp_path, nodes=2, srun_args=["--wait=5"])
    (taken,) = here.start([two_machines(tmp_path, "exec sleep 500", "echo 'pixbench: error: no disk'; exit 3")])
    wait_for(lambda: taken.state() == "failed", 60)
    assert taken.reason.startswith("node 1 (")
    assert taken.reason.endswith(": no disk")
    wait_for(lambda: taken.number not in here.ask(), 60)


@pytest.mark.e2e
@pytest.mark.usefixtures("slurm")
def test_a_real_suite_through_slurm(mini_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pre-train, convert, fine-tune and tabulate; the table is there once the watcher has seen all end."""
    settings = {"train_cfg.max_iters": 3, "train_cfg.val_interval": 3, "param_scheduler.0.milestones": [2]}
    shrunken = {"epochs": 1, "batch_size": 4, "schedule.warmup_epochs": 0, "log_every": 1}
    content = {
        "scale": "mini",
        "rows": {"pixpro": {"pretrain": ["pretrain/pixpro_100ep.yaml", "pretrain/mini.yaml"], "set": shrunken}},
        "protocols": ["cityscapes_fcn16s"],
        "overrides": {"cityscapes_fcn16s": settings},
        "slurm": {"time": 30, "cpus_per_task": 1},
    }
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(content))
    words = ["suite", str(path), "--data-root", str(mini_root), "--out", str(tmp_path / "out"), "--launcher", "slurm"]
    assert main(words) == 0, capsys.readouterr().out
    assert "| PixPro" in (tmp_path / "out" / "table.md").read_text()
