"""The run folder: it belongs to one job and ends with one result. Of several processes only rank 0 writes to it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixbench.errors import UserError
from pixbench.file_versions import RESULT_FILE
from pixbench.files import write_json
from pixbench.lock import owned
from pixbench.progress import PROGRESS
from pixbench.provenance import now
from pixbench.results import read_result, write_result
from pixbench.usage import Usage

JOB = "job.json"
"""File that identifies the job of a run folder. Once a job has trained in a folder, no other job can use it."""
EVERY_RUN = re.compile(
    r"(checkpoints?|ckpts?|last|latest|best|final|model|backbone|weights|pytorch_model|state_dict|earlier)([_.-](\w*\d+|last|latest|best|final))?"
)
"""Names of weight files, and of their folders, that do not tell one run from another."""
RECORDED_LATER = ("content of files",)
"""Entries that the file of an older run does not have; such a run counts as the same."""


def claim(out: Path, identity: dict[str, Any]) -> bool:
    """Record in ``out`` the ``identity`` of its job; return whether the same identity was recorded before.

    A job that has not trained yet, for example because of a mistyped setting, is replaced.

    Raises:
        UserError: another job has trained in ``out``, or ``out`` holds files that are not from a run.
    """
    path = out / JOB
    if not is_main():
        return path.exists()
    if path.exists():
        try:
            other = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} cannot be read ({error}); choose another --out or remove that folder") from error
        rename_from_before(other)
        other = {key: identity[key] for key in RECORDED_LATER if key in identity} | other
        differ = [key for key in identity if other.get(key) != identity[key]]
        if differ and _trained(out):
            what = "; ".join(f"{key} {_difference(other.get(key), identity[key])}" for key in differ)
            raise UserError(f"{out} belongs to another run ({what}); choose another --out or remove that folder")
        if differ:
            with owned(out):  # fails while that job is running
                write_json(path, identity)
                (out / PROGRESS).unlink(missing_ok=True)
        return not differ
    if out.is_dir() and any(not path.match("log.rank*.txt") for path in out.iterdir()):  # another rank may be faster
        raise UserError(f"{out} is not empty and is not a run folder; choose another --out")
    write_json(path, identity)
    return False


def rename_from_before(record: dict[str, Any]) -> None:
    """Give the identity or the result of a run of before version 0.2 the names of today."""
    if record.get("freeze") == "trunk":
        record["freeze"] = "backbone"


def _trained(out: Path) -> bool:
    """Return whether ``out`` has a complete checkpoint of either framework or a result with status "ok"."""
    result = out / RESULT_FILE
    return any(out.glob("[!.]*.pth")) or (result.exists() and read_result(result, older=True)["status"] == "ok")


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        pairs = {key: (short(before.get(key, "not set")), short(now.get(key, "not set"))) for key in keys}
        return ", ".join(f"{key} was {then}, now {today}" for key, (then, today) in pairs.items())
    return f"was {short(before)}, now {short(now)}"


def short(value: Any) -> str:
    """Return ``value`` as text; of a SHA-256 digest, only the beginning."""
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def row_of(result: dict[str, Any]) -> str:
    """Return the name of the table row that a result belongs to: its label, or the name of what it started from.

    A name that files of every run have, such as "checkpoint.pth", says nothing: then it is the name of the folder.
    """
    if found := result.get("label"):
        return str(found)
    path = Path((result.get("weights") or {}).get("path", ""))
    if not EVERY_RUN.fullmatch(path.stem):
        return str(result["init"])
    folders = [name for name in path.parts[-2::-1] if not EVERY_RUN.fullmatch(name) and name not in ("/", "..", "")]
    return folders[0] if folders else str(result["init"])


def finished_result(out: Path) -> dict[str, Any] | None:
    """Return the result with status "ok", or None. Remove the result of a failed run, which will be tried again."""
    path = out / RESULT_FILE
    try:
        result = read_result(path, older=True) if path.exists() else {"status": ""}
    except UserError:
        if is_main() or path.exists():
            raise
        return None  # rank 0 has just removed it
    if result["status"] == "ok":
        return result
    if is_main():
        path.unlink(missing_ok=True)
    return None


def close(
    out: Path, result: dict[str, Any], usage: Usage, arrays: Mapping[str, Mapping[str, np.ndarray]] | None = None
) -> dict[str, Any]:
    """Add end time, duration and ``usage`` to ``result``; write it to ``out`` with the ``arrays`` beside it; return it."""
    found = usage.stop()
    result |= {"finished": now(), "wall_time_s": usage.seconds, "usage": found}
    write_result(out, result, arrays)
    return read_result(out / RESULT_FILE)


def is_main() -> bool:
    """Return whether this process is rank 0."""
    return int(os.environ.get("RANK", 0)) == 0
