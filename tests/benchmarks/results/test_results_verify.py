"""`pixbench results verify` computes metrics again from what is stored, and fails on any difference."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import made

from benchmarks.commands.main import main
from benchmarks.results.verify import Check, verify
from pixbench.results import read_result, stored_file, write_result
from transfer.detection.matches import averages
from transfer.kept import Kept, scores

COUNTS = np.array([[[6, 2, 0], [1, 5, 0], [0, 0, 0]], [[3, 1, 0], [0, 4, 0], [0, 0, 0]]])
"""Two images of three classes; the last one is neither labelled nor predicted."""


def segmented(absent_counts: bool = False) -> tuple[dict[str, float], Kept]:
    kept, names = Kept(), ("a", "b", "c")
    right = np.diagonal(COUNTS, axis1=1, axis2=2)
    label, guess = COUNTS.sum(2), COUNTS.sum(1)
    areas = (right, label + guess - right, label)
    kept.add_areas(("mIoU", "aAcc", "mAcc"), ["x", "y"], names, areas, absent_counts)
    kept.add_confusion(COUNTS.sum(0), names, absent_counts)
    return scores(COUNTS.sum(0), absent_counts), kept


def detected() -> tuple[dict[str, float], Kept]:
    draw, kept = np.random.default_rng(0), Kept()
    right = draw.random((40, 10)) < np.linspace(0.9, 0.1, 10)
    matches = {
        **{"images": np.array(["x", "y"]), "classes": np.array(["a", "b"]), "rule": np.array("coco")},
        **{"thresholds": np.arange(50, 100, 5) / 100, "truths": np.array([[12, 11], [14, 13]])},
        **{"image": np.repeat([0, 1, 0, 1], 10), "class": np.repeat([0, 1], 20), "score": draw.random(40)},
        **{"right": right, "ignored": ~right & (draw.random((40, 1)) < 0.1)},
    }
    kept.add("detections_bbox", ("AP", "AP50", "AP75"), matches)
    return averages(matches), kept


def valued() -> tuple[dict[str, float], Kept]:
    kept = Kept()
    kept.add_values(["x", "y", "z"], {"Jaccard": np.array([50.0, np.nan, 70.0])})
    return {"Jaccard": 60.0}, kept


CASES: dict[str, tuple[str, Any]] = {
    "areas": ("cityscapes_fcn16s", segmented()),
    "absent": ("voc12aug_incontext_public", segmented(absent_counts=True)),
    "detections": ("voc_c4", detected()),
    "values": ("voc12aug_foreground", valued()),
}


def stored(case: str, folder: Path, off: float = 0.0) -> Path:
    protocol, (metrics, kept) = CASES[case]
    written = {name: value + off for name, value in metrics.items()}
    content = made(protocol, written, per_image=kept.per_image, per_class=kept.per_class)
    return write_result(folder, content, kept.arrays)


def checks(path: Path) -> list[Check]:
    return [*verify(path, read_result(path))]


@pytest.mark.parametrize("case", CASES)
def test_what_was_measured_is_found_again(case: str, tmp_path: Path) -> None:
    path = stored(case, tmp_path)
    found = checks(path)
    assert all(check.fits for check in found)
    assert {check.what for check in found} >= set(CASES[case][1][0])
    assert main(["results", "verify", str(tmp_path)]) == 0


@pytest.mark.parametrize("case", CASES)
def test_another_number_is_a_difference(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The digest fits: a program wrote it so, for example one with a defect."""
    path = stored(case, tmp_path, off=0.01)
    metrics = set(CASES[case][1][0])
    assert {check.what for check in checks(path) if not check.fits} == metrics
    assert main(["results", "verify", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert f"{path}: DIFFERS" in said
    assert "1 results: 1 differ" in said


def test_absent_classes_count_where_the_protocol_says_so() -> None:
    whole, _ = segmented()
    absent, _ = segmented(absent_counts=True)
    assert absent["mIoU"] == pytest.approx(2 / 3 * whole["mIoU"])
    assert whole["mAcc"] == absent["mAcc"]


def test_stored_files_that_changed_or_are_gone_are_differences(tmp_path: Path) -> None:
    path = stored("areas", tmp_path)
    np.savez(tmp_path / "areas.npz", intersection=np.ones(1))
    assert [check.what for check in checks(path) if not check.fits] == ["areas.npz"]
    (tmp_path / "confusion.npz").unlink()
    assert [check.what for check in checks(path) if not check.fits] == ["areas.npz", "confusion.npz"]
    assert main(["results", "verify", str(tmp_path)]) == 1


def test_an_edited_result_fails_and_one_without_files_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_result(tmp_path / "a", made())
    assert main(["results", "verify", str(tmp_path)]) == 0
    assert "nothing to compute again" in capsys.readouterr().out
    path.write_text(path.read_text().replace('"AP": 10.0', '"AP": 60.0'))
    assert main(["results", "verify", str(tmp_path)]) == 1
    assert "1 of 1 results left out: 1 changed by hand" in capsys.readouterr().out


def test_a_config_that_does_not_fit_its_digest_is_a_difference(tmp_path: Path) -> None:
    path = write_result(tmp_path, made(config={"A": 2}, config_sha256="0" * 64))
    assert [(check.what, check.fits) for check in checks(path)] == [("config", False)]


def test_an_undefined_metric_is_undefined_again(tmp_path: Path) -> None:
    kept = Kept()
    kept.add_values(["x"], {"Jaccard": np.array([np.nan])})
    content = made("voc12aug_foreground", {"Jaccard": None}, per_image=kept.per_image)
    assert all(check.fits for check in checks(write_result(tmp_path, content, kept.arrays)))


def test_it_says_that_matches_are_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored("detections", tmp_path / "a")
    assert main(["results", "verify", str(tmp_path)]) == 0
    assert "AP: from which detections the run found right" in capsys.readouterr().out
    assert main(["results", "verify", str(stored("values", tmp_path / "b").parent)]) == 0
    assert "AP:" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04K\x01.", "npy", "deflate", "huge", "password"])
def test_an_npz_that_somebody_made_up_is_a_difference(content: bytes | str, tmp_path: Path) -> None:
    """Its digest fits: nothing but reading it tells."""
    file = tmp_path / "x.npz"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content == "npy":
        with file.open("wb") as stream:
            np.save(stream, np.ones(3))
    else:
        np.savez_compressed(file, value=np.arange(1000.0))
        found = bytearray(file.read_bytes())
        if content == "deflate":
            found[200:300] = bytes(100)
        elif content == "password":
            central = found.index(b"PK\x01\x02")
            found[6] |= 1
            found[central + 8] |= 1
        file.write_bytes(found)
        if content == "huge":
            with zipfile.ZipFile(file, "w") as archive:
                head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,)}"
                archive.writestr("value.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    path = write_result(tmp_path, made(stored={"x.npz": stored_file(file)}))
    assert [(check.what, check.fits) for check in checks(path)][1:] == [("x.npz", False)]
