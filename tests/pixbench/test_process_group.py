"""Two real processes (torchrun, gloo): when they leave their group, how long they wait, and what they must agree on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from started import finished

from pixbench.errors import UserError
from pixbench.patience import check_timeout
from pixbench.process_group import may_record, process_group

pytestmark = pytest.mark.slow

BEGIN = """
import os, sys, time
import torch, torch.distributed as dist
from pixbench.errors import OtherProcessStopped, UserError, run_command
from pixbench.process_group import AgreedStop, check_alike, ends_in_time, process_deaths_explained, process_group

RANK = int(os.environ.get("RANK", "0"))
leave = dist.destroy_process_group
dist.destroy_process_group = lambda group=None: (print(f"{RANK} leaves", flush=True), leave(group))
"""


def two(tmp_path: Path, body: str) -> tuple[int, str]:
    """Return exit code and output of two processes that do ``body`` in `run_command`."""
    script = tmp_path / "script.py"
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    script.write_text(
        f"{BEGIN}\ndef command():\n{indented}\nsys.exit(run_command(command, name='pixbench', continues=True))\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TMPDIR": str(tmp_path),
    }
    done = finished(torchrun, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_they_wait_for_three_hours_leave_together_and_stop_if_they_differ(tmp_path: Path) -> None:
    code, said = two(
        tmp_path,
        """
with process_group("cpu") as device:
    backend = dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
    print(f"{device} waits {backend.options._timeout}", flush=True)
    for _ in range(2):
        with process_group("cpu") as again:
            assert again == device
    assert dist.get_world_size() == 2
print(f"{RANK} goes on", flush=True)
with process_group("cpu"):
    check_alike("this run", {"seed": 7, "step": 100 - 50 * RANK})
""",
    )
    assert code != 0
    assert said.count("cpu waits 3:00:00") == 2
    for rank in range(2):
        assert said.count(f"{rank} leaves") >= 1
        assert said.index(f"{rank} leaves") < said.index(f"{rank} goes on")
    sentence = "pixbench: error: the processes do not agree on this run: step is 100 in process 0 and 50 in process 1; give all"
    assert said.count(sentence) == 2


def test_an_agreed_stop_waits_until_the_first_has_saved(tmp_path: Path) -> None:
    code, said = two(
        tmp_path,
        """
with process_group("cpu"):
    if RANK == 0:
        time.sleep(1)
        print("saved", flush=True)
    raise AgreedStop
""",
    )
    assert code != 0
    assert said.count("interrupted; all finished work is kept") == 2
    assert said.index("saved") < said.index("leaves")


def test_after_an_error_of_one_none_leaves_and_the_cause_is_told_apart(tmp_path: Path) -> None:
    code, said = two(
        tmp_path,
        """
def record(error):
    print(f"{RANK} records {type(error).__name__}", flush=True)

with process_group("cpu"), ends_in_time(record), process_deaths_explained():
    if RANK == 1:
        raise UserError("process 1 has had enough")
    dist.all_reduce(torch.ones(1))
""",
    )
    assert code != 0
    assert "pixbench: error: process 1 has had enough" in said
    assert "1 records UserError" in said
    assert "leaves" not in said
    assert "defect" not in said


@pytest.mark.e2e
def test_closing_that_waits_for_ever_is_cut_short(tmp_path: Path) -> None:
    code, said = two(
        tmp_path,
        """
import pixbench.process_group as module
module.CLOSING_S = 1.0
with process_group("cpu"):
    try:
        with ends_in_time(print):
            if RANK == 0:
                raise UserError("process 0 has had enough")
            time.sleep(300)
    finally:
        time.sleep(300)
""",
    )
    assert code != 0
    assert "pixbench: error: process 0 has had enough" in said


def test_one_process_needs_no_group() -> None:
    with process_group("cpu") as device:
        assert device.type == "cpu"


def test_a_process_that_has_not_joined_leaves_the_result_to_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert may_record(UserError("x"), tmp_path / "result.json")
    monkeypatch.setenv("RANK", "1")
    assert not may_record(UserError("x"), tmp_path / "result.json")


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf")])
def test_an_impossible_time_limit_is_refused(hours: float) -> None:
    with pytest.raises(UserError, match="it must be more than 0"):
        check_timeout(hours, "process_timeout")
