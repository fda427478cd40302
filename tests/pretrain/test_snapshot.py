from __future__ import annotations

import pytest
import torch

from pretrain.optim import LARS
from pretrain.snapshot import Snapshot


def test_a_copy_does_not_follow_and_keeps_everything() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    optimizer = LARS(model.parameters(), 0.1, 0.9)
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "steps": [1, (2, "x")], "none": None}
    snapshot = Snapshot()
    copy = snapshot.take(content)
    snapshot.wait()
    assert type(copy["model"]) is type(content["model"])
    assert copy["model"]._metadata == content["model"]._metadata  # type: ignore[attr-defined]
    assert copy["steps"] == [1, (2, "x")]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    for name, value in copy["model"].items():
        assert torch.equal(value, before[name])
        assert value.stride() == before[name].stride()


def test_memory_is_used_again_unless_the_tensor_is_another() -> None:
    snapshot = Snapshot()
    first = snapshot.take({"a": torch.zeros(3), "b": torch.zeros(3)})
    again = snapshot.take({"a": torch.ones(3), "b": torch.zeros(4), "c": torch.zeros(1)})
    assert again["a"].data_ptr() == first["a"].data_ptr()
    assert again["a"].tolist() == [1, 1, 1]
    assert again["b"].shape == (4,)


@pytest.mark.gpu
def test_the_copy_from_a_gpu_waits_for_nothing() -> None:
    state = {"w": torch.zeros(1 << 20, device="cuda")}
    snapshot = Snapshot()
    snapshot.take(state)  # allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        copy = snapshot.take(state)
        state["w"].fill_(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    snapshot.wait()
    assert copy["w"].is_pinned()
    assert not copy["w"].any()
