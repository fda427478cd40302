"""One software writes several layouts: its methods, versions and examples differ. Each is written here and read again."""

from __future__ import annotations

import pytest
import torch
from every_format import Case
from every_variant import variants

from transfer.weights import read


@pytest.fixture(scope="module")
def files(make_backbone) -> dict[str, tuple[str, Case]]:
    return variants(make_backbone().state, make_backbone(seed=1).state)


@pytest.mark.parametrize("title", variants({}, {}))
def test_each_layout_gives_the_backbones_back(tmp_path, files, make_backbone, title):
    name, case = files[title]
    torch.save(case.content, tmp_path / "x.pth")
    for number, branch in enumerate(case.branches):
        reading = read(tmp_path / "x.pth", branch)
        wanted = make_backbone(seed=number).state
        assert (reading.format, reading.branch, reading.backbone.spec) == (name, branch, case.spec)
        assert reading.backbone.pixels == case.pixels
        assert reading.backbone.state.keys() == wanted.keys()
        assert all(torch.equal(reading.backbone.state[key], wanted[key]) for key in wanted)
        if branch == "student":
            assert reading.counts.dropped == case.dropped
