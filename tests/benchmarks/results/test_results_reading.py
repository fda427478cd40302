"""Many results are read through a cache, which never says anything else than the files."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import made_results
import pytest

from benchmarks.results import database, reading
from benchmarks.results.reading import read_all
from pixbench.results import read_result


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return database.place()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read and not taken from the cache."""
    seen: list[Path] = []

    def noted(path: Path) -> object:
        seen.append(path)
        return read_result(path)

    monkeypatch.setattr(reading, "read_result", noted)
    return seen


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path: Path, cache: Path, opened: list[Path]) -> None:
    runs = tmp_path / "runs"
    for seed in range(3):
        made_results.write(runs / f"s{seed}", seed=seed)
    assert [item.result["seed"] for item in read_all(runs).found] == [0, 1, 2]
    assert len(opened) == 3
    assert [item.path for item in read_all(runs).found] == [runs / f"s{seed}" / "result.json" for seed in range(3)]
    assert len(opened) == 3
    made_results.write(runs / "s1", seed=7)
    assert [item.result["seed"] for item in read_all(runs).found] == [0, 7, 2]
    assert opened[3:] == [runs / "s1" / "result.json"]
    path = runs / "s2" / "result.json"
    path.write_text(path.read_text().replace('"seed": 2', '"seed": 3'))  # by hand, in place
    results = read_all(runs)
    assert [item.result["seed"] for item in results.found] == [0, 7]
    assert [(file.path, file.problem) for file in results.left_out] == [(path, "edited")]
    assert read_all(runs).summary() == "1 of 3 results left out: 1 changed by hand"
    path.unlink()
    assert read_all(runs).left_out == []


def test_config_and_curve_are_read_only_when_asked_for(tmp_path: Path, cache: Path) -> None:
    path = made_results.write(tmp_path / "runs")
    ((_, light),), ((_, whole),) = read_all(path.parent).found, read_all(path.parent, heavy=True).found
    assert whole == read_result(path)
    assert {*whole} - {*light} == {"config", "curve"}


@pytest.mark.parametrize("damage", ["text", "cut", "other tables", "a folder", "read only"])
def test_a_damaged_cache_costs_nothing_but_time(damage: str, tmp_path: Path, cache: Path) -> None:
    runs = tmp_path / "runs"
    made_results.write(runs)
    read_all(runs)
    if damage == "text":
        cache.write_text("not a database")
    elif damage == "cut":
        cache.write_bytes(cache.read_bytes()[:5000])
    elif damage == "other tables":
        cache.unlink()
        with sqlite3.connect(cache) as connection:
            connection.execute("CREATE TABLE results (something TEXT)")
    elif damage == "a folder":
        cache.unlink()
        cache.mkdir()
    else:
        cache.unlink()
        cache.parent.rmdir()
        cache.parent.write_text("a file where the folder should be")
    for _ in range(2):
        assert len(read_all(runs).found) == 1


def test_another_process_may_write_to_the_cache_meanwhile(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    made_results.write(runs / "a")
    read_all(runs)
    made_results.write(runs / "b")
    monkeypatch.setattr(database, "TIMEOUT_S", 0.1)
    with sqlite3.connect(cache) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert len(read_all(runs).found) == 2


def test_rows_of_files_that_are_gone_are_forgotten(tmp_path: Path, cache: Path) -> None:
    runs = tmp_path / "runs"
    paths = [made_results.write(runs / name) for name in "ab"]
    made_results.write(tmp_path / "runs2")
    read_all([runs, tmp_path / "runs2"])
    paths[0].unlink()
    made_results.write(runs / "c")
    read_all(runs)
    with sqlite3.connect(cache) as connection:
        held = sorted(Path(os.fsdecode(path)).parent.name for (path,) in connection.execute("SELECT path FROM results"))
    assert held == ["b", "c", "runs2"]


def test_links_files_and_two_ways_to_a_file(tmp_path: Path, cache: Path) -> None:
    path = made_results.write(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "runs" / "b" / "result.json").symlink_to(tmp_path / "nowhere")
    results = read_all([tmp_path / "runs", tmp_path / "runs" / "a", path])
    assert [item.path for item in results.found] == [path]
    assert [file.problem for file in results.left_out] == ["damaged"]


def test_a_query_of_json_lines_is_the_content_of_the_files(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.commands.main import main

    path = made_results.write(tmp_path / "a", label="pixpro")
    made_results.write(tmp_path / "b", "ade20k_knn")
    assert main(["results", "query", "protocol~voc and label=pixpro", str(tmp_path), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    content = json.loads(line)
    assert content.pop("path") == str(path)
    assert content.items() <= read_result(path).items()


def test_names_that_are_no_text_and_files_that_never_end(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder's name need not be UTF-8; reading a pipe would wait for ever, a device would fill the memory."""
    from benchmarks.commands.main import main

    made_results.write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")), label="named")
    for name in ("pipe", "device"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "pipe" / "result.json")
    (tmp_path / "device" / "result.json").symlink_to("/dev/zero")
    for _ in range(2):  # from the files, and from the cache
        results = read_all(tmp_path)
        assert [item.result["label"] for item in results.found] == ["named"]
        assert [file.reason for file in results.left_out] == ["cannot be read (it is no file)"] * 2
    for words in (["results", "list"], ["table"], ["report", "-o", str(tmp_path / "r.html")], ["watch"]):
        assert main([*words, str(tmp_path)]) == 0
    assert main(["results", "export", str(tmp_path), "--csv", str(tmp_path / "x.csv")]) == 0
    assert "\\udcff" in (tmp_path / "x.csv").read_text()


def test_no_command_lets_a_name_write_to_the_terminal(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.commands.main import main

    evil = "\x1b]0;owned\x07\x9b31m\u202e"
    folder = tmp_path / evil
    classes = {"AP": {evil: 1.0}}
    path = made_results.write(
        folder / "a", metrics={"AP": 1.0, evil: 2.0}, label=evil, per_class=classes, deviations=[evil]
    )
    made_results.write(folder / "b", metrics=..., status="failed", reason=evil, label="x")
    (folder / "c").mkdir()
    (folder / "c" / "result.json").write_text("{")
    into = str(tmp_path / "into")
    for words in ("list", "verify", "upgrade", "merge --into", "query label~owned", "export --csv"):
        name, *more = words.split(" ")
        last = [into] if name == "merge" else [str(tmp_path / "x.csv")] if name == "export" else []
        runs = [*more, *last, str(folder)] if name != "query" else [*more, str(folder)]
        assert main(["results", name, *(runs if name == "query" else [str(folder), *more, *last])]) in (0, 1)
    assert main(["results", "show", str(path.parent)]) == 0
    assert main(["report", str(folder), "-o", str(tmp_path / "r.html")]) == 0
    said = capsys.readouterr().out
    assert "owned" in said
    assert all(letter.isprintable() or letter == "\n" for letter in said)
