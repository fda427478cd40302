"""Making a whole mini world: what it consists of, in parallel, all or nothing.

The tree grows in ``<root>.part`` and is renamed at the end. Each scene has a random state of its own, made from (seed, split,
index), so the number of workers changes nothing.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.miniworld import ade20k, cityscapes, coco, imagenet, voc
from pixbench.errors import UserError
from pixbench.file_versions import MINI_WORLD_FILE, MINI_WORLD_VERSION

IMAGES = imagenet.SPLITS["train"]
LEAST = 12  # scenes in any split, however few images are asked for
LOCK = "unfinished"
WRITERS: dict[str, Any] = {
    "cityscapes": cityscapes,
    "coco": coco,
    "voc": voc,
    "ade20k": ade20k,
    "imagenet": imagenet,
}
FOLDERS = ("cityscapes", "coco", "lvis", "VOC2007", "VOC2012", "ADEChallengeData2016", "imagenet")


@dataclass(frozen=True)
class World:
    """What fixes a mini world to the last byte."""

    seed: int = 0
    images: int = IMAGES
    version: int = MINI_WORLD_VERSION

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"--seed {self.seed} is negative; choose a whole number from 0 on")
        if self.images < LEAST:
            raise UserError(f"--images {self.images} is too few for a world; choose at least {LEAST}")

    def sizes(self, writer: str) -> dict[str, int]:
        """Scenes in each split: ``images`` in imagenet/train, all others in proportion, but at least `LEAST`."""
        splits = WRITERS[writer].SPLITS
        return {split: max(LEAST, round(size * self.images / IMAGES)) for split, size in splits.items()}

    def stamp(self) -> dict[str, Any]:
        return {"made_by": "pixbench data mini", **asdict(self), "scenes": {w: self.sizes(w) for w in WRITERS}}


@dataclass(frozen=True)
class Task:
    writer: str
    split: str
    index: int


def stream(task: Task, seed: int) -> np.random.Generator:
    """The random numbers of one scene, whoever draws it and when."""
    split = zlib.crc32(f"{task.writer}/{task.split}".encode())
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, split, task.index])))


def draw(task: Task, root: Path, seed: int) -> Any:
    """Write one scene and return what the annotation files need to know of it."""
    return WRITERS[task.writer].write(root, task.split, task.index, stream(task, seed))


def generate(root: Path, world: World, workers: int) -> bool:
    """Make ``world`` at ``root``; False if it is there already. Raises UserError if something else is there."""
    root = root.resolve()
    if is_there(root, world):
        return False
    with unfinished(root) as part:
        tasks = [Task(w, split, i) for w in WRITERS for split, size in world.sizes(w).items() for i in range(size)]
        records: dict[str, dict[str, list[Any]]] = {w: {split: [] for split in world.sizes(w)} for w in WRITERS}
        for task, record in zip(tasks, drawn(tasks, part, world.seed, workers), strict=True):
            records[task.writer][task.split].append(record)
        coco.finish(part, records["coco"])  # the folders of the others are their lists
        voc.finish(part, records["voc"])
        (part / MINI_WORLD_FILE).write_text(json.dumps(world.stamp(), indent=2) + "\n", encoding="utf-8")
        (part / LOCK).unlink()
        os.rename(part, root)  # onto nothing, or onto an empty folder
    return True


def drawn(tasks: list[Task], root: Path, seed: int, workers: int) -> Iterator[Any]:
    """Draw the scenes of ``tasks`` in worker processes; yields their records in order."""
    job = partial(draw, root=root, seed=seed)
    bar = partial(tqdm, total=len(tasks), desc="mini world", unit=" scenes", mininterval=1)
    if workers == 1:
        yield from bar(map(job, tasks))
        return
    ignore = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    context = multiprocessing.get_context("spawn")  # no surprises from threads that another library has started
    with ProcessPoolExecutor(workers, context, initializer=ignore) as pool:
        try:
            yield from bar(pool.map(job, tasks, chunksize=16))
        except BrokenProcessPool:
            raise UserError(
                "a worker that draws scenes was killed (out of memory?); try fewer with --workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def is_there(root: Path, world: World) -> bool:
    """Whether ``root`` holds this very world, finished."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not root.is_dir():
        raise UserError(f"{root} is a file; --root must name a folder that is to be made")
    stamp = root / MINI_WORLD_FILE
    try:
        found = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(
            f"{root} holds files, but no mini world (no readable {MINI_WORLD_FILE}); name an empty or new folder with --root"
        ) from None
    if found == json.loads(json.dumps(world.stamp())):
        return True
    has, wants = ({key: stamp.get(key) for key in ("seed", "images", "version")} for stamp in (found, world.stamp()))
    raise UserError(
        f"{root} holds another mini world ({has}, asked for {wants}); name another --root, or delete that one"
    )


@contextmanager
def unfinished(root: Path) -> Iterator[Path]:
    """The folder beside ``root`` in which a world grows, empty and ours alone; removed unless it has been renamed."""
    part = root.with_name(f"{root.name}.part")
    root.parent.mkdir(parents=True, exist_ok=True)
    lock = part / LOCK
    if part.exists() and any(part.iterdir()) and not (lock.exists() or (part / MINI_WORLD_FILE).exists()):
        raise UserError(f"{part} is in the way and was not made by pixbench data mini; move it, or name another --root")
    part.mkdir(exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is making a mini world at {root}; wait for it") from None
        clear(part)  # what a killed run left behind
        try:
            yield part
        except BaseException:
            clear(part)
            lock.unlink(missing_ok=True)
            if part.exists() and not any(part.iterdir()):
                part.rmdir()
            raise


def clear(part: Path) -> None:
    """Remove what the generator writes, and nothing else."""
    for folder in FOLDERS:
        shutil.rmtree(part / folder, ignore_errors=True)
    (part / MINI_WORLD_FILE).unlink(missing_ok=True)
    if part.exists() and (others := [path.name for path in part.iterdir() if path.name != LOCK]):
        raise UserError(
            f"{part} holds files that pixbench data mini did not write ({', '.join(others[:3])}); move them"
        )
