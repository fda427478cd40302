"""The learning curve of a run."""

from __future__ import annotations

from pathlib import Path

from pixbench.curve import cut_back, note_point, read_curve


def test_points_come_back_and_nan_is_null(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    assert read_curve(path) == []
    note_point(path, 1, {"loss": float("nan")})
    note_point(path, 2, {"loss": 0.5, "from": "x"})
    assert read_curve(path) == [{"step": 1, "loss": None}, {"step": 2, "loss": 0.5}]


def test_a_run_that_goes_on_repeats_no_step_and_drops_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    cut_back(path, 3)  # there is none
    for step in range(1, 6):
        note_point(path, step, {"loss": 1.0 / step})
    kept = path.read_text().splitlines(keepends=True)[:3]
    with path.open("a") as stream:
        stream.write('{"step": 6, "lo')
    assert [point["step"] for point in read_curve(path)] == [1, 2, 3, 4, 5]
    cut_back(path, 3)
    assert path.read_text() == "".join(kept)


def test_a_long_curve_is_thinned_but_keeps_its_end_and_what_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    for step in range(1, 1000):
        note_point(path, step, {"loss": 1.0, **({"knn": 30.0} if step == 500 else {})})
    found = [point["step"] for point in read_curve(path, most=100, always="knn")]
    assert 100 <= len(found) <= 102
    assert {1, 500, 999} <= {*found}
    assert 500 not in [point["step"] for point in read_curve(path, most=100)]
