"""The instance branch of PixPro and PixContrast, against references written out in plain formulas in float64."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import backbone, views
from torch import Tensor
from torch.nn.functional import normalize

from pixbench.errors import UserError
from pretrain.losses.instance import cosine_regression, nt_xent, nt_xent_with_keys
from pretrain.methods.base import Method
from pretrain.methods.pixcontrast import PixContrast
from pretrain.methods.pixpro import PixPro

HEADS = {"none": set(), "contrastive": {"projector_instance"}, "regression": {"projector_instance", "predictor"}}


def build(cls: type[Method], instance: str, **settings: float) -> Method:
    model = backbone()
    torch.manual_seed(1)
    return cls(model, cls.Config(instance=instance, hidden=32, dim=16, **settings), total_steps=4).double()


def head(method: Method, name: str, x: Tensor) -> Tensor:
    """1×1 convolution, BN with the batch's own statistics, ReLU, 1×1 convolution: (B, C, H, W) -> (B, C', H, W)."""
    weights = {
        n.removeprefix(f"{name}."): w for n, w in method.state_dict(keep_vars=True).items() if n.startswith(f"{name}.")
    }

    def convolve(layer: str, x: Tensor) -> Tensor:
        return torch.einsum("oc,bchw->bohw", weights[f"{layer}.weight"][:, :, 0, 0], x) + weights[f"{layer}.bias"].view(
            -1, 1, 1
        )

    x = convolve("linear1", x)
    centred = x - x.mean((0, 2, 3), keepdim=True)
    x = centred / (centred.pow(2).mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    x = x * weights["bn1.weight"].view(-1, 1, 1) + weights["bn1.bias"].view(-1, 1, 1)
    return convolve("linear2", x.clamp(min=0))


def pooled(x: Tensor) -> Tensor:
    x = x.mean((2, 3))
    return x / x.pow(2).sum(1, keepdim=True).sqrt()


def projections(method: Method) -> tuple[list[Tensor], list[Tensor]]:
    """Maps after the instance projector of both views: the student's and the target's."""
    batch = views(dtype=torch.float64)
    ours = [head(method, "projector_instance", method.backbone(x)) for x in (batch.view1, batch.view2)]
    with torch.no_grad():
        target = method.get_submodule("momentum_encoder.backbone")
        theirs = [head(method, "momentum_encoder.projector_instance", target(x)) for x in (batch.view1, batch.view2)]
    return ours, theirs


def regression(method: Method) -> Tensor:
    """The official definition: predict at each cell, then average, normalise; −2 cos, both ways, mean over images."""
    ours, theirs = projections(method)
    query1, query2 = (pooled(head(method, "predictor", x)) for x in ours)
    key1, key2 = (pooled(x) for x in theirs)
    return -2 * (query1 * key2).sum(1).mean() - 2 * (query2 * key1).sum(1).mean()


def contrastive(method: Method) -> Tensor:
    """NT-Xent term by term: anchor i of one view, positive key i of the other, all keys but the own view's."""
    ours, theirs = projections(method)
    queries, keys = [pooled(x) for x in ours], [pooled(x) for x in theirs]
    terms = []
    for view in (0, 1):
        for i, query in enumerate(queries[view]):
            e = {(v, j): ((query * keys[v][j]).sum() / 0.1).exp() for v in (0, 1) for j in range(len(keys[v]))}
            del e[view, i]
            terms.append(-(e[1 - view, i] / sum(e.values())).log())
    return sum(terms, torch.zeros(())) / len(terms)


def move_student(method: Method) -> dict[str, Tensor]:
    """Shift the student away from its target; returns what the target was."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not name.startswith("momentum_encoder."):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return {n: p.detach().clone() for n, p in method.named_parameters() if n.startswith("momentum_encoder.")}


@pytest.mark.parametrize("cls", [PixPro, PixContrast])
@pytest.mark.parametrize(("instance", "reference"), [("regression", regression), ("contrastive", contrastive)])
def test_loss_gradients_and_target_of_the_definition(cls: type[Method], instance: str, reference: object) -> None:
    """After a move of student and target: total = pixel + α · branch, and so for the gradient of every parameter."""
    method = build(cls, instance, alpha=0.7, momentum=0.9)
    before = move_student(method)
    method.update_momentum_encoder()
    for name, old in before.items():
        expected = 0.9 * old + 0.1 * method.get_parameter(name.removeprefix("momentum_encoder."))
        torch.testing.assert_close(method.get_parameter(name), expected)
    assert any(name.startswith("momentum_encoder.projector_instance.") for name in before)

    plain = build(cls, "none", momentum=0.9)
    shared = {name: value for name, value in method.state_dict().items() if name in plain.state_dict()}
    plain.load_state_dict(shared)
    pixel = plain(views(dtype=torch.float64))["loss"]
    expected = reference(method)  # type: ignore[operator]
    scalars = method(views(dtype=torch.float64))
    assert scalars["loss_pixel"].item() == pytest.approx(pixel.item(), abs=1e-12)
    assert scalars["loss_instance"].item() == pytest.approx(expected.item(), abs=1e-9)
    assert scalars["loss"].item() == pytest.approx(pixel.item() + 0.7 * expected.item(), abs=1e-9)

    students = {n: p for n, p in method.named_parameters() if p.requires_grad}
    branch = torch.autograd.grad(0.7 * expected, list(students.values()), allow_unused=True)
    pixel.backward()
    scalars["loss"].backward()
    for (name, parameter), gradient in zip(students.items(), branch, strict=True):
        total = torch.zeros_like(parameter) if gradient is None else gradient
        if name in shared and plain.get_parameter(name).grad is not None:
            total = total + plain.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, total, rtol=1e-7, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("cls", [PixPro, PixContrast])
@pytest.mark.parametrize("instance", ["none", "contrastive", "regression"])
def test_heads(cls: type[Method], instance: str) -> None:
    """Without a branch nothing is added; the target has the projector, never the predictor; all of it is trained."""
    method = build(cls, instance)
    always = {"backbone", "projector", "momentum_encoder"} | ({"propagation"} if cls is PixPro else set())
    assert {name for name, _ in method.named_children()} == always | HEADS[instance]
    copied = {name for name, _ in method.get_submodule("momentum_encoder").named_children()}
    assert copied == {"backbone", "projector"} | (HEADS[instance] - {"predictor"})
    scalars = method(views(dtype=torch.float64))
    assert ("loss_instance" in scalars) == (instance != "none")
    scalars["loss"].backward()
    assert all((p.grad is not None) == (not n.startswith("momentum_encoder.")) for n, p in method.named_parameters())


def test_names_in_the_order_of_the_plain_method() -> None:
    """The optimiser's state is by position: a run without the branch must look as it always did."""
    trained = [name.split(".")[0] for name, p in build(PixPro, "none").named_parameters() if p.requires_grad]
    assert list(dict.fromkeys(trained)) == ["backbone", "projector", "propagation"]


def test_sizes_of_the_official_heads() -> None:
    model = backbone()
    method = PixPro(model, PixPro.Config(instance="regression"), total_steps=1)
    shapes = {
        n: tuple(p.shape) for n, p in method.named_parameters() if n.startswith(("projector_instance", "predictor"))
    }
    assert shapes["projector_instance.linear1.weight"] == (4096, model.channels, 1, 1)
    assert shapes["projector_instance.linear2.weight"] == (256, 4096, 1, 1)
    assert shapes["predictor.linear1.weight"] == (4096, 256, 1, 1)
    assert shapes["predictor.linear2.weight"] == (256, 4096, 1, 1)
    assert shapes["predictor.bn1.weight"] == (4096,)


@pytest.mark.parametrize("instance", ["contrastive", "regression"])
def test_swapping_the_views_changes_nothing(instance: str) -> None:
    batch = views(dtype=torch.float64)
    swapped = batch._replace(view1=batch.view2, view2=batch.view1, box1=batch.box2, box2=batch.box1)
    one, other = build(PixPro, instance)(batch), build(PixPro, instance)(swapped)
    assert one["loss"].item() == pytest.approx(other["loss"].item(), abs=1e-12)


def test_regression_of_equal_branches_reaches_minus_four() -> None:
    method = build(PixPro, "regression")
    method.add_module("predictor", torch.nn.Identity())
    batch = views(dtype=torch.float64)
    scalars = method(batch._replace(view2=batch.view1))
    assert scalars["loss_instance"].item() == pytest.approx(-4, abs=1e-12)


def test_cosine_regression_by_hand() -> None:
    """Cosines 1, 0 and −½."""
    one = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    other = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-0.5, 0.75**0.5]])
    assert cosine_regression(one, other).item() == pytest.approx(-2 * (1 + 0 - 0.5) / 3)


def test_nt_xent_with_keys_by_hand() -> None:
    """Queries e1, e2 in both views; keys of view 2 equal them, keys of view 1 are −e1, −e2; temperature 1.

    An anchor of view 1 meets its partner at 1, the other key of view 2 at 0 and that of view 1 at 0. An anchor of view
    2 meets its partner at −1 and two others at 0.
    """
    e = torch.eye(2, dtype=torch.float64)
    (first, right), (second, wrong) = (nt_xent_with_keys(e, (-e, e), view, 1.0) for view in (0, 1))
    assert first.item() == pytest.approx(math.log(math.e + 2) - 1)
    assert second.item() == pytest.approx(math.log(1 / math.e + 2) + 1)
    assert (right.item(), wrong.item()) == (1, 0)


def test_nt_xent_with_itself_as_keys_is_nt_xent() -> None:
    one, other = normalize(torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=2)
    both = [nt_xent_with_keys(query, (one, other), view, 0.1)[0] for view, query in enumerate((one, other))]
    assert sum(both).item() / 2 == pytest.approx(nt_xent(one, other, 0.1)[0].item(), rel=1e-12)


def test_gradients_by_differences() -> None:
    torch.manual_seed(0)
    one, key1, key2 = (normalize(torch.randn(3, 4).double(), dim=1) for _ in range(3))
    one.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: nt_xent_with_keys(a, (key1, key2), 1, 0.2)[0], (one,))
    assert torch.autograd.gradcheck(lambda a: cosine_regression(a, key1), (one,))


@pytest.mark.parametrize("instance", ["contrastive", "regression"])
def test_loss_in_full_precision_under_autocast(instance: str) -> None:
    method = build(PixPro, instance).float()
    with torch.autocast("cpu", torch.bfloat16):
        scalars = method(views())
    assert {name: x.dtype for name, x in scalars.items()} == dict.fromkeys(scalars, torch.float32)
    scalars["loss"].backward()


@pytest.mark.parametrize("cls", [PixPro, PixContrast])
def test_unknown_branch(cls: type[Method]) -> None:
    with pytest.raises(UserError, match="'byol' is not known; choose none, contrastive, regression"):
        build(cls, "byol")
