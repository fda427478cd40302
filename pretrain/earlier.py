"""The newest checkpoints of a run, and which of them it goes on from.

    OUT/checkpoint.pth                            the newest one
    OUT/earlier/checkpoint_step000001000.pth      those before it, `keep_last` - 1 of them

The folder of the earlier ones keeps them apart for all who look for *the* checkpoint of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixbench.distributed import from_first, rank
from pixbench.errors import UserError, explain
from pixbench.file_versions import CHECKPOINT_FILE, EARLIER_FOLDER
from pixbench.files import make_folder
from pretrain import checkpoint

DAMAGED = f"{CHECKPOINT_FILE}.damaged"
"""Name that a damaged newest checkpoint gets when the one before takes its place."""


@dataclass
class Found:
    """A checkpoint to go on from."""

    path: Path
    content: dict[str, Any]
    note: str = ""
    """What to tell the user if it is not the newest one."""


def name_of(step: int) -> str:
    """Return the name that the checkpoint after ``step`` steps has in the folder of the earlier ones."""
    return f"{Path(CHECKPOINT_FILE).stem}_step{step:09}.pth"


def earlier(folder: Path) -> list[Path]:
    """Return the paths of the earlier checkpoints in the run folder ``folder``, the newest first."""
    return sorted((folder / EARLIER_FOLDER).glob(f"{Path(CHECKPOINT_FILE).stem}_step*.pth"), reverse=True)


def find(folder: Path) -> Found | None:
    """Return the newest checkpoint of the run in ``folder`` that is not damaged; None if there is none at all.

    With several processes, the first one decides, and all return the same one.

    Raises:
        UserError: All checkpoints are damaged, or the newest one is missing or not of this project.
    """
    found, problem = None, ""
    if rank() == 0:
        try:
            found = _find(folder)
        except (UserError, OSError) as error:
            problem = explain(error)
    path, note, problem = from_first((found and found.path, found and found.note, problem))
    if problem:
        raise UserError(problem)
    if path is not None and found is None:
        found = Found(path, checkpoint.load(path), note)
    return found


def _find(folder: Path) -> Found | None:
    newest, before = folder / CHECKPOINT_FILE, earlier(folder)
    if not newest.exists():
        if before:
            raise UserError(
                f"{newest} is missing, but {before[0]} is there; copy that one to {newest} to go on from it, or delete the "
                f"folder {before[0].parent} to start from the beginning"
            )
        return None
    try:
        return Found(newest, checkpoint.load(newest, verify=True))
    except checkpoint.DamagedError as error:
        for path in before:
            try:
                content = checkpoint.load(path, verify=True)
            except checkpoint.DamagedError:
                continue
            note = (
                f"{newest} is damaged ({error.reason}), so the run goes on from the one before, {path}, after step "
                f"{content['step']}; the damaged file is kept as {DAMAGED}"
            )
            return Found(path, content, note)
        raise


def put_back(folder: Path, path: Path) -> None:
    """Let the earlier checkpoint ``path`` take the place of the damaged newest one in ``folder``, which gets another name.

    At no moment is there no newest checkpoint, unless there is a folder in its place.
    """
    newest = folder / CHECKPOINT_FILE
    if newest.is_dir():
        newest.rename(newest.with_name(DAMAGED))
    else:
        checkpoint.keep(newest, newest.with_name(DAMAGED))
    checkpoint.keep(path, newest)


def save(path: Path, content: dict[str, Any], keep_last: int, before: int | None) -> None:
    """Write ``content`` to ``path`` as `checkpoint.save`, and keep the ``keep_last`` - 1 checkpoints before it.

    Args:
        path: path of the newest checkpoint.
        content: what it will hold.
        keep_last: number of checkpoints to have, with the new one.
        before: number of steps after which the checkpoint that is now at ``path`` was written; None if there is none.

    Raises:
        UserError: As `checkpoint.save`.
    """
    folder = path.parent / EARLIER_FOLDER
    if keep_last > 1 and before is not None and path.exists():
        checkpoint.keep(path, make_folder(folder) / name_of(before))
    checkpoint.save(path, content)
    older = [other for other in earlier(path.parent) if other.name < name_of(content["step"])]
    for other in set(earlier(path.parent)) - set(older[: keep_last - 1]):
        other.unlink(missing_ok=True)
