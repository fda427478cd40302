"""What tests of several packages share."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # several workers that each take all cores slow each other down
    cores = len(os.sched_getaffinity(0)) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))

os.environ["PYTHONFAULTHANDLER"] = "1"  # for `started.output`

# a shell starts background jobs without SIGINT, nohup without SIGHUP, and tests' processes would inherit it
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--screenshots", type=Path, help="folder for the pictures that tests in a browser take of the report"
    )


gc.disable()  # while tests are collected, hardly anything becomes garbage
_frozen = 0


def pytest_collection_finish() -> None:
    gc.enable()


def pytest_runtest_setup() -> None:
    """Leave what large packages brought with them out of garbage collections, which MMEngine asks for with every data set."""
    global _frozen
    if len(sys.modules) > _frozen + 500:
        gc.collect()
        gc.freeze()
        _frozen = len(sys.modules)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_checked_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let nothing that a test checks be remembered in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def mini_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the smallest mini world there is: 12 scenes in each split of ImageNet, VOC, COCO and Cityscapes."""
    from benchmarks.miniworld.generate import LEAST, World, generate

    root = tmp_path_factory.mktemp("mini") / "data"
    generate(root, World(seed=0, images=LEAST, name="shapes"), workers=1)
    return root
