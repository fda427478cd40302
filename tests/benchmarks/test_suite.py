"""Suites: what they plan, and what they say about a wrong file."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import made_results
import pytest
import yaml

from benchmarks.commands import PIXBENCH
from benchmarks.commands.main import main
from benchmarks.jobs import Records
from benchmarks.suite import Row, Suite, plan, read_suite
from pixbench.errors import UserError
from pixbench.files import sha256
from pixbench.lock import CLAIMS, owned
from pixbench.paths import CONFIGS

TRAINED = {"pixpro": {"pretrain": ["pretrain/pixpro_100ep.yaml", "pretrain/mini.yaml"]}, "random": None}
TUNED = ["voc_c4", "coco_fpn_1x", "coco_c4_1x", "cityscapes_fcn16s"]
DEMO = CONFIGS / "suites" / "demo.yaml"


def written(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "suite.yaml"
    content = {"scale": "mini", "rows": {"random": {}}, "protocols": ["voc_c4"], **changes}
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path


@pytest.mark.parametrize("path", sorted((CONFIGS / "suites").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_suite_can_be_planned(path: Path, tmp_path: Path) -> None:
    jobs = plan(read_suite(path), tmp_path, tmp_path / "data", PIXBENCH)
    assert len({job.name for job in jobs}) == len(jobs)


def test_jobs_come_after_what_they_wait_for(tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path, rows=TRAINED, protocols=TUNED, mini={"seed": 0}))
    jobs = plan(suite, tmp_path, None, PIXBENCH)
    seen: set[str] = set()
    for job in jobs:
        assert set(job.after) <= seen, job.name
        seen.add(job.name)
    assert jobs[0].name == "data"
    assert sum(name.startswith("transfer/") for name in seen) == 8
    # both C4 protocols share one converted file
    assert sum(name.startswith("convert/pixpro/") for name in seen) == 3


def test_given_data_are_used_and_nothing_is_generated(tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path, rows=TRAINED, protocols=TUNED, mini={"seed": 0}))
    jobs = plan(suite, tmp_path, tmp_path / "mine", PIXBENCH)
    assert not any(job.name == "data" for job in jobs)
    assert str(tmp_path / "mine" / "imagenet") in next(job for job in jobs if job.name == "pretrain/pixpro").command


def test_rows_may_start_supervised_and_freeze_the_backbone(tmp_path: Path) -> None:
    weights = tmp_path / "b.pth"
    weights.touch()
    rows = {"a": {"init": "supervised", "freeze": "backbone"}, "b": {"weights": str(weights)}, "c": None}
    jobs = plan(read_suite(written(tmp_path, rows=rows)), tmp_path, tmp_path / "data", PIXBENCH)
    assert [job.command[4:6] for job in jobs] == [
        ("--init", "supervised"),
        ("--weights", str(weights)),
        ("--init", "random"),
    ]
    assert [" ".join(job.command).count("--freeze backbone") for job in jobs] == [1, 0, 0]


FROZEN = {
    "rows": {
        "random": None,
        "pixpro": {"pretrain": ["pretrain/pixpro_100ep.yaml", "pretrain/mini.yaml"]},
        "mine": None,
    },
    "protocols": ["imagenet_probe", "voc_c4"],
}


def test_frozen_protocols_take_the_checkpoint_itself_and_random_rows_are_like_it(tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path, features_gb=7, **FROZEN))
    jobs = {job.name: job for job in plan(suite, tmp_path, tmp_path / "data", PIXBENCH)}
    checkpoint = str(jobs["pretrain/pixpro"].output)
    trained, random, tuned = (
        jobs[f"transfer/{name}/seed0"] for name in ("pixpro/imagenet_probe", "random/imagenet_probe", "random/voc_c4")
    )
    assert trained.command[4:6] == ("--weights", checkpoint)
    assert random.command[4:8] == ("--init", "random", "--like", checkpoint)
    assert trained.after == random.after == ("pretrain/pixpro",)
    cache = f"--cache {tmp_path / 'features'} --cache-gb 7"
    assert [cache in " ".join(job.command) for job in (trained, random, tuned)] == [True, True, False]
    assert "--like" not in tuned.command
    assert not any("imagenet_probe" in name for name in jobs if name.startswith("convert/"))
    assert list(jobs).index("pretrain/pixpro") < list(jobs).index(random.name)


def test_frozen_protocols_may_have_fewer_seeds(tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path, seeds=[0, 1], frozen_seeds=[0], **FROZEN))
    names = [job.name for job in plan(suite, tmp_path, tmp_path / "data", PIXBENCH) if "transfer/pixpro" in job.name]
    assert names == [f"transfer/pixpro/{run}" for run in ("imagenet_probe/seed0", "voc_c4/seed0", "voc_c4/seed1")]


def test_a_row_may_have_fewer_protocols(tmp_path: Path) -> None:
    rows = {"random": None, "live": {"pretrain": ["pretrain/pixpro_100ep.yaml"], "protocols": ["imagenet_probe"]}}
    suite = read_suite(written(tmp_path, rows=rows, protocols=["voc_c4", "imagenet_probe"]))
    names = [job.name for job in plan(suite, tmp_path, tmp_path / "data", PIXBENCH)]
    assert [name for name in names if "live" in name] == ["pretrain/live", "transfer/live/imagenet_probe/seed0"]
    assert sum("random" in name for name in names) == 2


def test_without_a_row_with_weights_random_rows_are_those_of_the_scale(tmp_path: Path) -> None:
    rows = {"random": None, "known": {"init": "supervised"}}
    suite = read_suite(written(tmp_path, rows=rows, protocols=["imagenet_probe"]))
    jobs = plan(suite, tmp_path, tmp_path / "data", PIXBENCH)
    assert not any("--like" in job.command for job in jobs)
    weights = tmp_path / "b.pth"
    weights.touch()
    suite = read_suite(
        written(tmp_path, rows={**rows, "mine": {"weights": str(weights)}}, protocols=["imagenet_probe"])
    )
    jobs = plan(suite, tmp_path, tmp_path / "data", PIXBENCH)
    assert [" ".join(job.command).count(f"--like {weights}") for job in jobs] == [0, 0, 1]


def test_own_classes_are_part_of_the_command_and_of_what_it_depends_on(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("plate\n")
    suite = written(tmp_path, rows={"a": None}, protocols=["voc_c4", "coco_fpn_1x"], classes={"voc_c4": str(own)})
    first, second = plan(read_suite(suite), tmp_path, tmp_path / "data", PIXBENCH)
    assert " ".join(first.command).count(f"--classes {own}") == 1
    assert "--classes" not in second.command
    key = first.key
    own.write_text("plate\nnut\n")
    assert replace(first).key != key
    own.unlink()
    with pytest.raises(UserError, match="the list of classes"):
        plan(read_suite(suite), tmp_path, tmp_path / "data", PIXBENCH)


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
    assert main(["suite", str(DEMO), *words]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("gpus", ["8", "0,1,2,3,4,5,6,7"])
def test_commands_are_shown_where_no_gpu_is(
    gpus: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(["suite", str(DEMO), "--dry-run", "--gpus", gpus]) == 0
    assert "--nproc_per_node=8 " in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [("--jobs-at-a-time", "-1"), ("--jobs-at-a-time", "0"), ("--gpus-per-run", "-1"), ("--stall-minutes", "-1")],
)
def test_numbers_with_which_nothing_would_run(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite", str(DEMO), "--dry-run", *words]) == 2
    assert f"{' '.join(words)} is not possible; choose " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("slurm", "sentence"),
    [
        ({"transfer": 30}, "transfer: 30 must be a mapping of options"),
        ({"gpus_per_node": "a100:8"}, "--gpus-per-run"),
        ({"ntasks_per_node": 8}, "ntasks_per_node is 8; it must be 1"),
    ],
)
def test_a_wrong_slurm_block(
    slurm: dict[str, object], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, slurm={"time": 60, **slurm})
    assert main(["suite", str(path), "--data-root", "x", "--launcher", "slurm", "--dry-run"]) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_has_one_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with owned(tmp_path):
        assert main(["suite", str(DEMO), "--out", str(tmp_path)]) == 2
    assert f"{tmp_path} is in use by process" in capsys.readouterr().err


def test_a_suite_whose_folder_was_taken_over_stops_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is interrupted as by Ctrl-C, rather than ended on the spot with its jobs left alone."""
    interrupted = []

    def run_jobs(*_: object) -> None:
        next(tmp_path.glob(CLAIMS)).unlink()
        try:
            time.sleep(20)
        except KeyboardInterrupt:
            interrupted.append(True)
            raise

    monkeypatch.setattr("pixbench.lock.BEAT_S", 0.01)
    monkeypatch.setattr("benchmarks.launch.scheduler.run_jobs", run_jobs)
    assert main(["suite", str(DEMO), "--out", str(tmp_path)]) == 130
    assert interrupted


def test_slurm_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    assert main(["suite", str(DEMO.with_name("slurm.yaml")), "--data-root", ".", "--launcher", "slurm"]) == 2
    assert "no squeue" in capsys.readouterr().err


@pytest.mark.parametrize("launcher", ["local", "slurm"])
def test_data_that_are_not_there_stop_a_suite_at_once(
    launcher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["suite", str(DEMO), "--data-root", str(tmp_path / "dta"), "--out", str(tmp_path / "out")]
    assert main([*words, "--launcher", launcher]) == 2
    assert f"--data-root: there is no folder {tmp_path / 'dta'}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--dry-run"]) == 0


def test_weights_of_the_hub_are_no_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = written(tmp_path, rows={"mine": {"weights": "hf:org/name@main:x.pth"}}), tmp_path / "out"
    assert main(["suite", str(path), "--data-root", str(tmp_path), "--out", str(out), "--dry-run"]) == 0
    assert "--weights hf:org/name@main:x.pth" in capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_weights_that_are_not_there_stop_a_suite_at_once(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = written(tmp_path, rows={"mine": {"weights": "no/such.pth"}}), tmp_path / "out"
    assert main(["suite", str(path), "--data-root", str(tmp_path), "--out", str(out), *words]) == 2
    assert "row mine: there is no file no/such.pth" in capsys.readouterr().err
    path = written(tmp_path, rows={"mine": {"weights": "zoo:pixpro_s00"}})
    assert main(["suite", str(path), "--data-root", str(tmp_path), "--out", str(out), *words]) == 2
    assert "row mine: the zoo has no backbone 'pixpro_s00'; did you mean pixpro_s0?" in capsys.readouterr().err
    assert not out.exists()


def test_a_result_of_other_weights_is_not_done(tmp_path: Path) -> None:
    weights, out = tmp_path / "b.pth", tmp_path / "out"
    weights.write_bytes(b"one")
    suite = read_suite(written(tmp_path, rows={"mine": {"weights": str(weights)}}))
    (job,) = plan(suite, out, tmp_path, PIXBENCH)
    records = Records(out / "jobs")
    made_results.write(job.output.parent, weights={"path": str(weights), "sha256": sha256(weights), "source": "x"})
    records.write(job, "done", 1.0)
    assert records.done(job)
    weights.write_bytes(b"two")
    assert not records.done(job)


@pytest.mark.parametrize(
    ("scale", "sentence"), [("paper", "^[^{]*--data-root"), ("mini", "add the key `mini: {}` .*--data-root")]
)
def test_data_must_be_named_or_generated(scale: Literal["paper", "mini"], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        plan(Suite({}, ("voc_c4",), scale), Path("out"), None, PIXBENCH)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "huge"}, "suite.yaml: .*scale.*'paper', 'mini'.*huge"),
        ({"protocols": ["voc_c5"]}, "did you mean voc_c4"),
        ({"protocols": "voc_c4"}, "suite.yaml: .*protocols.*tuple.*voc_c4"),
        ({"overrides": {3: {}}}, "no protocol '3'"),
        ({"overrides": {"voc_c4": [1]}}, "suite.yaml: .*overrides.*dict"),
        ({"seeds": 3}, "suite.yaml: .*seeds.*tuple.*3"),
        ({"seeds": ["x"]}, "suite.yaml: .*seeds.*int.*x"),
        ({"jobs_at_a_time": "many"}, "suite.yaml: .*jobs_at_a_time.*int.*many"),
        ({"jobs_at_a_time": 0}, "suite.yaml: jobs_at_a_time is 0; it must be 1 or more"),
        ({"features_gb": 0}, "suite.yaml: features_gb is 0; it must be more than 0"),
        ({"features_gb": float("nan")}, "suite.yaml: features_gb is nan; it must be more than 0, and finite"),
        ({"seeds": [1, 2, 1]}, "suite.yaml: seeds has 1 twice"),
        ({"rows": {"a": {"protocols": ["x"]}}}, "suite.yaml: row a: protocols has x, which is not among"),
        ({"frozen_seeds": [0, 0]}, "suite.yaml: frozen_seeds has 0 twice"),
        ({"interval": "boxes"}, "suite.yaml: .*interval.*'seeds', 'images'.*boxes"),
        ({"protocols": ["voc_c4", "voc_c4"]}, "suite.yaml: protocols has 'voc_c4' twice"),
        ({"rows": {"a": {"protocols": ["voc_c4"] * 2}}}, "suite.yaml: row a: protocols has 'voc_c4' twice"),
        ({"seeds": []}, "suite.yaml: seeds is empty, so nothing would be measured"),
        ({"frozen_seeds": []}, "suite.yaml: frozen_seeds is empty, so nothing would be measured"),
        ({"rows": {"-x": {}}}, "row -x: the label '-x' cannot name a folder"),
        ({"rows": {"ours/v2": {}}}, "row ours/v2: the label 'ours/v2' cannot name a folder"),
        ({"rows": {"a": {"set": {"out": "x"}}}}, "row a: out cannot be set, .* --out of the suite"),
        ({"mini": 3}, "suite.yaml: .*mini.*dict"),
        ({"mini": {"worlds": "shapes"}}, "suite.yaml: mini: there is no setting 'worlds'; did you mean world?"),
        ({"mini": {"world": "shape"}}, "suite.yaml: mini: .*'everyday', 'shapes'.*shape"),
        ({"mini": {"images": 3}}, "suite.yaml: mini: --images 3 is too few"),
        ({"rowz": {}}, "suite.yaml: there is no setting 'rowz'; did you mean rows?"),
        ({"rows": None}, "suite.yaml: .*required.*rows"),
        ({"rows": ["a", "b"]}, "suite.yaml: .*rows.*dict.*'a', 'b'"),
        ({"rows": {"a": "random"}}, "row a: expected settings .pretrain, .*, found 'random'"),
        ({"rows": {"a": {"weights": "x", "pretrain": ["y"]}}}, "row a: give one of"),
        ({"rows": {"a": {"pretrain": "x.yaml"}}}, "row a: .*pretrain.*tuple.*x.yaml"),
        ({"rows": {"a": {"init": "zero"}}}, "row a: .*init.*'random', 'supervised'.*zero"),
        ({"rows": {"a": {"freeze": "head"}}}, "row a: .*freeze.*'none', 'backbone'.*head"),
        ({"rows": {"a": {"wieghts": "x"}}}, "row a: there is no setting 'wieghts'; did you mean weights?"),
    ],
)
def test_a_wrong_suite_is_one_clear_sentence(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_suite(written(tmp_path, **changes))


def test_a_time_is_no_number_of_base_60(tmp_path: Path) -> None:
    """Otherwise a limit of a day, without quotes, would be one of 86400 minutes."""
    suite = written(tmp_path)
    suite.write_text(suite.read_text() + "slurm: {time: 24:00:00, transfer: {time: 90}}\n")
    assert read_suite(suite).slurm == {"time": "24:00:00", "transfer": {"time": 90}}


def test_settings_of_others_stay_as_they_are_written(tmp_path: Path) -> None:
    changes = {"slurm": {"time": "02:00", "mem": "400"}, "overrides": {"voc_c4": {"A.B": "1e-3"}}}
    suite = read_suite(written(tmp_path, rows={1: {"set": {"optimizer.lr": "1e-3"}}}, seeds=[0, 7], **changes))
    assert (suite.slurm, suite.overrides) == (changes["slurm"], changes["overrides"])
    assert suite.rows["1"].set == {"optimizer.lr": "1e-3"}
    assert (suite.protocols, suite.seeds) == (("voc_c4",), (0, 7))


def test_a_key_without_a_value_counts_as_left_out(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text("scale: mini\nrows: {a: {set: }, b: }\nprotocols: [voc_c4]\njobs_at_a_time:\noverrides:\n")
    assert read_suite(path) == Suite({"a": Row(), "b": Row()}, ("voc_c4",), "mini")


def test_an_unreadable_suite_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_suite(tmp_path / "absent.yaml")
    (tmp_path / "latin1.yaml").write_bytes("rows: {é: }".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin1\.yaml cannot be read: 'utf-8'"):
        read_suite(tmp_path / "latin1.yaml")
    (tmp_path / "list.yaml").write_text("[rows]")
    with pytest.raises(UserError, match=r"list\.yaml: expected settings \(rows, .*, found \['rows'\]"):
        read_suite(tmp_path / "list.yaml")


def test_a_suite_of_paper_scale_does_not_start_on_a_cpu_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[bool] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("benchmarks.launch.scheduler.run_jobs", lambda *_: started.append(True) or {})
    words = ["suite", str(DEMO.with_name("paper.yaml")), "--data-root", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "--launcher slurm" in said
    assert "--on-cpu" in said
    assert not started
    main([*words, "--on-cpu"])
    assert started
    started.clear()
    monkeypatch.setattr("benchmarks.jobs.Records.done", lambda *_: True)
    main(words)  # only its tables are left
    assert started
