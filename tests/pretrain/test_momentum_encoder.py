"""The moving average of the student."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pretrain.models.heads import ConvHead
from pretrain.models.momentum_encoder import MomentumEncoder


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
