"""Suites: what they plan, and what they say about a wrong file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.suite import Suite, plan, read_suite
from pretrain.errors import UserError
from transfer.protocols import CONFIGS

DEMO = CONFIGS / "suites" / "demo.yaml"


def written(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "suite.yaml"
    content = {"scale": "mini", "rows": {"random": {}}, "protocols": ["voc_c4"], **changes}
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path


@pytest.mark.parametrize("path", sorted((CONFIGS / "suites").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_suite_can_be_planned(path: Path, tmp_path: Path) -> None:
    jobs = plan(read_suite(path), tmp_path, tmp_path / "data")
    assert len({job.name for job in jobs}) == len(jobs)


def test_jobs_come_after_what_they_wait_for(tmp_path: Path) -> None:
    jobs = plan(read_suite(DEMO), tmp_path, None)
    seen: set[str] = set()
    for job in jobs:
        assert set(job.after) <= seen, job.name
        seen.add(job.name)
    assert jobs[0].name == "data"
    assert sum(name.startswith("transfer/") for name in seen) == 16
    # both C4 protocols share one converted file
    assert sum(name.startswith("convert/pixpro/") for name in seen) == 3


def test_given_data_are_used_and_nothing_is_generated(tmp_path: Path) -> None:
    jobs = plan(read_suite(DEMO), tmp_path, tmp_path / "mine")
    assert not any(job.name == "data" for job in jobs)
    assert str(tmp_path / "mine" / "imagenet") in next(job for job in jobs if job.name == "pretrain/pixpro").command


def test_gpus_start_pretraining_under_torchrun(tmp_path: Path) -> None:
    jobs = {job.name: job.command for job in plan(read_suite(DEMO), tmp_path, None, gpus=8)}
    assert "torch.distributed.run" in jobs["pretrain/pixpro"]
    assert jobs["transfer/pixpro/voc_c4/seed0"][-2:] == ("--gpus", "8")


def test_real_data_must_be_named() -> None:
    suite = Suite({}, ("voc_c4",), "paper")
    with pytest.raises(UserError, match="--data-root"):
        plan(suite, Path("out"), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "huge"}, "scale is 'huge'"),
        ({"protocols": ["voc_c5"]}, "did you mean voc_c4"),
        ({"rowz": {}}, "unknown keys \\['rowz'\\]"),
        ({"rows": None}, "missing keys \\['rows'\\]"),
        ({"rows": {"a": {"weights": "x", "pretrain": ["y"]}}}, "row a: give either"),
        ({"rows": {"a": {"wieghts": "x"}}}, "row a: unknown keys"),
    ],
)
def test_a_wrong_suite_is_one_clear_sentence(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_suite(written(tmp_path, **changes))


def test_an_unreadable_suite_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_suite(tmp_path / "absent.yaml")
