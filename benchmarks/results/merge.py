"""Bring results together: copy those of other folders, and rewrite those of an older PixBench."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.results.reading import LeftOut, read_all
from pixbench.errors import UserError
from pixbench.file_versions import RESULT_SCHEMA
from pixbench.files import atomic_path
from pixbench.results import check_result, read_arrays, read_result, rewrite_result
from transfer.protocols import protocols
from transfer.run_folder import rename_from_before


@dataclass
class Merged:
    """What a merge did."""

    copied: list[Path] = field(default_factory=list)
    """New result files."""
    same: list[Path] = field(default_factory=list)
    """Results that were there already."""
    refused: list[str] = field(default_factory=list)
    """What was not copied, one sentence each."""


def merge(sources: Sequence[Path], into: Path) -> Merged:
    """Copy the results below ``sources``, with the files that belong to them, to the same places below ``into``.

    Checkpoints and logs stay where they are. Nothing is overwritten: where another result is, the new one is refused.
    """
    done = Merged()
    for source in sources:
        if not source.is_dir():
            raise UserError(f"{source} is not a folder; give folders of results")
        if into.resolve().is_relative_to(source.resolve()):  # below it, each result would count twice from now on
            raise UserError(f"{source} cannot be merged into itself; choose an --into that is not below it")
        results = read_all(source)
        done.refused += [f"{file.path} {file.reason}" for file in results.left_out]
        there = {item.result["digest"]: item.path for item in read_all(into).found} if into.is_dir() else {}
        for path, result in results.found:
            target = into / path.absolute().relative_to(source.absolute())
            if result["digest"] in there:
                done.same.append(there[result["digest"]])
            elif target.exists():
                done.refused.append(
                    f"{target} is another result than {path}; move one of them to a folder of another name"
                )
            else:
                try:
                    _copy(path, result, target)
                    done.copied.append(target)
                except UserError as error:
                    done.refused.append(str(error))
    return done


def _copy(path: Path, result: dict[str, Any], target: Path) -> None:
    for name in result.get("stored") or {}:
        read_arrays(path, result, name)  # a damaged file is no use elsewhere
        with atomic_path(target.with_name(name)) as part:
            shutil.copyfile(path.with_name(name), part)
    with atomic_path(target) as part:  # last: then all that belongs to it is there
        shutil.copyfile(path, part)


def upgrade(folders: Sequence[Path]) -> tuple[list[Path], list[LeftOut]]:
    """Rewrite the results of an older schema below ``folders``; return their paths, and the files that still cannot be used.

    A rewritten result is marked by "upgraded_from". What the older schema did not record stays unknown.
    """
    left, done = [], []
    for file in read_all(folders).left_out:
        if file.problem != "older":
            left.append(file)
            continue
        old = read_result(file.path, older=True)
        try:
            new = upgraded(old)
            check_result({**new, "schema": RESULT_SCHEMA, "digest": "0" * 64})
        except (KeyError, ValueError) as error:
            left.append(LeftOut(file.path, "older", f"cannot be upgraded ({error})"))
            continue
        rewrite_result(file.path, new)
        done.append(file.path)
    return done, left


def upgraded(old: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a result of schema 1 in the schema of today.

    Raises:
        ValueError: there is no result of its kind any more.
    """
    if old.get("kind") not in ("pretrain", "transfer", "frozen"):
        raise ValueError(f"there are no results of the kind {old.get('kind')!r} any more")
    result = {key: value for key, value in old.items() if key not in ("schema", "digest")}
    rename_from_before(result)
    if result["kind"] != "pretrain" and result["status"] == "ok":
        known = protocols().get(result.get("protocol", ""))
        result["units"] = {name: known.unit(name) if known else "%" for name in result.get("metrics") or {}}
    return {**result, "upgraded_from": old["schema"]}
