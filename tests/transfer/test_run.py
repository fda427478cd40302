"""What a transfer run leaves behind, and when it refuses to start."""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from quick_detection import QUICK, converted_backbone

from benchmarks.commands.transfer import register
from benchmarks.results.verify import verify
from pixbench.errors import UserError
from pixbench.file_versions import RESULT_SCHEMA
from pixbench.files import sha256, write_json
from pixbench.lock import owned
from pixbench.paths import RESULT_JSON_SCHEMA
from pixbench.results import config_hash, per_image, read_arrays, read_result
from pretrain.models.backbone_spec import BackboneSpec
from transfer.datasets import voc
from transfer.datasets.classes import Classes, published_classes
from transfer.datasets.report import Report
from transfer.job import Outcome, TransferJob
from transfer.protocols import find_protocol, protocols
from transfer.published_config import published_config
from transfer.run import _measured, _said, checked_data, deviations, extra_weights, run_transfer
from transfer.run_folder import claim, finished_result
from transfer.samples import OBJECTS, chosen
from transfer.weights.backbone import Backbone
from transfer.weights.models.networks import build_network

VOC = find_protocol("voc_c4")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted_backbone(tmp_path_factory.mktemp("weights") / "pixpro.pkl", "detectron2_c4")


@pytest.fixture(scope="module")
def job(mini_root: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> TransferJob:
    out = tmp_path_factory.mktemp("runs") / "voc"
    return TransferJob(VOC, mini_root, out, weights, scale="mini", seed=5, overrides=QUICK)


@pytest.fixture(scope="module")
def result(job: TransferJob) -> dict[str, Any]:
    return run_transfer(job, label="pixpro")


@pytest.mark.frameworks
def test_a_result_says_all_there_is_to_say(job: TransferJob, result: dict[str, Any], weights: Path) -> None:
    stored = read_result(job.out / "result.json")
    assert (stored["kind"], stored["status"], stored["protocol"]) == ("transfer", "ok", "voc_c4")
    assert (stored["scale"], stored["seed"], stored["label"], stored["init"]) == ("mini", 5, "pixpro", "pixpro.pkl")
    assert stored["weights"]["path"] == str(weights)
    assert stored["weights"]["sha256"] == sha256(weights)
    assert stored["weights"]["source"]
    assert set(stored["metrics"]) == {"AP", "AP50", "AP75"}
    assert stored["metrics"]["AP50"] == stored["raw_metrics"]["bbox/AP50"]
    assert stored["iterations"] == QUICK["SOLVER.MAX_ITER"]
    assert stored["overrides"] == {**VOC.mini, **QUICK}
    assert "SOLVER.MAX_ITER 4 instead of 24000" in stored["deviations"]
    assert stored["config"]["SOLVER"]["MAX_ITER"] == 4
    assert stored["config_sha256"] == config_hash(stored["config"])
    assert stored["started"] <= stored["finished"]
    assert stored["wall_time_s"] > 0
    assert stored["host"]["processes"] == 1
    assert {"torch", "detectron2"} & set(stored["versions"])
    assert "resumed" in stored
    schema = json.loads(RESULT_JSON_SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(stored)
    assert stored["units"] == {"AP": "%", "AP50": "%", "AP75": "%"}
    assert [point["step"] for point in stored["curve"]] == [1, 2, 3, 4, 4]
    assert stored["curve"][-1] == {"step": 4, **stored["metrics"]}
    assert stored["usage"]["peak_memory_gb"] > 0.1
    assert set(stored["data"]["fingerprints"]) == {"VOC2007", "VOC2012"}
    assert set(stored["per_class"]["AP"]) == {*published_classes("voc.txt").names}
    found = per_image(job.out / "result.json", "AP50")
    assert found is not None
    assert len(found["images"]) == stored["evaluation"]["pictures"]["test"]
    checks = {check.what: check.fits for check in verify(job.out / "result.json", stored)}
    assert checks == dict.fromkeys(("config", "detections_bbox.npz", "samples.npz", "AP", "AP50", "AP75"), True)
    assert (job.out / "config.yaml").exists()
    assert "Starting training" in (job.out / "log.txt").read_text(encoding="utf-8")


@pytest.mark.frameworks
def test_a_few_test_pictures_are_kept_with_their_objects(job: TransferJob, result: dict[str, Any]) -> None:
    path = job.out / "result.json"
    samples, images = read_arrays(path, read_result(path), "samples.npz"), per_image(path, "AP50")["images"]  # type: ignore[index]
    assert samples["images"].tolist() == [images[place] for place in chosen(images.tolist())]
    assert samples["classes"].tolist() == list(published_classes("voc.txt").names)
    home = job.data_root / "VOC2007"
    for number, name in enumerate(samples["images"].tolist()):
        with Image.open(io.BytesIO(samples[f"picture_{number}"].tobytes())) as shown:
            with Image.open(home / "JPEGImages" / f"{name}.jpg") as picture:
                assert shown.size == picture.size  # those of the mini world are small already
            size = np.array(shown.size * 2)
        annotation = voc.read(home / "Annotations" / f"{name}.xml", Report())
        assert annotation is not None
        names = samples["classes"][samples[f"truth_classes_{number}"]].tolist()
        assert names == [thing.name for thing in annotation.things]
        boxes = [np.array(thing.box) - (1, 1, 0, 0) for thing in annotation.things]
        assert samples[f"truth_boxes_{number}"] * size == pytest.approx(np.array(boxes), abs=1e-3)
        scores = samples[f"found_scores_{number}"]
        assert (
            len(scores) == len(samples[f"found_boxes_{number}"]) == len(samples[f"found_classes_{number}"]) <= OBJECTS
        )
        assert (np.diff(scores) <= 0).all()
    assert read_result(path)["stored"]["samples.npz"]["bytes"] < 300_000


@pytest.mark.frameworks
def test_a_finished_run_is_not_run_again(
    job: TransferJob, result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    written = (job.out / "result.json").stat().st_mtime_ns
    again = run_transfer(job, label="pixpro")
    assert again["metrics"] == json.loads(json.dumps(result["metrics"]))
    assert (job.out / "result.json").stat().st_mtime_ns == written
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.frameworks
def test_the_command_does_the_same_job(
    job: TransferJob, result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [word for key, value in QUICK.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    places = ("--data-root", str(job.data_root), "--out", str(job.out), "--weights", str(job.weights))
    words = ("transfer", "voc_c4", *places, "--scale", "mini", "--seed", "5", "--label", "pixpro", *settings)
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    args = parser.parse_args(words)
    args.run(args)
    said = capsys.readouterr().out
    assert "nothing to do" in said
    assert f"voc_c4: AP {result['metrics']['AP']:.1f}  AP50 " in said


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 6}, "seed was 5, now 6"),
        ({"weights": None}, "weights was .*now random"),
        ({"overrides": {**QUICK, "SOLVER.MAX_ITER": 5}}, "overrides SOLVER.MAX_ITER was 4, now 5"),
        ({"protocol": find_protocol("coco_c4_1x")}, "protocol was voc_c4, now coco_c4_1x"),
    ],
)
def test_a_folder_serves_one_job(
    job: TransferJob, result: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=f"belongs to another run.*{message}"):
        run_transfer(replace(job, **change))


@pytest.mark.frameworks
def test_a_failed_run_says_why_and_is_tried_again(job: TransferJob, tmp_path: Path) -> None:
    wild = replace(job, out=tmp_path / "run", overrides={**QUICK, "SOLVER.BASE_LR": 1e8, "SOLVER.MAX_ITER": 20})
    for _ in range(2):
        with pytest.raises(UserError, match=r"lower SOLVER\.BASE_LR"):
            run_transfer(wild)
        stored = read_result(wild.out / "result.json")
        assert stored["status"] == "failed"
        assert "lower SOLVER.BASE_LR" in stored["reason"]
        assert "metrics" not in stored


@pytest.mark.frameworks
def test_a_corrected_command_may_use_the_folder_of_the_mistyped_one(
    job: TransferJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with pytest.raises(UserError, match=r"SOLVER\.MAX_ITERS"):
        run_transfer(replace(job, out=out, overrides={**QUICK, "SOLVER.MAX_ITERS": 3}))
    assert read_result(out / "result.json")["status"] == "failed"
    metrics = {"bbox/AP": 1.0, "bbox/AP50": 2.0, "bbox/AP75": 0.5}
    monkeypatch.setattr("transfer.run._runner", lambda framework: lambda job, backbone: Outcome(metrics, {}, 3))
    corrected = replace(job, out=out, overrides={**QUICK, "SOLVER.MAX_ITER": 3})
    result = run_transfer(corrected)
    assert (result["status"], result["resumed"], result["overrides"]["SOLVER.MAX_ITER"]) == ("ok", False, 3)
    with pytest.raises(UserError, match=r"overrides SOLVER\.MAX_ITER was 3, now 4"):  # now something was trained there
        run_transfer(replace(job, out=out))


@pytest.mark.frameworks
def test_another_label_of_a_finished_run_is_noted(
    job: TransferJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"bbox/AP": 1.0, "bbox/AP50": 2.0, "bbox/AP75": 0.5}
    monkeypatch.setattr("transfer.run._runner", lambda framework: lambda job, backbone: Outcome(metrics, {}, 3))
    job = replace(job, out=tmp_path / "run")
    before = json.loads(json.dumps(run_transfer(job)))
    assert run_transfer(job, label="pixpro_100ep")["label"] == "pixpro_100ep"
    assert "its label is now pixpro_100ep instead of pixpro.pkl" in capsys.readouterr().out
    stored = read_result(job.out / "result.json")
    assert {key for key, value in stored.items() if value != before.get(key, value)} == {"label", "digest"}
    run_transfer(job)
    assert "nothing to do" in capsys.readouterr().out
    assert read_result(job.out / "result.json") == stored  # no label given, none taken away


@pytest.mark.frameworks
def test_a_run_killed_in_its_evaluation_only_evaluates(
    job: TransferJob, result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (job.out / "result.json").unlink()
    again = run_transfer(job, label="pixpro")
    assert "trained before; now evaluation on voc_2007_test" in capsys.readouterr().out
    assert again["metrics"] == pytest.approx(result["metrics"])
    assert (again["iterations"], again["resumed"]) == (4, True)


@pytest.mark.frameworks
def test_weights_in_a_folder_are_the_same_weights(job: TransferJob, result: dict[str, Any], weights: Path) -> None:
    """Any source names the weights of a run; the run is known by their bytes."""
    again = run_transfer(replace(job, weights=weights.parent))
    assert again["weights"]["sha256"] == result["weights"]["sha256"]
    assert again["metrics"] == result["metrics"]


def test_missing_data_and_bad_weights_leave_no_folder(job: TransferJob, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UserError, match="VOC2007"):
        run_transfer(replace(job, data_root=tmp_path, out=out))
    torn = tmp_path / "torn.pkl"
    torn.write_bytes(b"\x80\x04 not a backbone")
    with pytest.raises(UserError, match=r"torn\.pkl"):
        run_transfer(replace(job, weights=torn, out=out))
    assert not out.exists()


@pytest.mark.frameworks
@pytest.mark.parametrize("protocol", protocols().values(), ids=lambda protocol: protocol.name)
def test_at_paper_scale_only_what_the_protocol_says_deviates_and_each_mini_key_is_known(protocol: Any) -> None:
    published = published_config(protocol)
    job = TransferJob(protocol, Path("data"), Path("run"))
    assert deviations(job, published) == [*protocol.differs]
    said = deviations(replace(job, scale="mini"), published)[len(protocol.differs) :]
    assert said or published["images"]["resize"] == "padded", (
        "only pictures that keep their size are small by themselves"
    )
    assert [text for text in said if " instead of " not in text] == []
    json.dumps(published, allow_nan=False)


def test_deviations_are_sentences() -> None:
    published = {"A": {"B": 0.02, "C": [{"D": [60000, 80000]}]}, "SIZES": list(range(9)), "E": True, "DATALOADER": {}}
    overrides = {"A.B": 0.005, "A.C.0.D": [3, 4], "SIZES": [1], "E": True, "DATALOADER.NUM_WORKERS": 0, "NEW": "x"}
    job = TransferJob(VOC, Path("data"), Path("run"), overrides=overrides)
    assert deviations(job, published) == [
        "A.B 0.005 instead of 0.02",
        "A.C.0.D (3, 4) instead of (60000, 80000)",
        "SIZES (1) instead of (0, …, 8)",
        "NEW x",
    ]


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="is not empty and is not a run folder"):
        claim(tmp_path, {"seed": 0})
    assert not claim(tmp_path / "new", {"seed": 0})
    assert claim(tmp_path / "new", {"seed": 0})


@pytest.mark.parametrize("checkpoint", ["model_0000001.pth", "iter_2.pth"])
def test_a_folder_is_given_to_another_job_until_something_is_trained_there(checkpoint: str, tmp_path: Path) -> None:
    claim(tmp_path, {"seed": 0})
    (tmp_path / ".iter_2.7.part.pth").touch()  # half a checkpoint
    write_json(tmp_path / "progress.json", {"best": {"AP": 99.0}})
    assert not claim(tmp_path, {"seed": 1})
    assert json.loads((tmp_path / "job.json").read_text()) == {"seed": 1}
    assert not (tmp_path / "progress.json").exists()
    with owned(tmp_path), pytest.raises(UserError, match="in use by process"):
        claim(tmp_path, {"seed": 2})
    (tmp_path / checkpoint).touch()
    with pytest.raises(UserError, match=r"belongs to another run \(seed was 1, now 2\)"):
        claim(tmp_path, {"seed": 2})
    assert claim(tmp_path, {"seed": 1})


def test_only_rank_0_claims_and_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert not claim(tmp_path / "new", {"seed": 0})
    assert not (tmp_path / "new").exists()
    assert _measured(VOC, Outcome({}, {}, 4)) == {}


def test_a_torn_note_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "job.json", {})
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(UserError, match=r"job\.json cannot be read"):
        claim(tmp_path, {"seed": 0})


def test_a_metric_that_the_evaluator_did_not_give_is_a_defect() -> None:
    with pytest.raises(RuntimeError, match="gave no bbox/AP50, bbox/AP75, only bbox/AP"):
        _measured(TransferJob(VOC, Path(), Path()), Outcome({"bbox/AP": 1.0}, {}, 4))


def test_own_classes_have_no_metric_that_only_published_ones_have() -> None:
    job = TransferJob(
        find_protocol("cityscapes_fcn16s"), Path(), Path(), classes=Classes(("a", "b"), "own.txt", own=True)
    )
    metrics = {"mIoU": 1.0, "aAcc": 2.0, "mAcc": 3.0, "boundary_mIoU": 4.0}
    assert _measured(job, Outcome(metrics, {}, 4))["metrics"] == metrics


def test_a_pretrained_pyramid_is_a_deviation_where_it_is_loaded() -> None:
    spec = BackboneSpec(width=0.0625)
    state = build_network(spec).state_dict()
    plain, more = Backbone(spec, state, "x"), Backbone(spec, state, "x", extras={"fpn.p6.bias": torch.zeros(16)})
    assert extra_weights(find_protocol("coco_fpn_1x"), more) != []
    assert extra_weights(find_protocol("coco_fpn_1x"), plain) == []
    assert extra_weights(find_protocol("voc_c4"), more) == []
    assert extra_weights(find_protocol("coco_fpn_1x"), None) == []


def test_the_other_processes_do_not_mind_that_the_first_removes_a_failed_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"schema": RESULT_SCHEMA, "status": "failed"})
    real = Path.read_bytes

    def removed_meanwhile(self: Path) -> bytes:
        path.unlink()
        return real(self)

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(Path, "read_bytes", removed_meanwhile)
    assert finished_result(tmp_path) is None


def test_notes_on_data_are_printed_once_by_a_command(
    mini_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _said.clear()
    jobs = [
        TransferJob(find_protocol(f"ade20k_{name}"), mini_root, tmp_path, scale="mini")
        for name in ("knn", "overcluster")
    ]
    notes = [checked_data(job, trust=True).notes for job in jobs]
    assert notes[0] == notes[1] != []
    assert capsys.readouterr().out.splitlines() == [f"data: {line}" for line in notes[0]]
    assert not any("MMSegmentation" in line or "learn" in line for line in notes[0])
