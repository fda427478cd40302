"""Find the broken images of a source before a run meets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from pixbench.errors import UserError, worker_deaths_explained
from pixbench.interrupt import shielded
from pretrain.data.pixels import BrokenImage
from pretrain.data.sources import Source
from pretrain.data.two_views import BACKENDS, Backend

BATCH = 16
"""Number of images that a worker decodes before it reports."""


def broken_line(name: str, reason: str) -> str:
    """Return the line of a broken image in a list: its name, a tab, what is wrong with it.

    What is not printable ASCII is escaped as in Python.
    """
    return "\t".join(text.encode("unicode_escape").decode() for text in (name, reason))


def reasons(source: Source, backend: Backend, workers: int) -> Iterator[str]:
    """Decode every image of ``source`` as training does, and yield what is wrong with each, in their order; "" if it is good.

    Args:
        source: the images, with the range of pixel values if it is known.
        backend: library that decodes.
        workers: number of processes.

    Raises:
        UserError: An archive is gone or changed, or a worker died.
    """
    loader: DataLoader[Any] = DataLoader(
        _Reasons(source, backend), batch_size=BATCH, num_workers=workers, collate_fn=list
    )
    with worker_deaths_explained():
        for batch in shielded(loader):
            for found in batch:
                if isinstance(found, UserError):
                    raise found
                yield found


class _Reasons(Dataset[Any]):
    """What is wrong with each image. An error that is not about one image is returned, see `TwoViews`."""

    def __init__(self, source: Source, backend: Backend) -> None:
        self._source, self._load = source, BACKENDS[backend].load

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> str | UserError:
        try:
            data = self._source.read(index)
        except BrokenImage as error:
            return error.reason
        except UserError as error:
            return error
        try:
            self._load(data, self._source.where(index), self._source.pixel_range)
        except BrokenImage as error:
            return error.reason
        except UserError as error:  # without a range of pixel values it would end a run
            return str(error)
        return ""
