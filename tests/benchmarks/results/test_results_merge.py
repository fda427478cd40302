"""Results are brought together without overwriting any."""

from __future__ import annotations

from pathlib import Path

import made_results
import numpy as np
import pytest
from made_results import made

from benchmarks.commands.main import main
from benchmarks.results.merge import merge, upgrade
from benchmarks.results.reading import read_all
from pixbench.errors import UserError
from pixbench.files import write_json
from pixbench.results import read_arrays, read_result, write_result

ARRAYS = {"areas": {"x": np.arange(3)}}


def test_results_are_copied_with_what_belongs_to_them(tmp_path: Path) -> None:
    path = write_result(tmp_path / "one" / "voc" / "seed0", made(), ARRAYS)
    (path.parent / "model_final.pth").write_bytes(b"large")
    done = merge([tmp_path / "one"], tmp_path / "all")
    (copy,) = done.copied
    assert copy == tmp_path / "all" / "voc" / "seed0" / "result.json"
    assert copy.read_bytes() == path.read_bytes()
    assert read_arrays(copy, read_result(copy), "areas.npz")["x"].tolist() == [0, 1, 2]
    assert not copy.with_name("model_final.pth").exists()
    again = merge([tmp_path / "one"], tmp_path / "all")
    assert (again.copied, again.same, again.refused) == ([], [copy], [])


def test_another_result_in_the_same_place_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        write_result(tmp_path / name / "run", made(seed=seed), {"areas": {"x": np.array([seed])}})
    sources = [str(tmp_path / name) for name in ("one", "two")]
    assert main(["results", "merge", *sources, "--into", str(tmp_path / "all")]) == 1
    assert "1 copied to " in capsys.readouterr().out
    ((path, result),) = read_all(tmp_path / "all").found
    assert result["seed"] == 1
    assert read_arrays(path, result, "areas.npz")["x"].tolist() == [1]


def test_what_cannot_be_used_is_named_and_stays_where_it_is(tmp_path: Path) -> None:
    path = write_result(tmp_path / "one" / "damaged", made(), ARRAYS)
    path.with_name("areas.npz").write_bytes(b"")
    edited = made_results.write(tmp_path / "one" / "edited")
    edited.write_text(edited.read_text().replace('"seed": 0', '"seed": 5'))
    done = merge([tmp_path / "one"], tmp_path / "all")
    assert done.copied == []
    assert len(done.refused) == 2
    assert not (tmp_path / "all" / "damaged" / "result.json").exists()
    for into in (tmp_path, tmp_path / "below"):
        with pytest.raises(UserError, match="into itself"):
            merge([tmp_path], into)
    with pytest.raises(UserError, match="into itself"):
        merge([tmp_path / "one"], tmp_path / "one")


def test_only_older_results_are_upgraded(tmp_path: Path) -> None:
    made_results.write(tmp_path / "new")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "result.json").write_text("{}")
    old = {**made(curve=..., usage=..., units=...), "schema": 1}
    for name, content in {"old": old, "broken": {**old, "metrics": "none"}}.items():
        write_json(tmp_path / name / "result.json", content)
    before = (tmp_path / "new" / "result.json").read_bytes()
    done, left = upgrade([tmp_path])
    assert done == [tmp_path / "old" / "result.json"]
    assert sorted(file.path.parent.name for file in left) == ["broken", "foreign"]
    assert (tmp_path / "new" / "result.json").read_bytes() == before
    result = read_result(tmp_path / "old" / "result.json")
    assert (result["upgraded_from"], result["units"]["AP"]) == (1, "%")
    assert upgrade([tmp_path])[0] == []
