"""Result files: their fields, their digest, the arrays beside them, and files that cannot be used."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import jsonschema
import made_results
import numpy as np
import pytest
from made_results import made

from pixbench.errors import UserError
from pixbench.files import sha256
from pixbench.paths import RESULT_JSON_SCHEMA
from pixbench.results import UnusableResult, per_image, read_arrays, read_result, rewrite_result, write_result

SCHEMA = jsonschema.Draft202012Validator(json.loads(RESULT_JSON_SCHEMA.read_text(encoding="utf-8")))
AREAS = {"images": np.array(["a", "b"]), "intersection": np.array([[1, 2], [3, 4]])}
WHERE = {"mIoU": {"file": "areas.npz", "arrays": {"images": "images", "intersection": "intersection"}}}


def failed() -> dict[str, Any]:
    return made(status="failed", reason="diverged", metrics=..., curve=..., config=..., config_sha256=...)


@pytest.mark.parametrize(
    "content",
    [
        made(),
        made("voc12aug_knn", {"mIoU": None}),
        failed(),
        {**made_results.ABOUT, "kind": "pretrain", "metrics": {}, "units": {}, "config": {}, "config_sha256": "0" * 64},
        made(
            imported={"tool": "mmseg", "file": "x.log", "sha256": "0" * 64}, code=..., usage=..., curve=..., config=...
        ),
    ],
    ids=["transfer", "frozen", "failed", "pretrain", "imported"],
)
def test_the_schema_and_the_reader_accept_what_is_written(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    rewrite_result(path, content)
    SCHEMA.validate(json.loads(path.read_text()))
    assert {**read_result(path), "schema": 2} == {**json.loads(path.read_text())}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "zero"},
        {"kind": "probe"},
        {"status": "perhaps"},
        {"metrics": {"AP": "high"}},
        {"weights": {"path": "x"}},
        {"deviations": ...},
        {"usage": ...},
        {"curve": ...},
        {"wall_time_s": -1.0},
        {"config_sha256": "none"},
        {"imported": {"tool": "mmseg", "file": "x", "sha256": "0" * 64}, "metrics": ...},
    ],
    ids=str,
)
def test_the_schema_and_the_reader_refuse_the_same(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    rewrite_result(path, {key: value for key, value in {**made(), **change}.items() if value is not ...})
    assert not SCHEMA.is_valid(json.loads(path.read_text()))
    with pytest.raises(UnusableResult, match="is not a valid result") as caught:
        read_result(path)
    assert caught.value.problem == "damaged"


def test_the_order_of_keys_and_spaces_are_no_change_but_a_number_is_one(tmp_path: Path) -> None:
    path = made_results.write(tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items()))))
    assert read_result(path) == content
    for change in ({"seed": 1}, {"metrics": {**content["metrics"], "AP": 10.5}}, {"digest": None}, {"more": 1}):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(UnusableResult, match="was changed after it was written") as caught:
            read_result(path)
        assert caught.value.problem == "edited"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "damaged"),
        (b'{"schema": 2', "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[" * 100000, "damaged"),
        (b'{"schema": 2, "status": "ok", "metrics": {"AP": 1e999}}', "damaged"),
        (b"[]", "foreign"),
        (b'{"schema": true, "status": "ok"}', "foreign"),
        (b'{"schema": "2", "status": "ok"}', "foreign"),
        (b'{"accuracy": 1}', "foreign"),
        (b'{"schema": 1, "status": "ok"}', "older"),
        (b'{"schema": 99, "status": "ok"}', "newer"),
        (b'{"schema": 2, "status": "ok"}', "edited"),
        (pickle.dumps({"schema": 2}), "damaged"),
    ],
)
def test_a_file_that_is_no_result_is_named_with_its_problem(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(UnusableResult, match=r"result\.json") as caught:
        read_result(path)
    assert caught.value.problem == problem


def test_a_missing_file_and_a_folder_are_damaged(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("none", "folder"):
        with pytest.raises(UnusableResult, match="cannot be read") as caught:
            read_result(tmp_path / name)
        assert caught.value.problem == "damaged"


def test_nan_becomes_null_and_half_a_character_is_escaped(tmp_path: Path) -> None:
    path = made_results.write(tmp_path, metrics={"AP": float("nan"), "AP50": float("inf")}, label="\udcff")
    result = read_result(path)
    assert (result["metrics"], result["label"]) == ({"AP": None, "AP50": None}, "\\udcff")


def test_where_a_result_came_from_is_added(tmp_path: Path) -> None:
    without = {key: value for key, value in made().items() if key not in ("code", "versions", "host", "command")}
    result = read_result(write_result(tmp_path, without))
    assert set(result["code"]) == {"commit", "dirty", "why"}
    assert (result["code"]["commit"] is None) == bool(result["code"]["why"])
    assert result["versions"]["python"]
    assert result["host"]["cpus"] > 0
    assert result["command"]


def test_the_values_of_images_are_those_that_were_written(tmp_path: Path) -> None:
    path = write_result(tmp_path, made("voc12aug_knn", per_image=WHERE), {"areas": AREAS})
    found = per_image(path, "mIoU")
    assert found is not None
    assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in AREAS.items()}
    assert per_image(path, "aAcc") is None


def test_arrays_that_are_not_the_written_ones_are_refused(tmp_path: Path) -> None:
    path = write_result(tmp_path, made("voc12aug_knn", per_image=WHERE), {"areas": AREAS})
    np.savez(tmp_path / "areas.npz", **AREAS)
    with pytest.raises(UserError, match=r"areas\.npz is not the file that was written"):
        per_image(path, "mIoU")
    (tmp_path / "areas.npz").unlink()
    with pytest.raises(UserError, match=r"areas\.npz is missing"):
        per_image(path, "mIoU")


def test_a_stored_file_is_beside_its_result_and_never_unpickled(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="objects"):
        write_result(tmp_path, made(), {"bad": {"x": np.array([{}], dtype=object)}})
    path = made_results.write(tmp_path / "run", stored={"../x.npz": {"sha256": "0" * 64, "bytes": 1}})
    with pytest.raises(UserError, match="names no stored file"):
        read_arrays(path, read_result(path), "../x.npz")
    file = tmp_path / "run" / "objects.npz"
    np.savez(file, x=np.array([{}], dtype=object))
    path = made_results.write(tmp_path / "run", stored={file.name: {"sha256": sha256(file), "bytes": 1}})
    with pytest.raises(UserError, match=r"objects\.npz cannot be read"):
        read_arrays(path, read_result(path), file.name)
