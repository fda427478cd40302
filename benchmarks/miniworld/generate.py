"""Generate a mini world in parallel; its folder appears only when everything is complete.

The files are written to ``<root>.part/world``, which is moved to ``root`` at the end. Each scene has its own random
generator, seeded with (seed, split, index), so the result does not depend on the number of workers.
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
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.miniworld import ade20k, cityscapes, coco, imagenet, voc
from benchmarks.miniworld.everyday import Everyday
from benchmarks.miniworld.scene import Drawing
from benchmarks.miniworld.shapes import Shapes
from pixbench.errors import UserError
from pixbench.file_versions import MINI_WORLD_FILE, MINI_WORLD_VERSIONS
from pixbench.lock import CLAIMS, owned
from pixbench.progress import counting

IMAGES = imagenet.SPLITS["train"]
LEAST = 12  # minimum number of scenes in each split, however few images are requested
GROWING = "world"
"""Name of the folder that becomes the mini world when it is complete."""
WRITERS: dict[str, Any] = {
    "cityscapes": cityscapes,
    "coco": coco,
    "voc": voc,
    "ade20k": ade20k,
    "imagenet": imagenet,
}


@dataclass(frozen=True)
class World:
    """Settings that determine every byte of a mini world."""

    seed: int = 0
    images: int = IMAGES
    name: str = "everyday"
    """How its scenes are drawn: a key of `MINI_WORLD_VERSIONS`."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"--seed {self.seed} is negative; choose 0 or more")
        if self.images < self.least:
            raise UserError(f"--images {self.images} is too few for a mini world; choose at least {self.least}")

    @property
    def least(self) -> int:
        """Smallest number of scenes in each split."""
        return LEAST

    def writers(self) -> dict[str, Any]:
        """Return what writes the data sets, by name."""
        return WRITERS

    def sizes(self, writer: str) -> dict[str, int]:
        """Return the scene count per split: ``images`` in imagenet/train, others in proportion, minimum `LEAST`."""
        splits = WRITERS[writer].SPLITS
        return {split: max(self.least, round(size * self.images / IMAGES)) for split, size in splits.items()}

    def stamp(self) -> dict[str, Any]:
        """Return the content of `MINI_WORLD_FILE`, which identifies a complete mini world."""
        settings: dict[str, Any] = {"seed": self.seed, "images": self.images, "version": MINI_WORLD_VERSIONS[self.name]}
        if self.name != "shapes":  # which was the only one when the first stamps were written
            settings |= {"world": self.name}
        return {"made_by": "pixbench data mini", **settings, "scenes": {w: self.sizes(w) for w in self.writers()}}

    def drawing(self) -> Drawing:
        """Return how its scenes are drawn."""
        return Everyday(self.seed) if self.name == "everyday" else Shapes()


@dataclass(frozen=True)
class Task:
    """One scene to draw."""

    writer: str
    split: str
    index: int


def stream(task: Task, seed: int) -> np.random.Generator:
    """Return the random generator of one scene, which is the same in every worker and in every order."""
    split = zlib.crc32(f"{task.writer}/{task.split}".encode())
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, split, task.index])))


@cache
def drawing_of(world: World) -> Drawing:
    """Return the drawing of ``world``, once in a process: it may hold what it has computed."""
    return world.drawing()


def draw(task: Task, root: Path, world: World) -> Any:
    """Write one scene and return its record for the annotation files."""
    rng = stream(task, world.seed)
    return WRITERS[task.writer].write(drawing_of(world), root, task.split, task.index, rng)


def generate(root: Path, world: World, workers: int) -> bool:
    """Generate ``world`` at ``root``; return False if it is already there.

    Raises:
        UserError: ``root`` contains something else.
    """
    root = root.resolve()
    if is_there(root, world):
        return False
    with unfinished(root) as world_folder:
        tasks = [
            Task(w, split, i) for w in world.writers() for split, size in world.sizes(w).items() for i in range(size)
        ]
        records: dict[str, dict[str, list[Any]]] = {w: {split: [] for split in world.sizes(w)} for w in world.writers()}
        for task, record in zip(tasks, drawn(tasks, world_folder, world, workers), strict=True):
            records[task.writer][task.split].append(record)
        coco.finish(drawing_of(world), world_folder, records["coco"])  # the other data sets need no list files
        voc.finish(drawing_of(world), world_folder, records["voc"])
        (world_folder / MINI_WORLD_FILE).write_text(json.dumps(world.stamp(), indent=2) + "\n", encoding="utf-8")
        os.rename(world_folder, root)  # root does not exist or is an empty folder
    return True


def drawn(tasks: list[Task], root: Path, world: World, workers: int) -> Iterator[Any]:
    """Draw the scenes of ``tasks`` in worker processes; yield their records in order."""
    job = partial(draw, root=root, world=world)
    if workers == 1:
        yield from _counted(map(job, tasks), len(tasks))
        return
    ignore = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # only the parent process handles Ctrl-C
    context = multiprocessing.get_context("spawn")  # fork is unsafe if a library has started threads
    with ProcessPoolExecutor(workers, context, initializer=ignore) as pool:
        try:
            yield from _counted(pool.map(job, tasks, chunksize=16), len(tasks))
        except BrokenProcessPool:
            raise UserError(
                "a worker process that draws scenes was killed (out of memory?); use fewer with --workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _counted(records: Iterator[Any], total: int) -> Iterator[Any]:
    with counting(total, "mini world", "scenes") as count:
        for record in records:
            count(1)
            yield record


def is_there(root: Path, world: World) -> bool:
    """Whether ``root`` contains exactly this mini world, complete.

    Raises:
        UserError: ``root`` contains something else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not root.is_dir():
        raise UserError(f"{root} is a file; choose a new or empty folder with --root")
    stamp = root / MINI_WORLD_FILE
    try:
        found = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise UserError(
            f"{root} contains files but no mini world (no readable {MINI_WORLD_FILE}); "
            "choose a new or empty folder with --root"
        )
    if found == json.loads(json.dumps(world.stamp())):
        return True
    keys = ("seed", "images", "version", "world", "cutouts", "backgrounds")
    has, wants = ({key: stamp[key] for key in keys if key in stamp} for stamp in (found, world.stamp()))
    raise UserError(
        f"{root} contains another mini world ({has}, requested: {wants}); choose another --root or delete that folder"
    )


@contextmanager
def unfinished(root: Path) -> Iterator[Path]:
    """Yield an empty folder for the unfinished mini world; its parent, next to ``root``, is owned while the block runs.

    Raises:
        UserError: the parent has files that this command did not make, or another process is making this mini world.
    """
    part = root.with_name(f"{root.name}.part")
    found = {path.name for path in part.iterdir()} if part.is_dir() else set()
    claims = {name for name in found if fnmatch(name, CLAIMS)}
    if found and (not claims or found - claims - {GROWING}):
        raise UserError(
            f"{part} is in the way and was not made by pixbench data mini; move it or choose another --root"
        )
    world = part / GROWING
    try:
        with owned(part):
            shutil.rmtree(world, ignore_errors=True)  # left behind by a killed run
            world.mkdir()
            try:
                yield world
            finally:
                shutil.rmtree(world, ignore_errors=True)
    finally:
        with suppress(OSError):  # another process owns the folder
            part.rmdir()
