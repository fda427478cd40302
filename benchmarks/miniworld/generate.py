"""Making a whole mini world: what it consists of, in parallel, all or nothing.

The tree grows in ``<root>.part/world`` and is moved to its place at the end. Each scene has a random state of its own, made from (seed, split,
index), so the number of workers changes nothing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.miniworld import ade20k, cityscapes, coco, imagenet, voc
from pixbench.errors import UserError
from pixbench.file_versions import MINI_WORLD_FILE, MINI_WORLD_VERSION
from pixbench.lock import OWNER, owned

IMAGES = imagenet.SPLITS["train"]
LEAST = 12  # scenes in any split, however few images are asked for
GROWING = "world"
"""Name of the folder that becomes the world once it is complete."""
WRITERS: dict[str, Any] = {
    "cityscapes": cityscapes,
    "coco": coco,
    "voc": voc,
    "ade20k": ade20k,
    "imagenet": imagenet,
}


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
    with unfinished(root) as world_folder:
        tasks = [Task(w, split, i) for w in WRITERS for split, size in world.sizes(w).items() for i in range(size)]
        records: dict[str, dict[str, list[Any]]] = {w: {split: [] for split in world.sizes(w)} for w in WRITERS}
        for task, record in zip(tasks, drawn(tasks, world_folder, world.seed, workers), strict=True):
            records[task.writer][task.split].append(record)
        coco.finish(world_folder, records["coco"])  # the folders of the others are their lists
        voc.finish(world_folder, records["voc"])
        (world_folder / MINI_WORLD_FILE).write_text(json.dumps(world.stamp(), indent=2) + "\n", encoding="utf-8")
        os.rename(world_folder, root)  # onto nothing, or onto an empty folder
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
    """Yield the empty folder in which a world grows, in a folder beside ``root`` that is ours while the block runs.

    Raises:
        UserError: what lies there was not made by this command, or another process is making this world.
    """
    part = root.with_name(f"{root.name}.part")
    found = {path.name for path in part.iterdir()} if part.is_dir() else set()
    if found and (OWNER not in found or found - {OWNER, GROWING}):
        raise UserError(f"{part} is in the way and was not made by pixbench data mini; move it, or name another --root")
    world = part / GROWING
    try:
        with owned(part):
            shutil.rmtree(world, ignore_errors=True)  # what a killed run left behind
            world.mkdir()
            try:
                yield world
            finally:
                shutil.rmtree(world, ignore_errors=True)
    finally:
        with suppress(OSError):  # another process owns it
            part.rmdir()
