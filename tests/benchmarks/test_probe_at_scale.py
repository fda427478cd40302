"""`pixbench probe` on much data: workers, several processes, and memory that is not much more than the features."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.commands.main import main
from benchmarks.probe import classify, features, qscore
from benchmarks.probe.classify import ITERATIONS, L2, fit_linear
from benchmarks.probe.features import Frozen, class_folders, cores, embed, room
from pixbench.errors import UserError
from pixbench.results import read_result
from pretrain import knn
from pretrain.models.backbone_spec import BackboneSpec
from transfer.initial_weights import random_backbone

pytestmark = pytest.mark.slow

REPO = Path(__file__).parents[2]
TINY = BackboneSpec(50, 1 / 32)


def clusters(count: int, channels: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return features (n, C) in float64 and labels (n,), drawn anew."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(classes, (count,), generator=generator)
    centres, noise = (torch.randn(n, channels, generator=generator, dtype=torch.float64) for n in (classes, count))
    return 5 + centres[labels] + 2 * noise, labels


def test_in_parts_the_linear_classifier_is_that_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is compared with the same problem written plainly, which needs several copies of the features."""
    inputs, labels = clusters(700, 12, 5)
    mean, std = inputs.mean(0), inputs.std(0, correction=0)
    weight, bias = torch.zeros(5, 12).double().requires_grad_(), torch.zeros(5).double().requires_grad_()
    solver = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        logits = F.linear((inputs - mean) / std, weight, bias)
        loss = F.cross_entropy(logits, labels) + 0.5 * L2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    monkeypatch.setattr(classify, "PART", 17 * 64)  # 64 samples at a time, 60 in the last part
    assert classify.rows(5, 12) == 64
    found = fit_linear(inputs, labels, 5)
    for name, value in (("mean", mean), ("std", std), ("weight", weight), ("bias", bias)):
        torch.testing.assert_close(getattr(found, name), value.detach(), rtol=0, atol=1e-9)
    assert torch.equal(found.predict(inputs), found.logits(inputs).argmax(1))


def test_in_parts_the_neighbours_and_scores_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known, labels = clusters(300, 6, 4)
    others, _ = clusters(50, 6, 4)
    for k in (1, 20, 1000):
        cosine, nearest = (F.normalize(others, dim=1) @ F.normalize(known, dim=1).T).topk(min(k, 300), dim=1)
        votes = torch.zeros(50, 4).double().scatter_add_(1, labels[nearest], ((cosine - 1) / knn.TEMPERATURE).exp())
        for sizes in ((8192, 1024), (64, 7), (9, 50)):
            monkeypatch.setattr(knn, "KNOWN", sizes[0])
            monkeypatch.setattr(knn, "ASKED", sizes[1])
            assert torch.equal(knn.knn(known, labels, others, 4, k), votes.argmax(1))
    whole = qscore.scores(others)
    monkeypatch.setattr(qscore, "ROWS", 7)
    assert {name: pytest.approx(value) for name, value in qscore.scores(others).items()} == whole


PEAK = """
from benchmarks.probe import classify, qscore
from benchmarks.speed.probe_memory import Sizes, needed, peak, work
from pretrain import knn

classify.ITERATIONS, classify.PART, qscore.ROWS, knn.KNOWN, knn.ASKED = 3, 2**20, 128, 512, 128
of = Sizes(train=20_000, val=500, channels=2048, classes=4)
list(work(Sizes(600, 100, of.channels, of.classes)))
before = peak()
list(work(of))
print(peak() - before, needed(of)["features"])
"""


def test_the_peak_of_the_memory_is_that_of_the_features() -> None:
    """Every copy of them would add as much again. The parts that are worked on at a time are small here."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PEAK], cwd=REPO, env=environment, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    measured, alone = map(int, done.stdout.split())
    assert 0.9 * alone < measured < 1.2 * alone


def test_features_that_no_memory_can_hold_are_refused_before_the_first_is_computed() -> None:
    with pytest.raises(UserError, match=r"^1099511627776 features of 64 channels take 281475.0 GB, more memory than"):
        room(2**40, Frozen(random_backbone(TINY, 0)))


def test_one_worker_for_each_core_unless_processes_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert cores() == 6
    for processes, each in ((1, 6), (4, 1), (8, 1), (3, 2)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert cores() == each


def test_workers_and_batches_change_nothing(mini_root: Path) -> None:
    source, model = class_folders(mini_root / "imagenet")[0], Frozen(random_backbone(TINY, 0))
    alone = embed(model, source, size=32, batch=1, workers=0)
    for batch, workers in ((1, 2), (5, 1), (64, 3)):
        torch.testing.assert_close(embed(model, source, size=32, batch=batch, workers=workers), alone)
    assert features.loader([0, 1], [[0, 1]], list, 5, torch.device("cpu")).num_workers == 1  # none without a batch


def command(root: Path, out: Path, *options: str) -> list[str]:
    words = ["probe", "--init", "random", "--width", str(TINY.width), "--size", "32", "--batch-size", "5"]
    return [*words, "--data-root", str(root), "--out", str(out), *options]


def run(*words: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run the command with one thread in each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ("-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}")
    start = [sys.executable, *(torchrun if processes > 1 else ()), "-m", "benchmarks.commands", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(start, cwd=REPO, env=environment, text=True, capture_output=True, timeout=300)


def test_two_processes_find_what_one_finds(mini_root: Path, tmp_path: Path) -> None:
    """All metrics, scores and predictions, to the last bit; a third start has nothing to do."""
    (tmp_path / "data").mkdir()
    for name in ("imagenet", "cityscapes"):
        shutil.copytree(mini_root / name, tmp_path / "data" / name)
    for kind in ("leftImg8bit", "gtFine"):  # an odd number of images: one process has none in the last turn
        sorted((tmp_path / "data/cityscapes" / kind / "val").glob("*/*"))[-1].unlink()
    for out, processes in (("one", 1), ("two", 2)):
        done = run(*command(tmp_path / "data", tmp_path / out), processes=processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("probe: knn_top1") == 1
    one, two = (read_result(tmp_path / out / "result.json") for out in ("one", "two"))
    assert two["metrics"] == one["metrics"]
    assert {"knn_top1", "auroc_q", "dense_mIoU"} < set(two["metrics"])
    assert [result["host"]["processes"] for result in (one, two)] == [1, 2]
    assert (tmp_path / "two/qscore.csv").read_bytes() == (tmp_path / "one/qscore.csv").read_bytes()
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["job.json", "qscore.csv", "result.json"]
    written = (tmp_path / "two/result.json").stat().st_mtime_ns
    again = run(*command(tmp_path / "data", tmp_path / "two"), processes=2)
    assert (again.returncode, again.stdout.count("probe: knn_top1")) == (0, 1), again.stderr
    assert (tmp_path / "two/result.json").stat().st_mtime_ns == written


def test_two_processes_stop_together(mini_root: Path, tmp_path: Path) -> None:
    """At a folder that rank 0 may not use, and at an image that only rank 1 reads; nothing is left half done."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    options = ("--datasets", "imagenet")
    done = run(*command(mini_root, tmp_path / "full", *options), processes=2)
    assert done.returncode != 0
    assert done.stderr.count(f"pixbench: error: {tmp_path / 'full'} is not empty and is not a run folder") == 2

    shutil.copytree(mini_root / "imagenet", tmp_path / "data/imagenet")
    broken = Path(class_folders(tmp_path / "data/imagenet")[1].where(5))  # the first of the second batch
    broken.write_bytes(broken.read_bytes()[:300])
    done = run(*command(tmp_path / "data", tmp_path / "run", *options), processes=2)
    assert done.returncode != 0
    assert done.stderr.count(f"pixbench: error: image {broken} is broken") == 1
    assert done.stderr.count("pixbench: error: another process stopped with an error") == 1
    assert "defect" not in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["job.json"]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_broken_image_is_one_sentence_and_leaves_no_worker(
    workers: str, mini_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(mini_root / "imagenet", tmp_path / "imagenet")
    broken = Path(class_folders(tmp_path / "imagenet")[0].where(3))
    broken.write_bytes(broken.read_bytes()[:300])
    words = command(tmp_path, tmp_path / "run", "--datasets", "imagenet", "--workers", workers)
    before = multiprocessing.active_children()  # of other tests
    assert main(words) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"pixbench: error: image {broken} is broken")
    assert "\n" not in said
    assert set(multiprocessing.active_children()) <= set(before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_what_a_cpu_finds(mini_root: Path) -> None:
    """Features nearly, whose convolutions may be in TF32; of the same features, the same neighbours, classes and scores."""
    source, backbone = class_folders(mini_root / "imagenet")[0], random_backbone(TINY, 0)
    on_cpu, on_gpu = (embed(Frozen(backbone).to(device), source, 32, 5, 2) for device in ("cpu", "cuda"))
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0.01, atol=0.01)
    inputs, labels = clusters(700, 12, 5)
    found = fit_linear(inputs.cuda(), labels.cuda(), 5)
    expected = fit_linear(inputs, labels, 5)
    torch.testing.assert_close(found.logits(inputs.cuda()).cpu(), expected.logits(inputs), rtol=0, atol=1e-6)
    assert torch.equal(
        knn.knn(inputs.cuda(), labels.cuda(), inputs.cuda(), 5).cpu(), knn.knn(inputs, labels, inputs, 5)
    )
    assert found.to("cpu").weight.device.type == "cpu"
