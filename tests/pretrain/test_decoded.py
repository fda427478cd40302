"""Decoded images are in memory once on a machine, and nothing is left behind, however the processes end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from pixbench.errors import UserError
from pixbench.shared_memory import shared_by_machine
from pretrain.data.decoded import DecodedImages
from pretrain.data.pixels import BrokenImage

Tree = Callable[..., Path]
SIDE = 600
"""Side of an image: 1 MB of pixels."""


def decode(index: int) -> np.ndarray:
    if index == 1:
        raise BrokenImage("image 1 is broken", "it is empty")
    return np.full((SIDE + index, SIDE, 3), index, np.uint8)


def check(images: DecodedImages) -> None:
    assert [images[i].shape for i in (0, 2)] == [(SIDE, SIDE, 3), (SIDE + 2, SIDE, 3)]
    assert all((images[i] == i).all() for i in (0, 2, 3))
    assert not images[0].flags.writeable
    with pytest.raises(BrokenImage, match="image 1 is broken") as caught:
        images[1]
    assert caught.value.reason == "it is empty"


def test_in_one_process() -> None:
    check(DecodedImages(4, decode))


def mapping() -> tuple[str, int, int]:
    """Inode, size and proportional share (PSS) in bytes of the mapped images."""
    text = Path("/proc/self/smaps").read_text()
    (found,) = re.findall(
        r"^\S+ \S+ \S+ \S+ (\d+) +/memfd:pixbench-images.*\nSize: +(\d+) kB[\s\S]*?Pss: +(\d+) kB", text, re.M
    )
    inode, size, share = map(int, found)
    return str(inode), size * 1024, share * 1024


def one_of_two(index: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=index, world_size=2)
    decoded = []
    images = DecodedImages(4, lambda number: (decoded.append(number), decode(number))[1])
    check(images)
    for number in (0, 2, 3):
        images[number].sum()  # all pages are mapped
    dist.barrier()
    inode, size, share = mapping()
    (folder / f"{index}.txt").write_text(f"{inode} {size} {share} {len(decoded)}")
    dist.barrier()
    with pytest.raises(UserError if index else ValueError, match="no space"):
        shared_by_machine("pixbench-images", _fail, lambda path, made: None)
    os.environ["GROUP_RANK"] = str(index)  # as if each had a machine of its own
    assert len(DecodedImages(4, decode)._table) == 4
    dist.destroy_process_group()


def _fail(stream: object) -> None:
    raise ValueError("no space")


@pytest.mark.e2e
def test_two_processes_share_the_memory(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    first, second = ((tmp_path / f"{index}.txt").read_text().split() for index in (0, 1))
    assert first[0] == second[0], "one file in memory"
    size = int(first[1])
    assert size >= 3 * SIDE * SIDE * 3
    assert int(first[2]) + int(second[2]) <= 1.1 * size, "each page is there once"
    assert (first[3], second[3]) == ("4", "0"), "one process decodes"


@pytest.mark.slow
def test_nothing_is_left_after_a_kill() -> None:
    code = """
import time
from test_decoded import DecodedImages, decode
def slow(index):
    if index == 3:
        print("decoding", flush=True)
        time.sleep(100)
    return decode(index)
DecodedImages(4, slow)
"""
    before = {name for name in os.listdir("/dev/shm") if "pixbench" in name}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "decoding\n"
    held = Path(f"/proc/{process.pid}/fd")
    assert any("memfd:pixbench-images" in os.readlink(link) for link in held.iterdir())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.1)
    assert {name for name in os.listdir("/dev/shm") if "pixbench" in name} == before
    assert not held.exists()  # the only way to the memory; the kernel has freed it
