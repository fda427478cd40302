"""What tests of several packages share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mini_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the smallest mini world there is: 12 scenes in each split of ImageNet, VOC, COCO and Cityscapes."""
    from benchmarks.miniworld.generate import LEAST, World, generate

    root = tmp_path_factory.mktemp("mini") / "data"
    generate(root, World(seed=0, images=LEAST), workers=1)
    return root
