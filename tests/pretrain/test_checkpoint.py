from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FORMAT
from pretrain import checkpoint
from pretrain.config import from_dict


def content(size: int = 100, **changes: Any) -> dict[str, Any]:
    model = {"backbone.weight": torch.arange(float(size)), "momentum_encoder.step": torch.tensor(3)}
    config = {"epochs": 3, "out": "a", "data": {"root": "x", "image_size": 64}}
    return {"config": config, "model": model, "step": 7, "images": "abc", **changes}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    checkpoint.save(path, content())
    back = checkpoint.load(path)
    assert (back["format"], back["version"], back["step"]) == ("pixbench-pretrain", 2, 7)
    assert torch.equal(back["model"]["backbone.weight"], torch.arange(100.0))
    assert list(tmp_path.iterdir()) == [path]


def test_a_kept_checkpoint_outlives_the_next(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    checkpoint.save(path, content(step=1))
    checkpoint.keep(path, tmp_path / "checkpoint_ep0001.pth")
    checkpoint.save(path, content(step=2))
    assert checkpoint.load(tmp_path / "checkpoint_ep0001.pth")["step"] == 1
    assert checkpoint.load(path)["step"] == 2


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated(tmp_path: Path, share: float) -> None:
    path = tmp_path / "checkpoint.pth"
    checkpoint.save(path, content())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match="cannot be read, it may be truncated"):
        checkpoint.load(path)


def test_foreign(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    for foreign in ({"state_dict": {}}, [1, 2]):
        torch.save(foreign, path)
        with pytest.raises(UserError, match="not a pre-training checkpoint"):
            checkpoint.load(path)
    torch.save({"format": CHECKPOINT_FORMAT, "version": 99}, path)
    with pytest.raises(UserError, match="version 99"):
        checkpoint.load(path)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    checkpoint.save(path, content())
    before = path.read_bytes()
    with pytest.raises(
        UserError, match=r"backbone\.weight is not finite after step 8.*last good checkpoint is .*checkpoint\.pth"
    ):
        checkpoint.save(path, content(model={"backbone.weight": torch.tensor([1.0, float("nan")])}, step=8))
    assert path.read_bytes() == before


def test_a_failed_write_leaves_the_old_one(tmp_path: Path) -> None:
    """The system refuses to write beyond a limit, as it does when the disk is full."""
    path = tmp_path / "checkpoint.pth"
    checkpoint.save(path, content())
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(
            UserError, match=r"checkpoint\.pth cannot be written \(File too large\); the previous checkpoint is kept"
        ):
            checkpoint.save(path, content(size=1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_same_run(tmp_path: Path) -> None:
    def run(**changes: Any) -> dict[str, Any]:
        return from_dict({"method": {"name": "pixpro"}, "epochs": 3, "out": "a", **changes}).as_dict()

    saved = {**content(), "config": run(data={"root": "x", "image_size": 64})}
    elsewhere = run(out="b", data={"root": "y", "image_size": 64}, log_every=3)
    checkpoint.check_same_run(saved, elsewhere, "abc", tmp_path)
    other = run(epochs=4, data={"root": "x", "image_size": 32})
    with pytest.raises(
        UserError, match=r"data\.image_size \(checkpoint: 64, now: 32\), epochs \(checkpoint: 3, now: 4\)"
    ):
        checkpoint.check_same_run(saved, other, "abc", tmp_path)
    with pytest.raises(UserError, match="other images"):
        checkpoint.check_same_run(saved, elsewhere, "abd", tmp_path)
