"""The moving average of the student."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pretrain.models.heads import ConvHead
from pretrain.models.momentum_encoder import MomentumEncoder
from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_spec import NamedSpec


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.projector, self.other = nn.Conv2d(3, 4, 1), ConvHead(4, 8, 2), nn.Linear(2, 2)


def moved_student(student: Student) -> list[torch.Tensor]:
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    return [*student.backbone.parameters(), *student.projector.parameters()]


def test_starts_as_an_exact_copy_without_gradient() -> None:
    student = Student()
    target = MomentumEncoder(student, ("backbone", "projector"), 0.99, 10)
    names = {name for name, _ in student.named_parameters() if not name.startswith("other")}
    assert {name for name, _ in target.named_parameters()} == names
    for name, parameter in target.named_parameters():
        assert parameter.equal(student.get_parameter(name))
        assert parameter is not student.get_parameter(name)
        assert not parameter.requires_grad


def test_moves_by_the_schedule_and_counts() -> None:
    student = Student().double()
    target = MomentumEncoder(student, ("backbone", "projector"), 0.9, total_steps=2)
    for momentum in (0.9, 0.95, 1.0):
        before = [p.clone() for p in target.parameters()]
        theirs = moved_student(student)
        assert target.momentum() == pytest.approx(momentum)
        target.update(student)
        for old, new, student_value in zip(before, target.parameters(), theirs, strict=True):
            torch.testing.assert_close(new.detach(), momentum * old + (1 - momentum) * student_value.detach())
    assert target.step == 3


def test_constant_momentum() -> None:
    student = Student()
    target = MomentumEncoder(student, ("backbone",), 0.999)
    for _ in range(3):
        target.update(student)
    assert target.momentum() == 0.999


def test_counter_is_saved() -> None:
    student = Student()
    target, resumed = (MomentumEncoder(student, ("backbone",), 0.9, 10) for _ in range(2))
    target.update(student)
    resumed.load_state_dict(target.state_dict())
    assert resumed.momentum() == target.momentum() > 0.9


def test_batch_statistics_are_its_own() -> None:
    student = Student()
    target = MomentumEncoder(student, ("backbone", "projector"), 0.5)
    student.projector(student.backbone(torch.randn(4, 3, 2, 2)))
    target.update(student)
    bn = target.get_submodule("projector.bn1")
    assert isinstance(bn, nn.BatchNorm2d)
    assert not bn.running_mean.any()
    assert bn.num_batches_tracked == 0


SMALL = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2}
SWIN = {"img_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 4}
NOISE = {"drop_path_rate": 0.9, "proj_drop_rate": 0.5, "attn_drop_rate": 0.5}


@pytest.mark.parametrize(
    "spec",
    [
        NamedSpec("timm:vit_tiny_patch16_224", {**SMALL, **NOISE, "patch_drop_rate": 0.5, "pos_drop_rate": 0.5}),
        NamedSpec("timm:swin_tiny_patch4_window7_224", {**SWIN, **NOISE}),
    ],
    ids=["vit", "swin"],
)
def test_nothing_is_dropped_at_random(spec: NamedSpec) -> None:
    """Neither at the start nor after a change of the mode; the student still drops."""
    student = nn.ModuleDict({"backbone": NamedNetwork(spec)})
    target, x = MomentumEncoder(student, ("backbone",), 0.9), torch.randn(2, 3, 64, 64)
    for encoder in (target, target.train(), target.eval().train()):
        assert encoder.backbone(x).equal(encoder.backbone(x))
    assert not student["backbone"](x)[0].equal(student["backbone"](x)[0])


def test_tables_that_a_network_keeps_of_its_parameters_follow_them() -> None:
    """LeViT keeps its position biases when it is evaluated."""
    spec = NamedSpec("timm:levit_128s", {"embed_dim": [16, 16, 16], "depth": [1, 1, 1], "num_heads": [1, 1, 1]})
    student = nn.ModuleDict({"backbone": NamedNetwork(spec)})
    target, x = MomentumEncoder(student, ("backbone",), 0.0), torch.randn(2, 3, 224, 224)
    target.backbone(x)
    for name, parameter in student.named_parameters():
        if "attention_biases" in name:
            parameter.data.normal_(0, 3)
    target.update(student)
    torch.testing.assert_close(target.backbone(x), student["backbone"](x))
