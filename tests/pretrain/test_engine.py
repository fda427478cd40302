"""The loop on tiny backbones and images: continuing is bit-exact, stopping loses nothing, failures say what to do."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import views

from pixbench.checkpoints import write_checkpoint
from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE
from pretrain import checkpoint, earlier, engine
from pretrain.config import from_dict
from pretrain.data.sources import open_source
from pretrain.data.views import Views
from pretrain.models.resnet import build_resnet
from pretrain.schedule import LRSchedule, ScheduleConfig
from pretrain.settings import DataConfig, RunConfig

pytestmark = pytest.mark.slow

Tree = Callable[..., Path]


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a real SIGINT in the middle of step number ``steps``."""
    original, done = engine.train_step, []

    def train_step(run: engine.Run, views: Views) -> dict[str, Any]:
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return original(run, views)

    monkeypatch.setattr(engine, "train_step", train_step)


def log_of(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()]


def content_of(config: RunConfig) -> dict[str, Any]:
    return checkpoint.load(Path(config.out) / CHECKPOINT_FILE)


def assert_equal(left: Any, right: Any, where: str = "") -> None:
    """Bit for bit, however deep."""
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_equal(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for index, pair in enumerate(zip(left, right, strict=True)):
            assert_equal(*pair, f"{where}.{index}")
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    else:
        assert left == right, where


@pytest.mark.parametrize("method", ["pixpro", "moco_v2", pytest.param("simclr", marks=pytest.mark.e2e)])
def test_continuing_is_bit_exact(method: str, tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    """Straight through; and stopped in the second epoch's first step, then continued with two data workers."""
    straight, broken = tiny("straight", method), tiny("broken", method)
    assert engine.train(straight) == 0
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        with pytest.raises(KeyboardInterrupt):
            engine.train(broken)
    halfway = content_of(broken)
    assert (halfway["step"], halfway["epoch"], halfway["finished"]) == (4, 1, False)
    assert engine.train(replace(broken, data=replace(broken.data, workers=2))) == 0

    for part in ("model", "optimizer", "scaler", "step", "epoch", "finished"):
        assert_equal(content_of(straight)[part], content_of(broken)[part], part)
    logs = [log_of(config) for config in (straight, broken)]
    assert [line["step"] for line in logs[1]] == [1, 2, 3, 4, 5, 6]
    timing = {"images_per_s", "data_wait", "memory_gb", "time"}
    for one, other in zip(*logs, strict=True):
        assert {k: v for k, v in one.items() if k not in timing} == {k: v for k, v in other.items() if k not in timing}


def test_target_schedule_counts_the_batches_left_out(tiny: Callable[..., RunConfig]) -> None:
    """The official K is int(images / batch × epochs): 24 / 9 × 3 = 8, while 3 epochs of 2 whole batches are taken."""
    run = engine.setup(tiny("run", batch_size=9, epochs=3), torch.device("cpu"))
    assert run.total_steps == 6
    assert run.method.get_submodule("momentum_encoder").total_steps == 8


def test_checkpoint_content(tiny: Callable[..., RunConfig]) -> None:
    config = tiny("run", keep_every=1)
    engine.train(config)
    content = content_of(config)
    assert content["format"] == "pixbench-pretrain"
    assert content["version"] == 2
    assert content["method"] == "pixpro"
    assert content["backbone"] == config.backbone.as_dict()
    assert (content["step"], content["epoch"], content["finished"]) == (6, 2, True)
    assert from_dict(content["config"]) == config
    backbone = {k.removeprefix("backbone."): v for k, v in content["model"].items() if k.startswith("backbone.")}
    build_resnet(config.backbone).load_state_dict(backbone)  # strict
    assert any(key.startswith("momentum_encoder.backbone.") for key in content["model"])
    assert content["model"]["momentum_encoder.step"] == 6
    kept = checkpoint.load(Path(config.out) / "checkpoint_ep0001.pth")
    assert (kept["step"], kept["finished"]) == (3, False)
    assert (Path(config.out) / "checkpoint_ep0002.pth").exists()
    assert (Path(config.out) / "config.yaml").exists()
    assert list(Path(config.out, "tensorboard").iterdir())


def test_log(tiny: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny("run", log_every=2)
    engine.train(config)
    lines = log_of(config)
    assert [line["step"] for line in lines] == [1, 2, 4, 6]
    assert lines[-1]["epoch"] == 2
    for line in lines:
        assert {"step", "epoch", "loss", "lr", "feature_std", "images_per_s", "time"} <= line.keys()
        assert -4 <= line["loss"] <= 4
    assert lines[0]["lr"] == pytest.approx(0.5 * 8 / 256 / 100)  # start of the warm-up
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    printed = capsys.readouterr().out
    assert "pixpro: 24 images, 2 epochs of 3 steps of 8 images" in printed
    assert "step 6/6" in printed


def test_a_torn_log_is_cut_back(tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was killed has logged steps after its last checkpoint, and the last line may not be whole."""
    config = tiny("run")
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            engine.train(config)
    with open(Path(config.out) / "log.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"step": 3, "loss": 0.0}\n{"step": 4, "lo')
    engine.train(config)
    assert [line["step"] for line in log_of(config)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("share", [pytest.param(0.0, marks=pytest.mark.e2e), 0.7])
def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    share: float, tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    straight, broken = tiny("straight"), tiny("broken", checkpoint_every_steps=2)
    engine.train(straight)
    with monkeypatch.context() as patch:
        stop_after(5, patch)
        with pytest.raises(KeyboardInterrupt):
            engine.train(broken)
    newest = Path(broken.out) / CHECKPOINT_FILE
    newest.write_bytes(newest.read_bytes()[: int(share * newest.stat().st_size)])
    capsys.readouterr()
    engine.train(broken)
    said = capsys.readouterr().out
    assert f"{newest} is damaged (" in said
    assert "after step 4" in said
    assert "going on after step 4 of 6" in said
    for part in ("model", "optimizer", "step", "finished"):
        assert_equal(content_of(straight)[part], content_of(broken)[part], part)
    lines = log_of(broken)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line.get("recovered") for line in lines] == [
        *(None, None, None, None, str(newest.parent / "earlier" / "checkpoint_step000000004.pth"), None)
    ]
    assert (newest.parent / "checkpoint.pth.damaged").exists()
    assert engine.train(broken) == 0
    assert "already finished" in capsys.readouterr().out


def test_a_finished_run_is_left_alone(tiny: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny("run")
    engine.train(config)
    before = (Path(config.out) / CHECKPOINT_FILE).stat()
    assert engine.train(config) == 0
    assert "already finished" in capsys.readouterr().out
    assert (Path(config.out) / CHECKPOINT_FILE).stat().st_mtime_ns == before.st_mtime_ns


def test_a_checkpoint_that_another_process_wrote_meanwhile_is_not_overwritten(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("run")

    @contextmanager
    def owned(out: Path) -> Iterator[None]:
        out.mkdir(exist_ok=True)
        (out / CHECKPOINT_FILE).write_bytes(b"of another process")
        yield

    monkeypatch.setattr(engine, "owned", owned)
    with pytest.raises(UserError, match=r"another process wrote .* start the same command again"):
        engine.train(config)
    assert (Path(config.out) / CHECKPOINT_FILE).read_bytes() == b"of another process"


def test_other_settings_in_the_same_folder_are_refused(tiny: Callable[..., RunConfig], image_tree: Tree) -> None:
    config = tiny("run")
    engine.train(config)
    with pytest.raises(
        UserError,
        match=r"epochs \(checkpoint: 2, now: 1\); a run may get more epochs, but not fewer; .*choose another --out",
    ):
        engine.train(replace(config, epochs=1))
    other = replace(config.data, root=str(image_tree(3, 8, name="other")))
    with pytest.raises(UserError, match="other images"):
        engine.train(replace(config, data=other))


LENGTHENED = [("cosine", 2), ("multistep", 0)]
MORE_LENGTHENED = [("cosine", 0), ("cosine", 4), ("multistep", 2), ("multistep", 4)]


@pytest.mark.parametrize(
    ("name", "stopped_at"), [*LENGTHENED, *(pytest.param(*case, marks=pytest.mark.e2e) for case in MORE_LENGTHENED)]
)
def test_more_epochs_than_before(
    name: Any, stopped_at: int, tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A run goes on with the schedules of the new length, whether it was finished, in its warm-up or after it."""
    config = tiny("run", schedule=ScheduleConfig(name=name, warmup_epochs=1, milestones=(1, 3)))
    with monkeypatch.context() as patch:
        if stopped_at:
            stop_after(stopped_at, patch)
            with pytest.raises(KeyboardInterrupt):
                engine.train(config)
        else:
            engine.train(config)
    capsys.readouterr()
    longer = replace(config, epochs=4)
    with monkeypatch.context() as patch:
        stop_after(1, patch)  # and once more, which is not a second lengthening
        with pytest.raises(KeyboardInterrupt):
            engine.train(longer)
    step = stopped_at or 6
    printed = capsys.readouterr().out
    assert (
        f"going on after epoch {step / 3:.4g} of now 4 (before: 2): {name} schedule over 4 epochs; learning" in printed
    )
    engine.train(longer)
    assert "(before: 2)" not in capsys.readouterr().out
    schedule = LRSchedule(longer.schedule, 0.5 * 8 / 256, 3, 4)
    lines = log_of(longer)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["lr"] for line in lines[step:]] == [schedule.lr(each) for each in range(step, 12)]
    content = content_of(longer)
    assert (content["finished"], content["lengthened"], content["config"]["epochs"]) == (True, [[step, 2, 4]], 4)
    run = engine.setup(longer, torch.device("cpu"))
    assert run.method.get_submodule("momentum_encoder").total_steps == 12
    assert int(content["model"]["momentum_encoder.step"]) == 12
    with pytest.raises(UserError, match=r"epochs \(checkpoint: 4, now: 2\)"):
        engine.train(config)
    with pytest.raises(UserError, match=r"epochs \(checkpoint: 4, now: 5\), seed"):
        engine.train(replace(longer, epochs=5, seed=1))


def test_a_run_in_fp16_may_go_on_in_another_precision(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no fp16 without a GPU, so an interrupted run in fp32 is made to have been one."""
    config = tiny("run")
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            engine.train(config)
    path = Path(config.out) / CHECKPOINT_FILE
    content = checkpoint.load(path)
    step = content["step"]
    content["config"]["precision"] = "fp16"
    content["bad_steps"] = {"total": 11, "in_a_row": 11}
    write_checkpoint(path, content)
    with pytest.raises(UserError, match=r"precision \(checkpoint: fp16, now: fp32\), seed"):
        engine.train(replace(config, seed=1))
    engine.train(config)
    assert f"going on in fp32; until step {step} it was fp16" in capsys.readouterr().out
    content = content_of(config)
    assert (content["precisions"], content["finished"]) == ([[step, "fp16", "fp32"]], True)
    assert content["bad_steps"] == {"total": 11, "in_a_row": 0}
    with pytest.raises(UserError, match=r"precision \(checkpoint: fp32, now: bf16\)"):
        engine.train(replace(config, precision="bf16"))


def test_a_checkpoint_from_before_a_setting_existed_goes_on_with_its_default(tiny: Callable[..., RunConfig]) -> None:
    config = tiny("run")
    engine.train(config)
    content = content_of(config)
    del content["config"]["accumulate"], content["config"]["backbone"]["stem"]
    checkpoint.check_same_run(content, config.as_dict(), content["images"], Path("x"))
    with pytest.raises(UserError, match=r"accumulate \(checkpoint: 1, now: 2\)"):
        checkpoint.check_same_run(content, {**config.as_dict(), "accumulate": 2}, content["images"], Path("x"))


def test_checkpoints_by_steps(tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    original = earlier.save
    monkeypatch.setattr(earlier, "save", lambda *given: (saved.append(given[1]["step"]), original(*given)))
    engine.train(tiny("run", checkpoint_every=2, checkpoint_every_steps=4))
    assert saved == [4, 6]


@pytest.mark.parametrize("left", [None, "{", '{"status": "failed"}', '{"status": "ok"}'])
def test_an_error_before_the_first_step_is_recorded(
    left: str | None, tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged result does not hide it, and the result of a finished run stays."""
    config = tiny("run")
    path = Path(config.out) / "result.json"
    if left:
        path.parent.mkdir(parents=True)
        path.write_text(left)

    def fail(*args: object) -> None:
        raise MemoryError("no room for the optimiser")

    monkeypatch.setattr("pretrain.run.build_optimizer", fail)
    with pytest.raises(MemoryError):
        engine.train(config)
    kept = left and "ok" in left
    assert json.loads(path.read_text())["status"] == ("ok" if kept else "failed")


def test_a_diverging_run_stops_and_keeps_the_good_checkpoint(tiny: Callable[..., RunConfig]) -> None:
    config = tiny("run", checkpoint_every_steps=1, epochs=4)
    wild = replace(config, optimizer=replace(config.optimizer, name="sgd", base_lr=1e25))
    with pytest.raises(
        UserError,
        match=r"(gradient was not finite in 11 steps|is not finite after step).*(last good|before these steps).*checkpoint\.pth",
    ):
        engine.train(wild)
    content = content_of(wild)
    assert not content["finished"], "although it gave up at its last step"
    with pytest.raises(UserError, match="not finite in 11 steps"):
        engine.train(wild)
    assert all(value.isfinite().all() for value in content["model"].values())
    result = json.loads((Path(wild.out) / "result.json").read_text())
    assert (result["status"], result["kind"]) == ("failed", "pretrain")
    assert "finite" in result["reason"]


def test_precisions(tiny: Callable[..., RunConfig]) -> None:
    config = tiny("bf16", precision="bf16", epochs=1, channels_last=False)
    engine.train(config)
    assert all(value.dtype != torch.bfloat16 for value in content_of(config)["model"].values())
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        engine.train(tiny("fp16", precision="fp16"))


def test_settings_that_do_not_fit(tiny: Callable[..., RunConfig]) -> None:
    with pytest.raises(UserError, match="out is not set"):
        engine.train(replace(tiny("run"), out=""))
    with pytest.raises(UserError, match="there are 24 images but batch_size is 32"):
        engine.train(tiny("run", batch_size=32))
    with pytest.raises(UserError, match="accumulate 3 does not divide the 8 images"):
        engine.train(tiny("run", accumulate=3))
    with pytest.raises(UserError, match=r"data\.root is not set"):
        engine.train(tiny("run", data=DataConfig()))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_accumulated_gradients_are_those_of_the_whole_batch(precision: str, tiny: Callable[..., RunConfig]) -> None:
    """With batch norm in evaluation mode; in training each part has statistics of its own."""
    moved = {}
    for accumulate in (1, 4):
        config = tiny(f"in{accumulate}", accumulate=accumulate, precision=precision)
        run = engine.setup(config, torch.device("cpu"))
        run.model.eval()
        values = engine.train_step(run, views(8, size=32))
        assert int(run.method.momentum_encoder.step) == 1, "the momentum encoder moves once a step, not once a part"
        moved[accumulate] = (
            values["loss"],
            torch.cat([p.grad.flatten() for p in run.method.parameters() if p.grad is not None]),
        )
    tolerance = {"fp32": 1e-5, "bf16": 0.1}[precision]
    assert torch.allclose(moved[1][0], moved[4][0], rtol=tolerance)
    assert (moved[1][1] - moved[4][1]).norm() < tolerance * moved[1][1].norm()


def test_a_broken_image_stops_a_run_that_is_told_so(tiny: Callable[..., RunConfig]) -> None:
    config = tiny("run")
    config = replace(config, data=replace(config.data, on_error="fail"))
    source = open_source(config.data.root)
    Path(source.where(7)).write_bytes(Path(source.where(7)).read_bytes()[:200])
    with pytest.raises(UserError, match=r"image .*JPEG is broken"):
        engine.train(config)
    with pytest.raises(UserError, match=r"image .*JPEG is broken"):
        engine.train(replace(config, data=replace(config.data, workers=1, cache=False)))
