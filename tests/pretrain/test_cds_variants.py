"""The variants of Contrastive Deep Supervision: losses by hand, and the whole method against a plain one, image by image."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import backbone, views
from torch import Tensor, nn
from torch.nn.functional import normalize

from pixbench.errors import UserError
from pretrain.data.views import Views
from pretrain.losses.distillation import distance, soft_cross_entropy
from pretrain.losses.instance import cross_entropy, labelled_cross_entropy
from pretrain.methods.cds import CDS
from pretrain.models.resnet import ResNet

F64 = torch.float64


def cds(width: float = 1 / 32, seed: int = 0, **settings: float | str | bool) -> CDS:
    torch.manual_seed(seed)
    model = ResNet((1, 1, 1, 1), width=width, zero_init_residual=False)
    return CDS(model, CDS.Config(**{"classes": 5, **settings}), total_steps=10).double()


def batch(*label: int) -> Views:
    return views(len(label), dtype=F64)._replace(label=torch.tensor(label), image_index=torch.arange(7, 7 + len(label)))


def plain_outputs(method: CDS, images: Tensor, stages: int) -> tuple[Tensor, list[Tensor]]:
    """Logits and unit embeddings, written down as in the authors' networks: all stages one after the other."""
    net = method.backbone
    x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    found = []
    for number in (1, 2, 3):
        x = getattr(net, f"layer{number}")(x)
        found.append(normalize(getattr(method, f"projector_layer{number}")(x)))
    pooled = net.layer4(x).flatten(2).mean(2)
    return method.classifier.linear(pooled), [*found, normalize(pooled)][:stages]


def plain_contrast(z: Tensor, positive: list[list[bool]], temperature: float) -> Tensor:
    """Mean over anchors of the mean over positives of −log softmax, with loops."""
    terms = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        total = sum((z[i] @ z[a] / temperature).exp() for a in others)
        logs = [((z[i] @ z[p] / temperature).exp() / total).log() for p in others if positive[i][p]]
        terms.append(-sum(logs) / len(logs))
    return sum(terms) / len(terms)


def plain_loss(method: CDS, data: Views, teacher: CDS | None = None) -> Tensor:
    config, count, labels = method.config, len(data.label), data.label.tolist()
    images, stages = torch.cat([data.view1, data.view2]), 4 if config.last_stage else 3
    logits, embeddings = plain_outputs(method, images, stages)
    known = [i for i in range(count) if labels[i] >= 0]
    loss = -sum(logits[i].softmax(0)[labels[i]].log() for i in known) / len(known)

    def positive(i: int, j: int) -> bool:
        same = config.contrast == "supcon" and labels[i % count] == labels[j % count] >= 0
        return same or i % count == j % count

    pairs = [[positive(i, j) for j in range(2 * count)] for i in range(2 * count)]
    for z in embeddings:
        loss = loss + config.weight * plain_contrast(z, pairs, config.temperature)
    if teacher is None:
        return loss
    with torch.no_grad():
        classes, wanted = plain_outputs(teacher, images, stages)
    t = config.distill_temperature
    for i in range(count):
        loss = (
            loss
            - sum(p * q.log() for p, q in zip((classes[i] / t).softmax(0), (logits[i] / t).softmax(0), strict=True))
            / count
        )
    for number, (z, target) in enumerate(zip(embeddings, wanted, strict=True), 1):
        if method.adaptation:
            layer = method.adaptation[f"layer{number}"]
            z = z @ layer.weight.T + layer.bias
        loss = (
            loss
            + config.distill_weight
            * sum((a - b) ** 2 for a, b in zip(z.flatten(), target.flatten(), strict=True)).sqrt()
        )
    return loss


def assert_same_loss_and_gradient(method: CDS, data: Views, teacher: CDS | None = None) -> None:
    found = {}
    for name, loss in (("ours", method(data)["loss"]), ("plain", plain_loss(method, data, teacher))):
        method.zero_grad()
        loss.backward()
        found[name] = loss.detach(), {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
    torch.testing.assert_close(found["ours"], found["plain"], rtol=1e-9, atol=1e-12)
    assert found["ours"][1].keys() == {n for n, p in method.named_parameters() if p.requires_grad}


def test_soft_cross_entropy_by_hand() -> None:
    """Temperature 2 makes of (2 ln 3, 0) the shares 3/4 and 1/4, and of (0, 0) halves."""
    logits = torch.tensor([[0.0, 0.0], [2 * math.log(3), 0.0]], dtype=F64)
    teacher = torch.tensor([[2 * math.log(3), 0.0], [2 * math.log(3), 0.0]], dtype=F64)
    own = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert soft_cross_entropy(logits, teacher, 2.0).item() == pytest.approx((math.log(2) + own) / 2)


def test_distance_by_hand() -> None:
    """The root of 3² + 4² over the whole matrix; at 0 the gradient is 0, not NaN."""
    x = torch.tensor([[3.0, 1.0], [0.0, 5.0]], dtype=F64, requires_grad=True)
    loss = distance(x, torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=F64))
    assert loss.item() == pytest.approx(5)
    loss.backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.6, 0.0], [0.0, 0.8]], dtype=F64))
    x.grad = None
    distance(x, x.detach()).backward()
    assert x.grad.eq(0).all()


def test_labelled_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [9.0, 0.0, 0.0], [2.0, 0.0, 0.0]], dtype=F64)
    loss, accuracy = labelled_cross_entropy(logits, torch.tensor([0, -1, 1]))
    total = math.exp(2) + 2
    assert loss.item() == pytest.approx((-math.log(math.exp(2) / total) - math.log(1 / total)) / 2)
    assert accuracy.item() == 0.5


def test_labelled_cross_entropy_of_labels_alone_and_of_none() -> None:
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    label = torch.tensor([0, 4, 2, 2, 1, 3, 0])
    for one, other in zip(labelled_cross_entropy(logits, label), cross_entropy(logits, label), strict=True):
        torch.testing.assert_close(one, other)
    loss, accuracy = labelled_cross_entropy(logits, torch.full((7,), -1))
    loss.backward()
    assert (loss.item(), accuracy.item()) == (0, 0)
    assert logits.grad.eq(0).all()


@pytest.mark.parametrize("contrast", ["supcon", "simclr"])
@pytest.mark.parametrize("last_stage", [False, True])
def test_it_is_the_plain_method(contrast: str, last_stage: bool) -> None:
    method = cds(contrast=contrast, last_stage=last_stage, weight=0.3, temperature=0.2)
    assert_same_loss_and_gradient(method, batch(4, 0, 4, 1))


@pytest.mark.parametrize("contrast", ["supcon", "simclr"])
def test_semi_supervised_is_the_plain_method(contrast: str) -> None:
    """Images without a label are in no class: with one another they are no positives."""
    method = cds(contrast=contrast, semi_supervised=True, last_stage=True, temperature=0.5)
    assert_same_loss_and_gradient(method, batch(2, -1, 2, -1))


@pytest.mark.parametrize("width", [1 / 32, 1 / 16], ids=["same channels", "adapted"])
def test_distillation_is_the_plain_method(width: float) -> None:
    method, teacher = cds(last_stage=True, weight=0.5, distill_weight=0.2, distill_temperature=3.0), cds(width, seed=1)
    assert not method.adaptation
    method.take_teacher(teacher)
    method.double()
    assert len(method.adaptation) == (0 if width == 1 / 32 else 4)
    assert_same_loss_and_gradient(method, batch(3, 0, 1, 3), teacher)
    scalars = method(batch(3, 0, 1, 3))
    parts = scalars["loss_class"] + 0.5 * scalars["loss_contrast"] + scalars["loss_distill"]
    assert scalars["loss"].item() == pytest.approx(parts.item())


def test_the_teacher_stays_as_it_is() -> None:
    """It is not trained, and its running statistics neither move nor count, though it is in train mode."""
    method, teacher = cds(distill_weight=1.0), cds(seed=1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    method.take_teacher(teacher)
    method.train()
    loss = method(batch(0, 1, 2))["loss"]
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(value.equal(before[name]) for name, value in teacher.state_dict().items())
    for norm in teacher.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.add_(1)
    assert method(batch(0, 1, 2))["loss"].equal(loss)


def test_the_teacher_drops_nothing() -> None:
    """And its batch norms still use the statistics of the batch."""
    student, other = cds(), cds()
    other.backbone.layer4.add_module("dropout", nn.Dropout(0.5))
    student.take_teacher(other)
    x = torch.randn(4, 3, 32, 32, dtype=F64)
    for method in (student, student.eval().train()):
        assert method.teacher.backbone(x).equal(method.teacher.backbone(x))
        assert method.teacher.backbone.bn1.training


def test_some_labels_may_be_missing_but_not_all() -> None:
    method = cds(semi_supervised=True)
    method.check_labels(-1, 4)
    with pytest.raises(UserError, match="the images have none"):
        method.check_labels(-1, -1)
    with pytest.raises(UserError, match=r"label 5, but method\.classes is 5"):
        method.check_labels(-1, 5)


@pytest.mark.parametrize("spec", [{"stem": "3x3", "output_stride": 8, "basic": True}, {"basic": True}])
def test_basic_blocks_and_the_cifar_stem(spec: dict[str, object]) -> None:
    """At 32 pixels the CIFAR network ends with 4 × 4 cells, and the heads' maps with as many."""
    torch.manual_seed(0)
    network = ResNet((2, 2, 2, 2), width=1 / 16, zero_init_residual=False, **spec)
    method = CDS(network, CDS.Config(classes=3, last_stage=True), total_steps=10)
    images = torch.randn(2, 3, 32, 32)
    maps = network.forward_stages(images)
    for stage in ("layer1", "layer2", "layer3"):
        head = method.get_submodule(f"projector_{stage}")
        assert nn.Sequential(*list(head)[:-2])(maps[stage]).shape == maps["layer4"].shape
    assert maps["layer4"].shape[-1] == (4 if "stem" in spec else 1)
    method(views(3, 32)._replace(label=torch.tensor([0, 1, 2])))["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


def test_losses_in_full_precision_under_autocast() -> None:
    torch.manual_seed(1)
    method, teacher = (CDS(backbone(seed), CDS.Config(classes=5, semi_supervised=True), 10) for seed in (0, 1))
    method.take_teacher(teacher)
    data = views(3, size=32)._replace(label=torch.tensor([1, -1, 2]))
    with torch.autocast("cpu", torch.bfloat16):
        scalars = method(data)
    assert {name: x.dtype for name, x in scalars.items()} == dict.fromkeys(scalars, torch.float32)
    scalars["loss"].backward()
