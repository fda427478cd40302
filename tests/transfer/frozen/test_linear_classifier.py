"""The linear classifier: its optimum, in parts, and without copies of the features."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from started import finished
from torch import Tensor

from pretrain import knn
from pretrain.knn import top1
from transfer.frozen import linear
from transfer.frozen.linear import ITERATIONS, L2, fit_linear

ROOT = Path(__file__).parents[3]


def clusters(count: int, channels: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return features (n, C) in float64 and labels (n,), drawn anew."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(classes, (count,), generator=generator)
    centres, noise = (torch.randn(n, channels, generator=generator, dtype=torch.float64) for n in (classes, count))
    return 5 + centres[labels] + 2 * noise, labels


def test_it_finds_a_separating_line_and_the_base_rates() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    features = torch.eye(3)[labels] * 1000 + torch.randn(90, 3, generator=generator) + 500
    features = torch.cat([features, torch.full((90, 1), 7.0)], dim=1)  # a channel that never moves
    assert top1(fit_linear(features, labels, 3).logits(features).argmax(1), labels) == 100
    blind = fit_linear(torch.zeros(4, 2), torch.tensor([0, 1, 1, 1]), 2).logits(torch.zeros(1, 2)).softmax(1)
    assert blind[0].tolist() == pytest.approx([0.25, 0.75], abs=1e-3)


def test_in_parts_it_is_that_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(linear, "PART", 17 * 64)  # 64 samples at a time, 60 in the last part
    assert linear.rows(5, 12) == 64
    found = fit_linear(inputs, labels, 5)
    for name, value in (("mean", mean), ("std", std), ("weight", weight), ("bias", bias)):
        torch.testing.assert_close(getattr(found, name), value.detach(), rtol=0, atol=1e-9)
    assert torch.equal(found.predict(inputs), found.logits(inputs).argmax(1))


def test_in_parts_the_neighbours_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known, labels = clusters(300, 6, 4)
    others, _ = clusters(50, 6, 4)
    for k in (1, 20, 1000):
        cosine, nearest = (F.normalize(others, dim=1) @ F.normalize(known, dim=1).T).topk(min(k, 300), dim=1)
        votes = torch.zeros(50, 4).double().scatter_add_(1, labels[nearest], ((cosine - 1) / knn.TEMPERATURE).exp())
        for sizes in ((8192, 1024), (64, 7), (9, 50)):
            monkeypatch.setattr(knn, "KNOWN", sizes[0])
            monkeypatch.setattr(knn, "ASKED", sizes[1])
            assert torch.equal(knn.knn(known, labels, others, 4, k), votes.argmax(1))


COPIES = """
from benchmarks.speed.probe_memory import Sizes, measured, needed
from pretrain import knn
from transfer.frozen import linear, qscore

linear.ITERATIONS, linear.PART, qscore.ROWS, knn.KNOWN, knn.ASKED = 3, 2**20, 128, 512, 128
of = Sizes(train=15_000, val=500, channels=2048, classes=4)
print(max(measured(of, iterations=3).values()), needed(of)["features"])
"""


@pytest.mark.slow
def test_no_copy_of_the_features_is_made() -> None:
    """They are mapped from a file; what is worked on at a time is small here. A copy would add as much as they are."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = finished([sys.executable, "-c", COPIES], cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    grown, alone = map(int, done.stdout.split())
    assert grown < 0.5 * alone
