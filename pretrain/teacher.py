"""Teachers of distillation: the network of an earlier run, which a run reads at its start and keeps in its own checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pixbench.errors import UserError
from pixbench.files import sha256
from pretrain import checkpoint
from pretrain.config import from_dict
from pretrain.methods.base import Method
from pretrain.methods.cds import CDS
from pretrain.models.families import build_backbone


@dataclass(frozen=True)
class Teacher:
    """A network of method cds: backbone, projection heads and classifier."""

    source: str
    """Path that the user gave."""
    sha256: str
    """Digest of the file."""
    config: dict[str, Any]
    """Settings of its run."""
    state: Mapping[str, Tensor] | None = None
    """State of its method; None where it is loaded later, or not needed."""

    def record(self) -> dict[str, Any]:
        """Return all but the weights as plain data, for the checkpoint."""
        return {"source": self.source, "sha256": self.sha256, "config": self.config}

    def __str__(self) -> str:
        return f"teacher: {self.source} ({from_dict(self.config).backbone.title}; sha256 {self.sha256[:12]})"


def find_teacher(settings: Any, record: dict[str, Any] | None = None) -> Teacher | None:
    """Return the teacher that the ``settings`` of a method name; None if they name none.

    ``record`` is that of a run that is continued: then the file is not read again, because its checkpoint holds the weights.

    Raises:
        UserError: The file is not there, or is not a checkpoint of cds with the same number of classes.
    """
    source: str = getattr(settings, "teacher", "")
    if not source:
        return None
    if record is not None:
        return Teacher(**record)
    path = Path(source).expanduser()
    needed = "a teacher is the checkpoint.pth of a run of cds, which holds its heads too"
    if not path.is_file():
        raise UserError(f"method.teacher is {source}, but there is no such file; {needed}")
    try:
        content = checkpoint.load(path, verify=True)
    except UserError as error:
        why = getattr(error, "reason", "it is of another kind or version")
        raise UserError(f"method.teacher {source} cannot be read ({why}); {needed}") from error
    if content["method"] != "cds":
        raise UserError(f"method.teacher {source} is of a run of {content['method']}; {needed}")
    if (classes := content["config"]["method"]["classes"]) != settings.classes:
        raise UserError(
            f"method.teacher {source} has {classes} classes, but method.classes is {settings.classes}; choose a teacher of the "
            "same classes"
        )
    return Teacher(source, sha256(path), content["config"], content["model"])


def add_teacher(method: Method, teacher: Teacher | None) -> None:
    """Give ``method`` its ``teacher``, if there is one."""
    if teacher is None or not isinstance(method, CDS):
        return
    config = from_dict(teacher.config)
    network = CDS(build_backbone(config.backbone), replace(config.method.settings, teacher=""), total_steps=1)
    if teacher.state is not None:  # a teacher that had one itself holds more than this
        network.load_state_dict({name: teacher.state[name] for name in network.state_dict()})
    method.take_teacher(network)
