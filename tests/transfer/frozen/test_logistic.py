from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from held_splits import one_hot, random_split, run, split
from scipy.optimize import minimize
from scipy.special import log_softmax

from pixbench.errors import UserError
from transfer.frozen import patches
from transfer.frozen.method import Split
from transfer.frozen.methods.logistic import Settings, evaluate, fit
from transfer.frozen.patches import Rows

SETTINGS = Settings()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def rows(values: torch.Tensor) -> Rows:
    channels = values.shape[1]
    return Rows(values, torch.arange(len(values)), values.new_zeros(channels), values.new_ones(channels), values.device)


def problem(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, classes, (120,), generator=generator)
    features = torch.randn(120, 5, generator=generator, dtype=torch.float64)
    features[:, 0] += labels
    return features, (labels * 3 + 1).to(torch.uint8)  # numbers with gaps


def reference(x: np.ndarray, y: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray]:
    """The minimum of scikit-learn's objective, C · Σ cross-entropy + 0.5 · ‖weight‖², by SciPy's BFGS.

    For two classes it has a single weight vector, whose sigmoid is the probability of the second.
    """
    classes = np.unique(y)
    answers = np.searchsorted(classes, y)
    count = 1 if len(classes) == 2 else len(classes)

    def unpacked(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        table = flat.reshape(count, -1)
        return table[:, :-1], table[:, -1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = unpacked(flat)
        logits = x @ weight.T + bias
        if count == 1:
            logits = np.concatenate((np.zeros_like(logits), logits), 1)
        logs = log_softmax(logits, axis=1)
        slope = np.exp(logs)
        slope[np.arange(len(y)), answers] -= 1
        slope = slope[:, -count:]
        gradient = np.concatenate((c * slope.T @ x + weight, c * slope.sum(0)[:, None]), 1)
        return -c * logs[np.arange(len(y)), answers].sum() + 0.5 * (weight**2).sum(), gradient.ravel()

    start = np.zeros(count * (x.shape[1] + 1))
    found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000})
    return unpacked(found.x)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("c", [1e-3, 0.1, 1.0, 30.0])
def test_the_minimum_is_that_of_scikit_learns_objective(classes: int, c: float) -> None:
    features, labels = problem(classes)
    found = fit(rows(features), labels, c, SETTINGS)
    weight, bias = reference(features.numpy(), labels.numpy(), c)
    np.testing.assert_allclose(found.weight, weight, atol=2e-5)
    np.testing.assert_allclose(found.bias - found.bias.mean(), bias - bias.mean(), atol=2e-5)  # a shift of all is free
    assert found.weight.shape[0] == (1 if classes == 2 else 4)
    logits = features.numpy() @ weight.T + bias
    best = (logits[:, 0] > 0).astype(int) if classes == 2 else logits.argmax(1)
    assert found.predict(rows(features)).tolist() == np.unique(labels)[best].tolist()


@pytest.mark.parametrize("classes", [2, 4])
def test_where_it_starts_and_how_features_are_read_change_nothing(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = problem(classes)
    cold = fit(rows(features), labels, 0.5, SETTINGS)
    warm = fit(rows(features), labels, 0.5, SETTINGS, fit(rows(features), labels, 0.01, SETTINGS))
    torch.testing.assert_close(warm.weight, cold.weight, atol=2e-5, rtol=0)
    assert fit(rows(features), labels, 0.5, SETTINGS, warm).iterations <= 2
    monkeypatch.setattr(patches, "KEPT", 1)
    monkeypatch.setattr("transfer.frozen.linear.PART", 200)
    torch.testing.assert_close(fit(rows(features), labels, 0.5, SETTINGS).weight, cold.weight, atol=2e-5, rtol=0)


def test_a_class_that_comes_later_starts_at_zero() -> None:
    features, labels = problem(4)
    three = fit(rows(features[labels < 10]), labels[labels < 10], 0.5, SETTINGS)
    four = fit(rows(features), labels, 0.5, SETTINGS, three)
    torch.testing.assert_close(four.weight, fit(rows(features), labels, 0.5, SETTINGS).weight, atol=2e-5, rtol=0)


def test_three_patches_and_two_classes() -> None:
    """By symmetry the border lies in the middle, and the weight w solves w = 2 C · sigmoid(−w)."""
    features = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    found = fit(rows(features), torch.tensor([0, 1], dtype=torch.uint8), 1.0, SETTINGS)
    weight = found.weight.item()
    assert found.bias.item() == pytest.approx(0, abs=1e-6)
    assert weight == pytest.approx(2 / (1 + np.exp(weight)), abs=1e-6)
    asked = rows(torch.tensor([[0.2], [-3.0], [9.0]], dtype=torch.float64))
    assert found.predict(asked).tolist() == [1, 0, 1]


def test_perfect_features_give_100_and_random_ones_chance() -> None:
    train, test = one_hot(20, 4, 8, 4, 0), one_hot(40, 4, 8, 4, 1)
    measured = evaluate({"train": train, "test": test}, SETTINGS, run())
    assert measured.metrics == {"mIoU": 100, "aAcc": 100}
    assert len(measured.facts["held_out_mIoU"]) == 8
    noise = replace(test.features, cells=torch.randn(len(test.features.cells), 4, dtype=torch.float64))
    measured = evaluate({"train": train, "test": Split(noise, test.views)}, SETTINGS, run())
    assert measured.metrics["mIoU"] == pytest.approx(100 / 7, abs=5)


def test_the_best_c_is_fitted_to_all_training_images() -> None:
    train, test = random_split(20, 3, 2, 4, 3, 0), random_split(4, 3, 2, 4, 3, 1)
    settings = replace(SETTINGS, exponents=(-2, 1, 3))
    measured = evaluate({"train": train, "test": test}, settings, run(2))
    chosen = replace(settings, exponents=(np.log10(measured.facts["C"]),) * 2 + (1,))
    alone = evaluate({"train": train, "test": test}, chosen, run(2))
    assert alone.metrics == pytest.approx(measured.metrics, abs=1e-9)
    assert alone.facts["held_out_mIoU"] == {}
    scores = measured.facts["held_out_mIoU"]
    assert max(scores, key=scores.get) == f"{measured.facts['C']:.3g}"


def test_bad_input() -> None:
    single = split([np.ones((2, 2, 3))] * 10, [np.zeros((4, 4))] * 10, 2)
    with pytest.raises(UserError, match="nothing to tell apart"):
        evaluate({"train": single, "test": single}, SETTINGS, run())
    few = random_split(9, 2, 2, 3, 2, 0)
    with pytest.raises(UserError, match="has 9 images, but one in 10"):
        evaluate({"train": few, "test": few}, SETTINGS, run())
    with pytest.raises(ValueError, match=r"settings\.iterations 0 is not possible"):
        Settings(iterations=0)
