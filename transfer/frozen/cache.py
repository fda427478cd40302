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
from dataclasses import dataclass, replace
from pathlib import Path

from pixbench.distributed import any_process, rank
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
        """Return the features of ``views``, computed now or before, and say which. Every process of the group must call it.

        Raises:
            UserError: an image cannot be read, or the features are larger than the cache or the disk.
        """
        start, computed = time.monotonic(), False
        entry = by_first(lambda: self.folder / key(network, views))
        while True:
            found = features.read(entry)
            if not any_process(found is None)[0]:  # another run may remove it, but not from who has mapped it
                assert found is not None
                _touch(entry)
                return replace(found, computed=computed, seconds=time.monotonic() - start)
            with _turn(entry) as mine:
                if mine and by_first(lambda: features.read(entry) is None):
                    self._compute(network, views, entry, workers)
                    computed = True

    def _compute(self, network: FrozenNetwork, views: Views, entry: Path, workers: int) -> None:
        """Make room for ``entry`` and compute it; nothing of it is left after an error."""
        by_first(lambda: features.remove(entry))  # of a run that was killed, or damaged
        by_first(lambda: self._make_room(network, views, entry))
        try:
            features.compute(network, views, entry, workers)
        except BaseException:
            if rank() == 0:
                features.remove(entry)
            raise

    def _make_room(self, network: FrozenNetwork, views: Views, entry: Path) -> None:
        """Remove other entries until there is room; wait for those that other runs are computing."""
        _, needed = features.size_of(network, views)
        if needed > self.limit_gb * 1e9:
            limit, enough = features.in_words(self.limit_gb * 1e9), float(f"{1.1 * needed / 1e9:.2g}")
            raise UserError(
                f"the features of {views.pictures.name} take {features.in_words(needed)}, but the cache may hold {limit}; give "
                f"--cache-gb {enough:g} or more, or a smaller images.size"
            )
        while self._held(needed, entry) + needed > self.limit_gb * 1e9:
            time.sleep(PATIENCE_S)

    def _held(self, needed: int, entry: Path) -> int:
        """Remove what no run completes and then the least recently used, as far as needed; return the bytes of the rest."""
        held = {path: size for path in self.folder.iterdir() if path != entry and (size := _size(path)) is not None}
        for path in sorted(held, key=_last_use):
            if sum(held.values()) + needed > self.limit_gb * 1e9 or not (path / features.INDEX).exists():
                with suppress(UserError), owned(path):  # no other run is computing it
                    held.pop(path)
                    features.remove(path)  # who has mapped it keeps it
                    shutil.rmtree(path, ignore_errors=True)
        return sum(held.values())


def _size(entry: Path) -> int | None:
    """Return the bytes of the features of an entry; None if there are none (any more)."""
    try:
        return (entry / features.VALUES).stat().st_size
    except OSError:
        return None


def _last_use(entry: Path) -> tuple[bool, float]:
    """Return whether an entry is complete, and when it was used last; an index that is gone counts as never used."""
    try:
        return True, (entry / features.INDEX).stat().st_mtime
    except OSError:
        return False, 0.0


def _touch(entry: Path) -> None:
    """Note that an entry is used now."""
    if rank() == 0:
        with suppress(OSError):  # it may be gone, or the disk may not be ours
            os.utime(entry / features.INDEX)


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
            with suppress(OSError):
                entry.rmdir()  # nothing was computed


def key(network: FrozenNetwork, views: Views) -> str:
    """Return the digest of all that decides the features of ``views``."""
    about = [VERSION, network.fingerprint, network.stride, views.about(), views.pictures.fingerprint()]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
