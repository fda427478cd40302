"""The benchmark of the batches in flight measures a real loader, and finds no more than the formula says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.speed import in_flight
from pixbench.paths import CONFIGS
from pretrain.config import parse


@pytest.mark.e2e
def test_a_real_loader_holds_no_more_than_the_formula_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "SETTLED_S", 1.0)
    config = parse(["--config", str(CONFIGS / "pretrain" / "pixpro_100ep.yaml")])
    data = replace(config.data, image_size=64, workers=1, backend="opencv")
    found = in_flight.measure(replace(config, data=data, batch_size=16))
    pages = 16 * 4096  # each tensor takes whole pages, the small ones too
    assert found["batch"] < found["shared"] <= found["shared_formula"] + found["workers"] * 16 * pages
    assert found["making"] > 0
