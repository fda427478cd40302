"""A backbone of the zoo: a folder that holds of its pre-training run what is small.

- `backbone.safetensors`: the backbone, and pyramid and head if it has them; as MMSegmentation or Detectron2 names them.
- `config.yaml`, `result.json`: those of the run, without the paths of its machine. Tables find settings and curve there.
- `views.npz`, if the run has kept it: what its result says it has stored.
- `SHA256SUMS`: the digests of all these, as `sha256sum -c` reads them.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.portable import portable_pretraining
from pixbench.errors import UserError, explain
from pixbench.file_versions import CHECKPOINT_FILE, RESULT_FILE, ZOO_FILE
from pixbench.files import make_folder, sha256, write_text
from pixbench.paths import ZOO
from pixbench.results import read_arrays, read_result, rewrite_result
from transfer.weights.backbone import Backbone
from transfer.weights.sources.zoo import folder_of, names_in

CONFIG = "config.yaml"
SUMS = "SHA256SUMS"
CARD = "README.md"
FILES = (ZOO_FILE, CONFIG, RESULT_FILE)
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
LINE = re.compile(r"[0-9a-f]{64}  [^/]+")
"""A line of `SUMS`."""


@dataclass(frozen=True)
class Entry:
    """A backbone of the zoo."""

    folder: Path

    @property
    def name(self) -> str:
        """What stands behind "zoo:"."""
        return self.folder.name

    @property
    def weights(self) -> Path:
        """The file with its weights."""
        return self.folder / ZOO_FILE

    @property
    def result(self) -> dict[str, Any]:
        """The result of its pre-training run; raise `UserError` if it is damaged, or is another kind of result."""
        return finished(self.folder)

    def sums(self) -> dict[str, str]:
        """Return file -> SHA-256, as recorded; raise `UserError` if the list is missing, or is none."""
        path = self.folder / SUMS
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path} cannot be read ({explain(error)}), so nothing tells what its files were"
            ) from error
        if (strange := next((line for line in lines if not LINE.fullmatch(line)), None)) is not None:
            raise UserError(f"{path} has the line {strange!r}, which is no digest with the name of a file")
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}

    def problems(self) -> list[str]:
        """Return what is wrong with its files, one sentence each: their digests, the weights and the result."""
        from transfer.weights.read_file import load

        try:
            sums = self.sums()
        except UserError as error:
            return [str(error)]
        found = []
        for name in dict.fromkeys((*FILES, *sums)):
            path = self.folder / name
            if not path.is_file():
                found.append(f"{path} is missing")
            elif name not in sums:
                found.append(f"{path} has no digest in {SUMS}")
            elif sums[name] != sha256(path):
                found.append(f"{path} is not the file that was recorded in {SUMS}")
        if not found:
            for read in (lambda: load(self.weights), lambda: self.result):
                try:
                    read()
                except UserError as error:
                    found.append(str(error))
        return found


def entries(zoo: Path = ZOO) -> list[Entry]:
    """Return the backbones of the zoo by name."""
    return [Entry(zoo / name) for name in names_in(zoo)]


def find(name: str, zoo: Path = ZOO) -> Entry:
    """Return the backbone ``name`` of the zoo; raise `UserError` if there is none."""
    return Entry(folder_of(name.removeprefix("zoo:"), zoo))


def add(run: Path, name: str, zoo: Path = ZOO) -> Entry:
    """Put the backbone of a finished pre-training run into the zoo; the folder ``zoo/name`` appears complete or not at all.

    Weights of convolutions and linear layers are rounded to half precision, vectors (norms, biases) stay as they are. What is
    read from the file are the rounded values, in float32: so they are exactly those that its numbers were measured with.

    Raises:
        UserError: the run is not finished, the name is taken or cannot name a folder, half precision cannot hold a weight, or
            a file of its result is damaged.
    """
    from transfer.weights.frameworks import express
    from transfer.weights.read_file import load
    from transfer.weights.write_file import write

    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be a name in the zoo; use small letters, digits and _ . -")
    if (zoo / name).exists():
        raise UserError(f"{zoo / name} exists already; choose another name, or delete that folder first")
    result = portable_pretraining(finished(run), f"zoo/{name}")
    backbone = load(run / CHECKPOINT_FILE)
    about = {"config_sha256": result["config_sha256"], "out": result["config"]["out"]}
    backbone = replace(backbone, pretraining={**(backbone.pretraining or {}), **about})
    framework = "detectron2_fpn" if backbone.extras else "mmseg"
    half = rounded(express(backbone, framework))
    stored = [*(result.get("stored") or {})]
    for file in stored:  # a name with folders is refused, and a damaged file is no use in the zoo
        read_arrays(run / RESULT_FILE, result, file)
    make_folder(zoo)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=zoo) as folder:
        part = Path(folder) / name  # one level deeper than backbones, so it is none as long as it is not complete
        part.mkdir()
        write(half, part / ZOO_FILE, framework)
        write_text(part / CONFIG, yaml.safe_dump(result["config"], sort_keys=False))
        rewrite_result(part / RESULT_FILE, result)
        for file in stored:
            shutil.copyfile(run / file, part / file)
        write_text(part / SUMS, "".join(f"{sha256(part / file)}  {file}\n" for file in (*FILES, *stored)))
        part.rename(zoo / name)
    return Entry(zoo / name)


def copy(entry: Entry, out: Path) -> Path:
    """Copy a backbone with all that is known of it to ``out/name``, which appears complete or not at all; return that folder.

    Raises:
        UserError: that folder exists already, or the backbone is damaged.
    """
    place = out / entry.name
    if os.path.lexists(place):
        raise UserError(f"{place} exists already; choose another --out")
    if problems := entry.problems():
        raise UserError(f"zoo:{entry.name} is damaged: {'; '.join(problems)}")
    make_folder(out)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=out) as folder:
        part = Path(folder) / entry.name
        part.mkdir()
        for file in (*entry.sums(), SUMS, CARD):
            if file != CARD or (entry.folder / file).is_file():  # a zoo of one's own may have no cards
                shutil.copyfile(entry.folder / file, part / file)
        part.rename(place)
    return place


def finished(run: Path) -> dict[str, Any]:
    """Return the result of the pre-training run in the folder ``run``; raise `UserError` if it has not ended well."""
    if not run.is_dir():
        raise UserError(f"{run} is no folder; name the folder of a finished run of `pixbench pretrain`")
    result = read_result(run / RESULT_FILE)
    if (result["kind"], result["status"]) != ("pretrain", "ok"):
        raise UserError(
            f"{run} is no finished pre-training run: its {RESULT_FILE} is of the kind {result['kind']}, with the status "
            f"{result['status']}; name the folder of a finished one"
        )
    return result


def rounded(backbone: Backbone) -> Backbone:
    """Return ``backbone`` with its matrices and kernels in half precision; raise `UserError` if one has no such value."""
    import torch

    def half(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim < 2 or not tensor.is_floating_point():
            return tensor
        if not (found := tensor.half()).isfinite().all():
            raise UserError(f"{backbone.source}: {name} has values that half precision cannot hold")
        return found

    state, extras = ({n: half(n, t) for n, t in part.items()} for part in (backbone.state, backbone.extras))
    return replace(backbone, state=state, extras=extras)
