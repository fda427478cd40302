"""The result of a pre-training run, and how weights say which run they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pixbench.file_versions import CHECKPOINT_FILE
from pixbench.results import config_hash, read_arrays, read_result
from pretrain import engine
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.settings import RunConfig
from transfer import weights


def test_a_result_and_the_weights_name_the_same_run(tiny: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = tiny("run", epochs=1, backbone=BackboneSpec(50, 0.0625))  # every framework has it
    engine.train(config)
    out = Path(config.out)
    result = read_result(out / "result.json")  # which checks its fields
    assert (result["kind"], result["status"], result["method"]) == ("pretrain", "ok", config.method.name)
    assert result["step"] == result["steps"] == result["curve"][-1]["step"]
    assert result["metrics"]["loss"] == result["curve"][-1]["loss"]
    assert result["config_sha256"] == config_hash(result["config"])
    assert result["usage"]["peak_memory_gb"] > 0
    views = read_arrays(out / "result.json", result, "views.npz")
    assert len(views["images"]) == 4
    assert {*views["images"].tolist()} < {line.split("\t")[0] for line in (out / "images.txt").read_text().splitlines()}
    backbone = weights.load(out / CHECKPOINT_FILE)
    assert backbone.pretraining == {
        **{name: result[name] for name in ("method", "seed", "images", "config_sha256", "step")},
        **{"epochs": 1, "finished": True, "out": config.out},
    }
    for name, framework in {"a.safetensors": "huggingface", "b.pth": "mmseg", "c.pkl": "detectron2_c4"}.items():
        weights.save(backbone, tmp_path / name, framework)
        assert weights.load(tmp_path / name).pretraining == backbone.pretraining


@pytest.mark.parametrize("pretraining", [None, 5, {}, {"method": "pixpro"}, {"method": ["x"] * 1000}])
def test_a_file_that_names_its_run_wrongly_is_read_without_it(pretraining: object, tmp_path: Path) -> None:
    from transfer.weights.contents import Contents
    from transfer.weights.declarations import pretraining_in

    assert pretraining_in(Contents({"pixbench": {"pretraining": pretraining}})) is None
    assert pretraining_in(Contents({"format": "pixbench-pretrain", "config": pretraining})) is None
