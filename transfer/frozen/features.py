"""Compute the features of a split once, into a file that is mapped into memory.

Shapes: n images; image i has a map of h_i × w_i cells of C channels; N cells in all.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pixbench.distributed import rank, world_size
from pixbench.errors import UserError, explain
from pixbench.files import write_json
from pixbench.interrupt import shielded
from transfer.frozen.network import FrozenNetwork
from transfer.frozen.parallel import by_first, in_turns
from transfer.frozen.views import Views

VALUES, INDEX = "features.bin", "features.json"
CHECKED_AT_A_TIME = 1 << 26
"""Bytes."""
BATCH_PIXELS = 64 * 224 * 224
"""Number of pixels of a batch."""


@dataclass(frozen=True)
class Features:
    """The features of all cells of a split, image after image, each map row by row."""

    cells: Tensor
    """(N, C) float32, mapped from a file: it need not fit into memory."""
    shapes: tuple[tuple[int, int], ...]
    """h and w of each image."""
    starts: tuple[int, ...]
    """Number of the first cell of each image, and last N."""
    stride: int
    """Side of a cell in pixels."""
    computed: bool = False
    """Whether this run computed them; otherwise it found them in the cache."""
    seconds: float = 0.0
    """How long that took."""

    def __len__(self) -> int:
        return len(self.shapes)

    @property
    def channels(self) -> int:
        """C."""
        return self.cells.shape[1]

    def about(self) -> dict[str, Any]:
        """Return what the result records: bytes, where they are from, and how long that took."""
        origin = "computed" if self.computed else "cache"
        return {"bytes": self.cells.nbytes, "from": origin, "seconds": round(self.seconds, 3)}

    def __str__(self) -> str:
        how = "computed" if self.computed else "read from the cache"
        return f"{len(self):,} pictures, {in_words(self.cells.nbytes)}, {how} in {self.seconds:.1f} s"

    def map(self, index: int) -> Tensor:
        """Return the map (h, w, C) of image ``index``."""
        return self.cells[self.starts[index] : self.starts[index + 1]].view(*self.shapes[index], -1)


def read(folder: Path) -> Features | None:
    """Return the features that `compute` wrote into ``folder``; None if there are none, or they are not complete or damaged.

    Rank 0 compares them with their checksum when it sees them for the first time.
    """
    path = folder / VALUES
    try:
        about = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        shapes, channels, stride = tuple((h, w) for h, w in about["shapes"]), about["channels"], about["stride"]
        starts = (0, *accumulate(h * w for h, w in shapes))
        if path.stat().st_size != 4 * starts[-1] * channels:
            return None
        values = np.memmap(
            path, np.float32, "r+", shape=(starts[-1], channels)
        )  # nothing writes; torch wants it writable
        if rank() == 0 and not _is_sound(path, values, about["crc32"]):
            return None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return Features(torch.from_numpy(values), shapes, starts, stride)


def remove(folder: Path) -> None:
    """Remove features from ``folder``: first the index, so that no accident leaves one without its values."""
    for name in (INDEX, VALUES):
        (folder / name).unlink(missing_ok=True)


def _is_sound(path: Path, values: np.ndarray, checksum: int) -> bool:
    state = path, path.stat().st_mtime_ns, checksum
    if state not in _seen and _checksum(values) == checksum:
        _seen.add(state)
    return state in _seen


_seen: set[tuple[Path, int, int]] = set()
"""Files that this process has compared with their checksums: path, time of the last change, checksum."""


def _checksum(values: np.ndarray) -> int:
    found, rows = 0, max(1, CHECKED_AT_A_TIME // max(1, values[:1].nbytes))
    for first in range(0, len(values), rows):
        found = zlib.crc32(values[first : first + rows].data, found)
    return found


def in_words(size: float) -> str:
    """Return a number of bytes as GB or, if it is small, as MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def size_of(network: FrozenNetwork, views: Views) -> tuple[list[tuple[int, int]], int]:
    """Return the shapes of the maps of ``views``, and the number of bytes of all features."""
    shapes = [network.shape(*views.shape(index)) for index in range(len(views))]
    if views.images.pool:
        shapes = [(1, 1, channels) for _, _, channels in shapes]
    return [(h, w) for h, w, _ in shapes], 4 * sum(h * w * c for h, w, c in shapes)


def compute(network: FrozenNetwork, views: Views, folder: Path, workers: int) -> None:
    """Compute the features of ``views`` into ``folder``, which exists. Every process must call it and does its share.

    The room for all of them is taken first, so a full disk is found before anything is computed. `read` finds them once they are
    complete.

    Raises:
        UserError: an image cannot be read, in any of the processes, or there is no room.
    """
    path = folder / VALUES
    shapes, total = by_first(lambda: _take_room(network, views, path))
    starts = [0, *accumulate(h * w for h, w in shapes)]
    channels = total // 4 // max(1, starts[-1])
    values = np.memmap(path, np.float32, "r+", shape=(starts[-1], channels))
    batches = _batches(views)
    mine = batches[rank() :: world_size()]
    with torch.inference_mode():
        cells = _cells(network, views, loader(views, mine, _stacked, workers, network.device))
        for batch, found in zip([*mine, None], in_turns(cells, len(batches)), strict=False):
            if found is not None and batch is not None:
                values[starts[batch[0]] : starts[batch[-1] + 1]] = found
    values.flush()
    by_first(
        lambda: write_json(
            folder / INDEX,
            {"shapes": shapes, "channels": channels, "stride": network.stride, "crc32": _checksum(values)},
        )
    )


def _cells(network: FrozenNetwork, views: Views, batches: Iterable[Tensor | UserError]) -> Iterator[Any]:
    """Yield the cells (N, C) of each of ``batches`` (B, 3, H, W) as an array, or an error."""
    for images in batches:
        if isinstance(images, UserError):
            yield images
            continue
        maps = network(images)
        found = (maps.mean((1, 2)) if views.images.pool else maps.flatten(0, 2)).float().cpu()
        if found.isfinite().all():
            yield found.numpy()
        else:
            yield UserError(
                f"the features of {views.pictures.name} hold values that are not finite (NaN or infinity); look at the weights "
                "of the backbone"
            )


def _take_room(network: FrozenNetwork, views: Views, path: Path) -> tuple[list[tuple[int, int]], int]:
    shapes, total = size_of(network, views)
    try:
        with open(path, "wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, total)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise UserError(
            f"{path.parent} has no room for the features of {views.pictures.name}, {in_words(total)} ({explain(error)}); give "
            "a folder on a larger disk with --cache, or a smaller images.size"
        ) from error
    return shapes, total


def _batches(views: Views) -> list[list[int]]:
    """Return indices of neighbouring images of one shape, as many as `BATCH_PIXELS` allow."""
    batches = []
    for (height, width), group in groupby(range(len(views)), key=views.shape):
        some, most = list(group), max(1, BATCH_PIXELS // (height * width))
        batches += [some[first : first + most] for first in range(0, len(some), most)]
    return batches


def loader(
    dataset: Dataset[Any],
    batches: Sequence[Sequence[int]],
    collate: Callable[[list[Any]], Any],
    workers: int,
    device: torch.device,
) -> DataLoader[Any]:
    """Return a loader of ``batches`` of indices. What cannot be read is a `UserError` among the items that ``collate`` gets."""
    return shielded(
        DataLoader(
            _Attempts(dataset),
            batch_sampler=batches,  # type: ignore[arg-type]
            collate_fn=collate,
            num_workers=min(workers, len(batches)),
            pin_memory=device.type == "cuda",
        )
    )


class _Attempts(Dataset[Any]):
    """The items of ``dataset``. An error is returned, because a raised one would get the traceback of a worker."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __getitem__(self, index: int) -> Any:
        try:
            return self._dataset[index]
        except (UserError, OSError) as error:
            return UserError(explain(error))


def _stacked(images: list[Tensor | UserError]) -> Tensor | UserError:
    """Return the images as one tensor (B, 3, H, W), or the first error."""
    return next((image for image in images if isinstance(image, UserError)), None) or torch.stack(images)  # type: ignore[arg-type]


def cores() -> int:
    """Return the number of cores that this process may use: an equal share for each that torchrun started on this machine."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
