"""Suites: what they plan, and what they say about a wrong file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.cli import main
from benchmarks.suite import Suite, plan, read_suite
from pretrain.errors import UserError
from pretrain.lock import owned
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


def test_rows_may_start_supervised_and_freeze_the_trunk(tmp_path: Path) -> None:
    rows = {"a": {"init": "supervised", "freeze": "trunk"}, "b": {"weights": "b.pth"}, "c": None}
    jobs = plan(read_suite(written(tmp_path, rows=rows)), tmp_path, tmp_path / "data")
    assert [job.command[5:7] for job in jobs] == [
        ("--init", "supervised"),
        ("--weights", "b.pth"),
        ("--init", "random"),
    ]
    assert [" ".join(job.command).count("--freeze trunk") for job in jobs] == [1, 0, 0]


@pytest.mark.parametrize(
    ("words", "each"),
    [((), 0), (("--gpus", "4", "--gpus-per-run", "2"), 2), (("--gpus", "5,3"), 2), (("--gpus", "1"), 0)],
)
def test_training_runs_get_their_gpus(
    words: tuple[str, ...], each: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7")
    assert main(["suite", str(DEMO), "--dry-run", *words]) == 0
    for line in capsys.readouterr().out.splitlines():
        started = f"torch.distributed.run --standalone --nproc_per_node={each} " in line
        assert started == (each > 0 and (" pretrain --config " in line or " transfer " in line)), line


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--gpus", "5"), "this machine shows 2 CUDA devices (2, 3)"),
        (("--gpus", "0,1"), "this machine shows 2 CUDA devices (2, 3)"),
        (("--gpus-per-run", "2"), "needs as many GPUs"),
    ],
)
def test_gpus_that_are_not_there(
    words: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert main(["suite", str(DEMO), "--dry-run", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_has_one_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with owned(tmp_path):
        assert main(["suite", str(DEMO), "--out", str(tmp_path)]) == 2
    assert f"{tmp_path} is in use by process" in capsys.readouterr().err


def test_slurm_must_be_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["suite", str(DEMO.with_name("slurm.yaml")), "--data-root", "x", "--launcher", "slurm"]) == 2
    assert "no squeue" in capsys.readouterr().err


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
        ({"rows": {"a": {"weights": "x", "pretrain": ["y"]}}}, "row a: give one of"),
        ({"rows": {"a": {"init": "zero"}}}, "row a: init is 'zero'; it must be one of random, supervised"),
        ({"rows": {"a": {"freeze": "head"}}}, "row a: freeze is 'head'"),
        ({"rows": {"a": {"wieghts": "x"}}}, "row a: unknown keys"),
    ],
)
def test_a_wrong_suite_is_one_clear_sentence(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_suite(written(tmp_path, **changes))


def test_an_unreadable_suite_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_suite(tmp_path / "absent.yaml")
