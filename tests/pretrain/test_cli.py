"""`python -m pretrain` from the outside: exit codes, sentences, signals, several processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from started import finished, output

from pixbench.file_versions import CHECKPOINT_FILE
from pretrain import checkpoint
from pretrain.__main__ import main
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.resnet import build_resnet

pytestmark = pytest.mark.slow

REPO = Path(__file__).parents[2]
CONFIGS = REPO / "configs" / "pretrain"
TINY = (
    *("--backbone.depth", "18", "--backbone.width", "0.0625", "--data.image_size", "32"),
    *("--method.hidden", "16", "--method.dim", "8"),
    *("--batch_size", "8", "--log_every", "1", "--data.workers", "0"),
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def arguments(root: Path, out: Path, *options: str) -> list[str]:
    configs = ["--config", str(CONFIGS / "pixpro_100ep.yaml"), "--config", str(CONFIGS / "mini.yaml")]
    return [*configs, "--data.root", str(root), "--out", str(out), *TINY, *options]


def steps(out: Path) -> list[int]:
    path = out / "log.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pretrain", *words]
    return subprocess.Popen(
        command,
        cwd=REPO,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_run_from_the_command_line(image_tree: Callable[..., Path], tmp_path: Path) -> None:
    words = arguments(image_tree(2, 8), tmp_path / "run", "--epochs", "1")
    assert main(words) == 0
    assert steps(tmp_path / "run") == [1, 2]
    assert main(words) == 0  # finished: nothing to do


@pytest.mark.parametrize(
    ("kind", "described"),
    [
        ("", {"depth": 18, "width": 0.0625, "output_stride": 16}),
        (
            "--backbone.depth 50 --backbone.width 0.25 --backbone.groups 32 --backbone.width_per_group 4",
            {"depth": 50, "width": 0.25, "output_stride": 16, "groups": 32, "width_per_group": 4},
        ),
        (
            "--backbone.stem 3x3 --backbone.output_stride 8",
            {"depth": 18, "width": 0.0625, "output_stride": 8, "stem": "3x3"},
        ),
    ],
    ids=["basic blocks", "groups", "stem of CIFAR"],
)
def test_every_kind_of_backbone_is_trained(
    image_tree: Callable[..., Path], tmp_path: Path, kind: str, described: dict[str, Any]
) -> None:
    out = tmp_path / "run"
    assert main(arguments(image_tree(2, 4), out, "--epochs", "1", *kind.split())) == 0
    assert steps(out) == [1]
    content = checkpoint.load(out / CHECKPOINT_FILE)
    spec = BackboneSpec(**described)
    assert content["backbone"] == spec.as_dict()
    own = {key: tensor for key, tensor in content["model"].items() if key.startswith("backbone.")}
    build_resnet(spec).load_state_dict({key.removeprefix("backbone."): tensor for key, tensor in own.items()})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--data.root", "/nowhere"), "root /nowhere does not exist"),
        (("--method.gama", "2"), "--method.gama"),
        (("--epochs", "some"), "epochs"),
        (("--method.name", "pixpo"), "choose one of pixpro"),
    ],
)
def test_mistakes(options: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path, tmp_path / "run", *options)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("pretrain: error: ")
    assert sentence in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="does not exist"):
        main(arguments(tmp_path / "nowhere", tmp_path / "run", "--debug"))


def test_killed_interrupted_continued(
    image_tree: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL loses the steps since the last checkpoint, Ctrl-C none; both go on and end with every step once."""
    root, out, often = image_tree(2, 12), tmp_path / "run", ("--checkpoint_every", "9", "--checkpoint_every_steps", "5")
    words = arguments(root, out, "--epochs", "8", *often, "--data.workers", "1")
    process = start(*words)
    wait_for(lambda: len(steps(out)) >= 7, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    process = start(*words)
    wait_for(lambda: len(steps(out)) >= 12, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: data workers get it as well
    out_text, error_text = output(process)
    assert process.returncode == 130, error_text
    assert re.search(r"going on after step (5|10|15) of 24", out_text)
    assert "interrupted" in error_text
    assert "Traceback" not in error_text
    done = steps(out)[-1]

    assert main(words) == 0
    assert f"going on after step {done} of 24" in capsys.readouterr().out
    assert steps(out) == list(range(1, 25))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.e2e)])
def test_sigusr1_saves_and_the_run_goes_on_and_whatever_asks_to_stop_saves_too(
    image_tree: Callable[..., Path], tmp_path: Path, number: signal.Signals
) -> None:
    """Slurm sends its signals to every process, data workers too, as a closed terminal does. What failed before is forgotten."""
    out = tmp_path / "run"
    out.mkdir()
    (out / "result.json").write_text('{"status": "failed"}')
    process = start(
        *arguments(image_tree(2, 12), out, "--epochs", "100", "--data.workers", "2", "--checkpoint_every", "99")
    )
    wait_for(lambda: len(steps(out)) >= 2, process)
    done = steps(out)[-1]
    os.killpg(process.pid, signal.SIGUSR1)
    wait_for(lambda: (out / "checkpoint.pth").exists(), process)
    saved = checkpoint.load(out / "checkpoint.pth", verify=True)["step"]
    assert done <= saved <= done + 2
    wait_for(lambda: steps(out)[-1] > saved + 2, process)
    os.killpg(process.pid, number)
    _, error_text = output(process)
    assert process.returncode == 130, error_text
    assert checkpoint.load(out / "checkpoint.pth", verify=True)["step"] == steps(out)[-1]
    assert not (out / "result.json").exists()
    assert [path.name for path in (out / "earlier").iterdir()] == [f"checkpoint_step{saved:09}.pth"]


def test_a_dead_data_worker(image_tree: Callable[..., Path], tmp_path: Path) -> None:
    """As the kernel does when memory runs out."""
    out = tmp_path / "run"
    process = start(*arguments(image_tree(2, 12), out, "--epochs", "100", "--data.workers", "1"))
    wait_for(lambda: len(steps(out)) >= 2, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, error_text = output(process)
    assert process.returncode == 2, error_text
    assert "lower the number of workers (data.workers" in error_text


@pytest.mark.e2e
def test_two_machines(image_tree: Callable[..., Path], tmp_path: Path) -> None:
    """An agent of torchrun for each, both on the loopback address, with one folder that they share."""
    out = tmp_path / "run"
    words = arguments(image_tree(2, 12), out, "--epochs", "2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rendezvous = ("--nnodes=2", "--nproc_per_node=1", "--master-addr=127.0.0.1", f"--master-port={port}")
    agents = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                *rendezvous,
                f"--node-rank={rank}",
                "-m",
                "pretrain",
                *words,
            ],
            **{"cwd": REPO, "env": ENVIRONMENT, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
        )
        for rank in range(2)
    ]
    said = [output(agent)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert "2 × cpu" in said[0]
    assert steps(out) == list(range(1, 7))


@pytest.mark.e2e
def test_a_run_that_another_process_has_is_left_alone(image_tree: Callable[..., Path], tmp_path: Path) -> None:
    words = arguments(image_tree(2, 12), tmp_path / "run", "--epochs", "100")
    process = start(*words)
    wait_for(lambda: len(steps(tmp_path / "run")) >= 2, process)
    second = start(*words)
    _, error_text = output(second)
    assert second.returncode == 2
    assert f"is in use by process {process.pid} on " in error_text
    os.kill(process.pid, signal.SIGTERM)
    output(process)
    assert not list((tmp_path / "run").glob(".owner*"))


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        f"--master_port={port}",
        "-m",
        "pretrain",
    ]
    return finished([*command, *words], cwd=REPO, env=ENVIRONMENT)


ONE_EPOCH = ("--epochs", "1", "--data.cache", "false", "--accumulate", "2")


@pytest.mark.e2e
def test_two_processes(image_tree: Callable[..., Path], tmp_path: Path) -> None:
    """They finish together."""
    out = tmp_path / "run"
    result = torchrun(*arguments(image_tree(2, 12), out, *ONE_EPOCH))
    assert result.returncode == 0, result.stderr
    assert "2 × cpu" in result.stdout
    assert steps(out) == [1, 2, 3]


@pytest.mark.e2e
def test_a_broken_image_that_one_of_two_processes_meets_stops_both(
    image_tree: Callable[..., Path], tmp_path: Path
) -> None:
    """With one sentence each."""
    root = image_tree(2, 12)
    path = root / "train" / "n00000001" / "n00000001_3.JPEG"
    path.write_bytes(path.read_bytes()[:300])
    result = torchrun(*arguments(root, tmp_path / "run", *ONE_EPOCH, "--data.on_error", "fail"))
    assert result.returncode != 0
    assert f"pretrain: error: image {path} is broken" in result.stderr
    assert "pretrain: error: another process stopped" in result.stderr
    assert "defect" not in result.stderr
