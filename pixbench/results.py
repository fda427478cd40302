"""Write and read `result.json`, the result file of a run, and the arrays beside it. Each is written by an atomic rename.

docs/results.md describes the file, `pixbench.result_schema` its fields. No file that belongs to a result is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import stat
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from pixbench.errors import UserError
from pixbench.file_versions import RESULT_FILE, RESULT_SCHEMA
from pixbench.files import atomic_path, finite, sha256, write_json
from pixbench.provenance import code, host, versions
from pixbench.result_schema import ANY_RESULT, MEASURED, NUMBERS, OWN

Problem = Literal["damaged", "foreign", "older", "newer", "edited"]
"""Why a file is no result that can be used. "edited": its content is not the one that was written."""


class UnusableResult(UserError):
    """A result file cannot be used."""

    def __init__(self, path: Path, problem: Problem, reason: str, advice: str) -> None:
        super().__init__(f"{path} {reason}; {advice}")
        self.problem: Problem = problem
        self.reason = reason
        """What is wrong, to follow the name of the file."""


def config_hash(config: Any) -> str:
    """Return the SHA-256 digest of a resolved config. The order of its keys does not matter."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def digest_of(result: Mapping[str, Any]) -> str:
    """Return the SHA-256 digest of the content of a result, as JSON has it, except "digest" itself.

    It is that of compact JSON with sorted keys, so spaces and the order of keys in the file do not matter.
    """
    content = {key: value for key, value in result.items() if key != "digest"}
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def write_result(
    folder: Path, result: Mapping[str, Any], arrays: Mapping[str, Mapping[str, np.ndarray]] | None = None
) -> Path:
    """Write ``folder/result.json`` and return its path.

    Schema, digest, commit, versions, machine and command are added.

    Args:
        folder: run folder.
        result: the content; NaN and infinities become null.
        arrays: file name without ".npz" -> name -> array. These files are written first, and named with their digests.
    """
    stored = {**(result.get("stored") or {})}
    for name, content in (arrays or {}).items():
        stored[f"{name}.npz"] = write_arrays(folder / f"{name}.npz", content)
    about = {"code": code(), "versions": versions(), "host": host(), "command": sys.argv}
    rewrite_result(folder / RESULT_FILE, {**result, **({"stored": stored} if stored else {}), **about})
    return folder / RESULT_FILE


def rewrite_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write the content of a result with the digest that it has now; one of an older schema stays as it is."""
    if result.get("schema", RESULT_SCHEMA) < RESULT_SCHEMA:
        write_json(path, result)
        return
    content = {key: value for key, value in result.items() if key not in ("schema", "digest")}
    content = _printable(finite({"schema": RESULT_SCHEMA, **content}))
    read_again = msgspec.json.decode(json.dumps(content, allow_nan=False))  # what a reader computes the digest of
    write_json(path, {"schema": RESULT_SCHEMA, "digest": digest_of(read_again), **content})


def _printable(value: Any) -> Any:
    """Return ``value`` with halves of surrogate pairs escaped, which names of files may hold and JSON may not."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(part) for key, part in value.items()}
    return [_printable(part) for part in value] if isinstance(value, list) else value


def read_result(path: Path, older: bool = False) -> dict[str, Any]:
    """Read a result file, check its digest and its fields, and return its content.

    Args:
        path: the file.
        older: whether a result of an older schema is returned as it is; nothing of it is checked except that it has a status.

    Raises:
        UnusableResult: The file cannot be read, is no result, has another schema, or was changed after it was written.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
            raise UnusableResult(path, "damaged", "cannot be read (it is no file)", "remove it")
        content = path.read_bytes()
    except OSError as error:
        raise UnusableResult(
            path, "damaged", f"cannot be read ({error.strerror})", "check the file and its owner"
        ) from error
    return parse_result(path, content, older)


def parse_result(path: Path, content: bytes, older: bool = False) -> dict[str, Any]:
    """Do what `read_result` does with the ``content`` of the file at ``path``."""
    again = "restore it, or delete it and run that job again"
    try:
        result = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnusableResult(path, "damaged", f"cannot be read as a result ({error})", again) from error
    if not isinstance(result, dict) or type(schema := result.get("schema")) is not int or "status" not in result:
        raise UnusableResult(
            path, "foreign", "is not a result of PixBench", "move it elsewhere, or leave its folder out"
        )
    if schema > RESULT_SCHEMA:
        raise UnusableResult(
            path, "newer", f"has schema {schema}, and this PixBench reads {RESULT_SCHEMA}", "update PixBench"
        )
    if schema < RESULT_SCHEMA:
        if older:
            return result
        advice = "`pixbench results upgrade` rewrites what an older PixBench wrote, and marks it"
        raise UnusableResult(path, "older", f"has schema {schema} instead of {RESULT_SCHEMA}", advice)
    if result.get("digest") != digest_of(result):
        raise UnusableResult(path, "edited", "was changed after it was written: its digest no longer fits", again)
    try:
        check_result(result)
    except ValueError as error:
        raise UnusableResult(path, "damaged", f"is not a valid result ({error})", again) from error
    return result


def check_result(result: Mapping[str, Any]) -> None:
    """Raise ValueError unless ``result`` has the fields of its kind, each of its type."""
    msgspec.convert(result, ANY_RESULT)
    needed: tuple[str, ...] = MEASURED if result["status"] == "ok" else ()
    if "imported" in result or "upgraded_from" in result:
        needed = NUMBERS if needed and result["kind"] != "pretrain" else ()
    else:
        needed += OWN
    if missing := [name for name in needed if name not in result]:
        raise ValueError(f"without {', '.join(missing)}")


def per_image(path: Path, metric: str) -> dict[str, np.ndarray] | None:
    """Return the values of ``metric`` for each of the I images of a result, from which it follows for any set of images.

    Args:
        path: the `result.json`, which must be valid.
        metric: our name of the metric, a key of "metrics".

    Returns:
        None if the result has none of this metric. Otherwise "images" (I,) str, unique names, and one of the following.

        - "value" (I,): the metric is its mean; NaN for an image that is left out.
        - "intersection", "union" and "label" (I, K) in pixels, and "classes" (K,): the IoU of a class is the ratio of the sums of
          intersection and union. mIoU is the mean over the classes with a union, or, if the array "absent_counts" is true, over
          all. aAcc is the ratio of the sums of intersection and label over images and classes; mAcc is the mean over
          classes of the ratio of their sums.
        - "score", "image", "class" (D,), "right" and "ignored" (D, T) bool, "truths" (I, K), "thresholds" (T,), "classes" (K,):
          D detections with the numbers of their image and class, and whether they are matched to an object that counts, or to
          nothing that counts, at each IoU; and the number of objects that count. "rule" says how AP follows: "coco", "voc07"
          or "voc12" (`transfer.detection.matches.average_precision`).

    Raises:
        UserError: The result is not valid, or the file with the arrays is missing, damaged or not the one that was written.
    """
    result = read_result(path)
    where = (result.get("per_image") or {}).get(metric)
    if where is None:
        return None
    held = read_arrays(path, result, where["file"])
    if missing := [name for name in where["arrays"].values() if name not in held]:
        raise UserError(f"{path.parent / where['file']} has no {', '.join(missing)}; run that job again")
    return {ours: held[name] for ours, name in where["arrays"].items()}


def read_arrays(path: Path, result: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    """Return the arrays in the file ``name`` beside the ``result`` at ``path``.

    Raises:
        UserError: The file is missing, damaged, or not the one that was written with the result.
    """
    file, known = path.parent / name, (result.get("stored") or {}).get(name)
    if known is None or Path(name).name != name:
        raise UserError(f"{path} names no stored file {name}; run that job again")
    if not file.is_file():
        raise UserError(f"{file} is missing; copy it from where the run was, or run that job again")
    if sha256(file) != known["sha256"]:
        raise UserError(
            f"{file} is not the file that was written with {path.name} (another digest); run that job again"
        )
    try:
        with zipfile.ZipFile(file), np.load(file, allow_pickle=False) as content:
            return {key: content[key] for key in content.files}
    except Exception as error:  # numpy, zipfile and zlib raise many kinds at a file that somebody has made up
        raise UserError(f"{file} cannot be read ({error}); run that job again") from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Write an .npz file and return what `stored_file` says about it."""
    if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise TypeError(f"{path.name}: objects would be pickled ({', '.join(objects)})")
    with atomic_path(path) as part:
        np.savez_compressed(part, **dict(arrays))  # type: ignore[arg-type]
        return stored_file(part)


def stored_file(path: Path) -> dict[str, Any]:
    """Return what "stored" of a result says about a file: its digest and size."""
    return {"sha256": sha256(path), "bytes": path.stat().st_size}
