"""The study in pieces: what is finished is kept without this machine's folders, and not computed again."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import made_results
import pytest
import yaml

from benchmarks.results.reading import read_all
from benchmarks.suite import read_suite
from pixbench.errors import UserError
from pixbench.file_versions import RESULT_FILE, ZOO_FILE
from pixbench.paths import CONFIGS
from pixbench.results import read_result

SUITE: dict[str, Any] = {
    "rows": {"a": {"weights": "zoo:a"}},
    "protocols": ["voc_c4"],
    "seeds": [0, 1],
    "mini": {"seed": 0},
    "overrides": {"voc_c4": {"SOLVER.MAX_ITER": 300}},
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the script, with folders of this test."""
    names = runpy.run_path(str(CONFIGS.parent / "scripts/study.py"))
    for folder in ("STUDY", "ZOO"):
        monkeypatch.setitem(names["keep"].__globals__, folder, tmp_path / folder.lower())
    parts = {part: names["content"](part) for part in names["PARTS"]} | {"finetuned": SUITE}
    monkeypatch.setitem(names["keep"].__globals__, "content", parts.__getitem__)
    return names


def finished(out: Path, part: str, seed: int, **changes: Any) -> Path:
    """Write a result as a transfer of ``part`` writes it."""
    own = {
        "seed": seed,
        "data": {"root": str(out / "world0")},
        "weights": {"path": str(out / part / "pretrain/a/checkpoint.pth"), "sha256": "0" * 64, "source": "x"},
        "command": [
            "/bin/pixbench",
            "transfer",
            "voc_c4",
            "--set",
            "SOLVER.MAX_ITER=300",
            "--out",
            str(out / part / "runs/a"),
        ],
        "stored": {"areas.npz": {"sha256": "0" * 64, "bytes": 1}},
    }
    return made_results.write(out / part / f"runs/a/voc_c4/seed{seed}", **own | changes)


def test_finished_results_are_kept_without_folders_of_this_machine(study: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished(out, "finetuned", 0)
    finished(out, "finetuned", 1, status="failed", reason="x")
    study["keep"]("finetuned", out)
    kept = tmp_path / "study/finetuned/runs/a/voc_c4/seed0" / RESULT_FILE
    assert [*(tmp_path / "study").rglob(RESULT_FILE)] == [kept]
    assert str(tmp_path) not in kept.read_text(encoding="utf-8")
    result = read_result(kept)
    assert result["weights"]["path"] == "study/finetuned/pretrain/a/checkpoint.pth"
    assert result["data"]["root"] == "DATA"
    assert result["command"] == [
        *("pixbench", "transfer", "voc_c4", "--set", "SOLVER.MAX_ITER=300", "--out", "study/finetuned/runs/a"),
    ]
    assert "stored" not in result
    assert not study["is_kept"]("finetuned", "a", SUITE)
    finished(out, "finetuned", 1)
    study["keep"]("finetuned", out)
    assert study["is_kept"]("finetuned", "a", SUITE)
    before = kept.stat().st_mtime_ns
    study["keep"]("finetuned", out)
    assert kept.stat().st_mtime_ns == before
    assert len(read_all(tmp_path / "study").found) == 2


def test_what_the_suite_does_not_ask_for_is_not_kept(
    study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    finished(out, "finetuned", 0, command=["pixbench", "transfer", "voc_c4", "--set", "SOLVER.MAX_ITER=500"])
    finished(out, "finetuned", 1, data={"root": str(out / "another")})
    study["keep"]("finetuned", out)
    assert not (tmp_path / "study").exists()
    said = capsys.readouterr().out
    assert "other settings than the suite has now (SOLVER.MAX_ITER=300, SOLVER.MAX_ITER=500)" in said
    assert f"from {out / 'another'} instead of {out / 'world0'}" in said


def test_what_is_kept_must_be_sound_and_fit_the_suite(study: dict[str, Any], tmp_path: Path) -> None:
    for seed in (0, 1):
        finished(tmp_path / "out", "finetuned", seed)
    study["keep"]("finetuned", tmp_path / "out")
    with pytest.raises(UserError, match="other settings than the suite has now"):
        study["is_kept"]("finetuned", "a", {**SUITE, "overrides": {}})
    kept = tmp_path / "study/finetuned/runs/a/voc_c4/seed0" / RESULT_FILE
    kept.write_text("")
    with pytest.raises(UserError, match="cannot be read as a result"):
        study["is_kept"]("finetuned", "a", SUITE)


def test_another_world_in_its_place_ends_the_run(study: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out/world0").mkdir(parents=True)
    (tmp_path / "out/world0/mine.txt").write_text("mine")
    (tmp_path / "zoo/a").mkdir(parents=True)
    (tmp_path / "zoo/a" / ZOO_FILE).touch()
    assert study["run"]("finetuned", tmp_path / "out", 1) == 2
    assert not (tmp_path / "out/finetuned").exists()


def test_rows_of_backbones_that_the_zoo_does_not_have_wait(study: dict[str, Any], tmp_path: Path) -> None:
    assert study["can_start"]({"pretrain": ["x"]})
    (tmp_path / "zoo/a").mkdir(parents=True)
    assert not study["can_start"]({"weights": "zoo:a"}), "an empty folder is no backbone"
    (tmp_path / "zoo/a" / ZOO_FILE).touch()
    assert study["can_start"]({"weights": "zoo:a"})
    assert not study["is_kept"]("backbones", "b", SUITE)
    with pytest.raises(UserError, match=RESULT_FILE):
        study["is_kept"]("backbones", "a", SUITE)


def test_backbones_wait_for_the_search(study: dict[str, Any], tmp_path: Path) -> None:
    for part in ("backbones", "ablations"):
        with pytest.raises(UserError, match="waits for the search"):
            study["run"](part, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


def test_every_part_is_a_suite_and_every_backbone_of_the_zoo_is_made(study: dict[str, Any]) -> None:
    suites = {part: read_suite(CONFIGS / "suites" / file) for part, file in study["PARTS"].items()}
    made = {f"zoo:{label}" for label in suites["backbones"].rows}
    for part in ("finetuned", "frozen"):
        assert {row.weights for row in suites[part].rows.values()} - {""} == made
    raw = [yaml.safe_load((CONFIGS / "suites" / file).read_text(encoding="utf-8")) for file in study["PARTS"].values()]
    assert {suite["mini"]["seed"] for suite in raw} == {0, 1}, "the search has a world of its own"
