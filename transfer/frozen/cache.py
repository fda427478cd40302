"""Keep computed features, so that a dozen protocols on one data set cost little more than one.

An entry is a folder named by the digest of all that decides its features: weights, pixels, images, files of the pictures. The
least recently used entries make room for a new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pixbench.distributed import rank
from pixbench.errors import UserError
from pixbench.files import make_folder
from pixbench.lock import owned
from transfer.frozen import features
from transfer.frozen.features import Features
from transfer.frozen.network import FrozenNetwork
from transfer.frozen.parallel import by_first
from transfer.frozen.views import Views

VERSION = 1
"""Another number when the same inputs give other features."""
PATIENCE_S = 2.0
"""Seconds between two looks at an entry that another run is computing."""


@dataclass(frozen=True)
class Cache:
    """A folder of features of at most ``limit_gb`` GB."""

    folder: Path
    limit_gb: float

    def features(self, network: FrozenNetwork, views: Views, workers: int) -> Features:
        """Return the features of ``views``, computed now or before. Every process of the group must call it.

        Raises:
            UserError: an image cannot be read, or the features are larger than the cache or the disk.
        """
        entry = self.folder / key(network, views)
        while (found := by_first(lambda: features.read(entry) is not None)) is False:
            with _turn(entry) as mine:
                if mine and by_first(lambda: features.read(entry) is None):
                    by_first(lambda: self._make_room(network, views, entry))
                    features.compute(network, views, entry, workers)
        assert found
        complete = features.read(entry)
        assert complete is not None
        by_first(lambda: os.utime(entry))  # used now
        return complete

    def _make_room(self, network: FrozenNetwork, views: Views, entry: Path) -> None:
        _, needed = features.size_of(network, views)
        if needed > self.limit_gb * 1e9:
            raise UserError(
                f"the features of {views.pictures.name} take {needed / 1e9:.1f} GB, but the cache may hold {self.limit_gb:g} GB; "
                f"give --cache-gb {needed / 1e9 + 1:.0f} or more, or a smaller images.size"
            )
        others = [path for path in self.folder.iterdir() if (path / features.VALUES).exists() and path != entry]
        held = {path: (path / features.VALUES).stat().st_size for path in others}
        for path in sorted(others, key=lambda path: ((path / features.INDEX).exists(), path.stat().st_mtime)):
            if sum(held.values()) + needed > self.limit_gb * 1e9 or not (path / features.INDEX).exists():
                with suppress(UserError), owned(path):  # no other run is computing it
                    held.pop(path)
                    shutil.rmtree(path, ignore_errors=True)  # who has mapped it keeps it


@contextmanager
def _turn(entry: Path) -> Iterator[bool]:
    """Own ``entry`` in rank 0 and yield True; after a pause False if another run owns it. All processes get the same."""
    holder = owned(entry)

    def own() -> bool:
        make_folder(entry.parent)
        try:
            holder.__enter__()
        except UserError:
            time.sleep(PATIENCE_S)
            return False
        return True

    mine = by_first(own)
    try:
        yield mine
    finally:
        if mine and rank() == 0:
            holder.__exit__(None, None, None)


def key(network: FrozenNetwork, views: Views) -> str:
    """Return the digest of all that decides the features of ``views``."""
    about = [VERSION, network.fingerprint, network.stride, views.about(), views.pictures.fingerprint()]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
