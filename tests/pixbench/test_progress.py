"""What a run notes of its progress for whoever watches it."""

from __future__ import annotations

from pathlib import Path

from pixbench.progress import note_progress, read_progress


def test_progress_is_kept_with_the_best_metrics(tmp_path: Path) -> None:
    assert read_progress(tmp_path) == {}
    note_progress(tmp_path, 5, 20, 2.0)
    note_progress(tmp_path, 6, 20, 2.0)  # too soon
    assert read_progress(tmp_path) == {"done": 5, "total": 20, "left_s": 30.0, "best": {}}
    note_progress(tmp_path, 10, 20, 2.0, mIoU=40.0, AP=float("nan"))
    note_progress(tmp_path, 20, 20, 2.0, mIoU=30.0)
    assert read_progress(tmp_path) == {"done": 20, "total": 20, "left_s": 0.0, "best": {"mIoU": 40.0}}
