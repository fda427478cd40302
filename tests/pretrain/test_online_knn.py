"""k-NN accuracy while a run trains: a fair sample, a right figure, and a training that does not notice it."""

from __future__ import annotations

import json
import random
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from started import finished

from pixbench.file_versions import CHECKPOINT_FILE
from pretrain import checkpoint, engine
from pretrain.log import online_knn
from pretrain.log.online_knn import OnlineKNN, balanced_sample, embed
from pretrain.settings import LogConfig, RunConfig

Runs = Callable[..., RunConfig]
REPO = Path(__file__).parents[2]


def test_the_sample_is_balanced_and_fixed() -> None:
    labels = [0] * 500 + [7] * 3 + [2] * 51 + [5] + [-1] * 40
    random.Random(0).shuffle(labels)
    indices, classes = balanced_sample(labels)
    assert (indices, classes) == balanced_sample(np.asarray(labels))
    assert [classes.count(label) for label in range(4)] == [50, 50, 2, 0]  # labels 0, 2 and 7
    assert [labels[index] for index in indices] == [0] * 50 + [2] * 50 + [7] * 2
    assert len(set(indices)) == len(indices)
    assert classes[::2] == classes[1::2], "every other image: both halves have the same classes"
    assert max(indices) - min(indices) > 400, "spread over all images of a class"


def test_the_sample_is_limited() -> None:
    indices, classes = balanced_sample(list(range(1000)) * 60)
    assert (len(indices), len(set(classes)), classes.count(3)) == (4000, 1000, 4)
    indices, classes = balanced_sample(list(range(20_000)) * 3)
    assert (len(indices), len(set(classes)), classes.count(3)) == (5000, 2500, 2)
    assert balanced_sample([-1] * 10) == balanced_sample([0, 1, 2]) == ([], [])


def log_of(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]


def weights(config: RunConfig) -> dict[str, Any]:
    content = checkpoint.load(Path(config.out) / CHECKPOINT_FILE)
    return {**content["model"], **{f"momentum of {k}": v for k, v in enumerate(_tensors(content["optimizer"]))}}


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [tensor for each in values for tensor in _tensors(each)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.e2e), 2])
def test_the_training_does_not_notice_it(
    workers: int, tiny: Runs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit the same weights, statistics of batch norm and losses; everything else in the log is there too."""
    without = tiny("without", log=LogConfig(knn_every=0, views_every=0), log_every=2)
    engine.train(without)
    plain = tiny("with", log=LogConfig(knn_every=1, views_every=1), log_every=2)
    random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist()
    engine.train(replace(plain, data=replace(plain.data, workers=workers)))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    first, second = weights(without), weights(plain)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    lines = {line["step"]: line for line in log_of(plain)}
    assert sorted(lines) == [1, 2, 3, 4, 6], "the line of step 3, the end of epoch 1, is there for the k-NN accuracy"
    assert all(("knn" in line) == (step in (3, 6)) for step, line in lines.items())
    assert all(line["loss"] == lines[line["step"]]["loss"] for line in log_of(without))
    for step in (3, 6):
        assert 0 <= lines[step]["knn"] <= 100
        assert lines[step]["knn_s"] > 0
    assert "epoch 1: k-NN accuracy " in (said := capsys.readouterr().out)
    assert "(chance: 50.0 %) on 24 training images" in said


@pytest.mark.slow
def test_everything_is_put_back(tiny: Runs) -> None:
    run = engine.setup(tiny("run"), torch.device("cpu"))
    run.model.train()
    run.method.backbone.layer1.eval()  # as a method may have frozen it
    before = {name: value.clone() for name, value in run.method.state_dict().items()}
    modes = [module.training for module in run.method.modules()]
    state = torch.get_rng_state()
    embed(run, list(range(24)))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in run.method.modules()] == modes
    after = run.method.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in run.method.parameters())


@pytest.mark.slow
def test_the_features_are_those_of_the_backbone_in_eval_mode(tiny: Runs) -> None:
    run = engine.setup(tiny("run"), torch.device("cpu"))
    found, readable = embed(run, [5, 0])
    crops = torch.stack([online_knn.Crops(run.source, 32)[index] for index in (5, 0)]).float() / 255
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (online_knn.MEAN, online_knn.STD))
    expected = run.method.backbone.eval()((crops - mean) / std).mean((2, 3))
    torch.testing.assert_close(found, expected.detach())
    assert readable.tolist() == [True, True]


@pytest.mark.slow
def test_classes_that_differ_in_colour_are_told_apart(tiny: Runs) -> None:
    """Even by random weights. A broken image is left out."""
    config = tiny("run", log=LogConfig(knn_every=1))
    paths = sorted((Path(config.data.root) / "train").glob("*/*.JPEG"))
    for path in paths:
        Image.new("RGB", (40, 36), "red" if path.parent.name.endswith("0") else "blue").save(path)
    run = engine.setup(config, torch.device("cpu"))
    paths[3].write_bytes(paths[3].read_bytes()[:100])
    run.step, values = 3, dict[str, Any]()
    OnlineKNN(run).after_step(run, None, values)  # type: ignore[arg-type]
    assert values["knn"] == 100
    assert embed(run, [2, 3])[1].tolist() == [True, False]


@pytest.mark.slow
def test_without_labels_it_is_off_and_said_once(tiny: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny("run", log=LogConfig(knn_every=1))
    engine.train(replace(config, data=replace(config.data, layout="flat")))
    assert capsys.readouterr().out.count("no k-NN accuracy will be measured: it needs two classes") == 1
    assert not any("knn" in line for line in log_of(config))


@pytest.mark.slow
def test_a_failure_of_the_evaluation_does_not_end_the_run(
    tiny: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    config = tiny("run", log=LogConfig(knn_every=1))
    monkeypatch.setattr(online_knn, "functional_call", out_of_memory)
    assert engine.train(config) == 0
    assert "epoch 1: no k-NN accuracy (the GPU has too little memory" in capsys.readouterr().out
    assert not any("knn" in line for line in log_of(config))


TWO = """
import sys, torch
from pathlib import Path
from pixbench.distributed import rank
from pixbench.process_group import process_group
from pretrain import engine
from pretrain.config import from_dict
from pretrain.log.online_knn import OnlineKNN, embed
import yaml
config = from_dict(yaml.safe_load(Path(sys.argv[1]).read_text()))
with process_group("cpu") as device:
    run = engine.setup(config, device)
    if rank() == 1:  # its own statistics of batch norm; those of rank 0 count
        [buffer.add_(1) for name, buffer in run.method.backbone.named_buffers() if name.endswith("running_mean")]
    found, readable = embed(run, [0, 3, 5, 7, 9])
    values, run.step = {}, 3
    OnlineKNN(run).after_step(run, None, values)
    torch.save((found, readable, values["knn"]), sys.argv[2] + str(rank()))
"""


@pytest.mark.e2e
def test_two_processes_share_the_work_and_agree(tiny: Runs, tmp_path: Path) -> None:
    import yaml

    config = tiny("run", log=LogConfig(knn_every=1))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config.as_dict()))))
    (tmp_path / "two.py").write_text(TWO)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    words = [str(tmp_path / name) for name in ("two.py", "config.yaml", "found")]
    done = finished([*command, *words], cwd=REPO)
    assert done.returncode == 0, done.stderr
    run = engine.setup(config, torch.device("cpu"))
    alone, readable = embed(run, [0, 3, 5, 7, 9])
    for rank in range(2):
        features, good, _ = torch.load(tmp_path / f"found{rank}")
        torch.testing.assert_close(features, alone)
        assert good.tolist() == readable.tolist()
    run.step, values = 3, dict[str, Any]()
    OnlineKNN(run).after_step(run, None, values)  # type: ignore[arg-type]
    assert {torch.load(tmp_path / f"found{rank}")[2] for rank in range(2)} == {values["knn"]}
