"""The search takes the best setting, and the suites use what it has taken."""

from __future__ import annotations

from pathlib import Path

import made_study
import pytest
import yaml

from benchmarks.study import outcome
from pixbench.file_versions import RESULT_FILE
from pixbench.paths import CONFIGS
from pixbench.results import read_result, rewrite_result

FROM = {"pixpro_instance": "pixpro", "pixpro_fpn_head": "pixpro"}
"""Method of a backbone -> the method whose search it takes."""


@pytest.mark.parametrize(
    ("sums", "taken"),
    [
        ({"published": 50.0, "sqrt": 60.0, "adamw": 55.0}, "sqrt"),
        ({"published": 59.6, "sqrt": 60.0, "adamw": 55.0}, "published"),
        ({"published": 50.0, "sqrt": 59.6, "adamw": 60.0}, "sqrt"),
        ({"published": 59.5, "sqrt": 50.0, "adamw": 60.0}, "adamw"),
    ],
)
def test_the_largest_sum_is_taken_and_of_equal_ones_the_first(
    sums: dict[str, float], taken: str, tmp_path: Path
) -> None:
    made_study.write_search(tmp_path, "byol", sums)
    assert outcome.chosen(tmp_path) == {"byol": taken}
    (line,) = [line for line in outcome.table(tmp_path).splitlines() if "taken" in line and "byol" in line]
    assert f" {taken} " in line


def test_nothing_is_taken_before_the_search_is_complete(tmp_path: Path) -> None:
    made_study.write_search(tmp_path, "byol", {"published": 50.0, "sqrt": 60.0})
    assert outcome.chosen(tmp_path) == {}


@pytest.mark.parametrize("change", [{"metrics": {"linear_top1": None}}, {"status": "failed", "reason": "x"}])
def test_what_failed_or_is_undefined_is_not_measured(change: dict[str, object], tmp_path: Path) -> None:
    made_study.write_search(tmp_path, "byol", {"published": 50.0, "sqrt": 60.0, "adamw": 70.0})
    path = tmp_path / "search/runs/byol_adamw/imagenet_probe/seed0" / RESULT_FILE
    rewrite_result(path, {**read_result(path), **change})
    assert outcome.chosen(tmp_path) == {}
    assert "adamw" not in outcome.table(tmp_path)


def test_backbones_and_ablations_have_the_optimisers_that_were_taken() -> None:
    taken = outcome.chosen()
    for name in ("study_backbones", "study_ablations"):
        rows = yaml.safe_load((CONFIGS / "suites" / f"{name}.yaml").read_text(encoding="utf-8"))["rows"]
        for label, row in rows.items():
            method = label.rpartition("_s")[0] if name == "study_backbones" else "pixpro"
            method = FROM.get(method, method)
            wanted = outcome.optimiser(method, taken[method]) if method in taken else {}
            found = {
                key: value
                for key, value in row["set"].items()
                if key.startswith("optimizer.") or key == "method.momentum"
            }
            assert found == wanted, label
