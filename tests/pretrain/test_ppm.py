"""The pixel propagation module: hand-derived values and the official outputs and gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pixbench.errors import UserError
from pretrain.losses import PAIRS
from pretrain.models.ppm import PixelPropagation, similarity

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "ppm.npz")
COMBINATIONS = [(layers, p, clamp) for layers in (0, 1, 2) for p in GOLDEN["p"] for clamp in GOLDEN["clamp"]]


def official(layers: int, gamma: float, clamp: float, dtype: torch.dtype) -> PixelPropagation:
    ppm = PixelPropagation(16, layers, gamma, clamp).to(dtype)
    parameters = dict(ppm.transform.named_parameters())
    recorded = {n.removeprefix(f"layer{layers}/w/"): GOLDEN[n] for n in GOLDEN if n.startswith(f"layer{layers}/w/")}
    assert parameters.keys() == {n for n in recorded if "running" not in n and "num_batches" not in n}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(recorded[name]))
    return ppm


@pytest.mark.parametrize(("layers", "gamma", "clamp"), COMBINATIONS)
@pytest.mark.parametrize(("suffix", "dtype"), [("f64", torch.float64), ("f32", torch.float32)])
def test_outputs_and_gradients_of_the_official_code(
    layers: int, gamma: float, clamp: float, suffix: str, dtype: torch.dtype
) -> None:
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if suffix == "f64" else {"rtol": 2e-4, "atol": 2e-4}
    ppm = official(layers, float(gamma), float(clamp), dtype)
    feat = torch.from_numpy(GOLDEN["feat"]).to(dtype).requires_grad_()
    out = ppm(feat)
    out.backward(torch.from_numpy(GOLDEN["upstream"]).to(dtype))
    prefix = f"layer{layers}/p{gamma:g}/clamp{clamp:g}"
    np.testing.assert_allclose(out.detach(), GOLDEN[f"{prefix}/out_{suffix}"], **tolerance)
    np.testing.assert_allclose(feat.grad, GOLDEN[f"{prefix}/grad_feat_{suffix}"], **tolerance)
    for name, parameter in ppm.transform.named_parameters():
        np.testing.assert_allclose(parameter.grad, GOLDEN[f"{prefix}/grad_w/{name}_{suffix}"], **tolerance)


def test_running_statistics_of_the_official_code() -> None:
    ppm = official(2, 2.0, 0.0, torch.float64)
    ppm(torch.from_numpy(GOLDEN["feat"]).double())
    for name in ("bn1.running_mean", "bn1.running_var"):
        np.testing.assert_allclose(ppm.transform.get_buffer(name), GOLDEN[f"layer2/p2/clamp0/{name}_f64"], rtol=1e-9)


def test_similarity_by_hand() -> None:
    """Cells (1, 0), (0, 1), (3, 3), (−1, 0): cosines 0, √½, −1 to the first."""
    x = torch.tensor([[[[1.0, 0.0], [3.0, -1.0]], [[0.0, 1.0], [3.0, 0.0]]]], dtype=torch.float64)
    expected = torch.tensor([[1, 0, 0.5, 0], [0, 1, 0.5, 0], [0.5, 0.5, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    unit = torch.nn.functional.normalize(x, dim=1).flatten(2)
    cosine = unit.mT @ unit
    torch.testing.assert_close(similarity(cosine, 2.0, 0.0)[0][0], expected)
    assert similarity(cosine, 1.0, 0.2)[0][0, 0, 3].item() == pytest.approx(0.2)
    assert similarity(cosine, 0.5, 0.0)[0][0, 0, 3].item() == pytest.approx(1e-3)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("clamp", [-1.0, 0.0, 0.3])
def test_slope_is_the_derivative(gamma: float, clamp: float) -> None:
    if clamp < 0 and gamma != int(gamma):
        return  # a root of a negative number
    cosine = torch.linspace(-0.95, 1, 41, dtype=torch.float64).requires_grad_()
    base = cosine.clamp(min=clamp)
    ((base + 1e-6 if gamma < 1 else base) ** gamma).sum().backward()
    torch.testing.assert_close(similarity(cosine.detach(), gamma, clamp)[1], cosine.grad)


@pytest.mark.parametrize("pairs", [1, 2**20])
def test_gradients_by_differences(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image by image, and all images at once."""
    monkeypatch.setitem(PAIRS, "cpu", pairs)
    x = torch.randn(3, 4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(PixelPropagation(4, gamma=2.0).double(), (x,))


def test_propagation_by_hand() -> None:
    """Two orthogonal cells and one between them, g = identity: y_0 = g_0 + ½ g_2."""
    x = torch.tensor([[[[2.0, 0.0, 1.0]], [[0.0, 5.0, 1.0]]]], dtype=torch.float64)
    half = 0.5 * 0.5**0.5
    torch.testing.assert_close(
        PixelPropagation(2, layers=0)(x)[0, :, 0],
        torch.tensor([[1 + half, half, 0.5 + 2 * half], [half, 1 + half, 0.5 + 2 * half]]).double(),
    )


def test_gradient_is_finite_where_the_cosine_is_clamped() -> None:
    """At cosine 0 a root has an infinite slope; the 1e-6 keeps it finite."""
    x = torch.eye(4).reshape(1, 4, 2, 2).requires_grad_()
    PixelPropagation(4, layers=0, gamma=0.5)(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_map_need_not_be_square() -> None:
    assert PixelPropagation(8, layers=2)(torch.randn(2, 8, 3, 5)).shape == (2, 8, 3, 5)


def test_batch_norm_is_synchronised_with_the_whole_model() -> None:
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(PixelPropagation(8, layers=2))
    assert isinstance(converted.get_submodule("transform.bn1"), torch.nn.SyncBatchNorm)


def test_unknown_number_of_layers() -> None:
    with pytest.raises(UserError, match="3 layers"):
        PixelPropagation(8, layers=3)
