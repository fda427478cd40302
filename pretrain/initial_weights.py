"""Weights that a run starts from (`init_from`). Who starts the run has read them: `pixbench pretrain` reads every format."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from pixbench.errors import UserError, an
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.named_spec import NamedSpec


@dataclass(frozen=True)
class InitialWeights:
    """Weights of a backbone, with the names, shapes and types of ``build_backbone(spec).state_dict()``."""

    source: str
    """Path or name that the user gave."""
    sha256: str
    """Digest of the file or files."""
    spec: BackboneSpec | NamedSpec
    state: Mapping[str, Tensor]
    left_out: str = ""
    """What else is in the file and is not used, e.g. "feature pyramid"; empty if there is nothing."""

    def record(self) -> dict[str, str]:
        """Return source and digest as plain data, for the checkpoint."""
        return {"source": self.source, "sha256": self.sha256}

    def __str__(self) -> str:
        ignored = f"; its {self.left_out} is not used" if self.left_out else ""
        return f"starting from {self.source} ({self.spec.title}; sha256 {self.sha256[:12]}){ignored}"


def check_backbone(initial: InitialWeights, wanted: BackboneSpec | NamedSpec) -> None:
    """Check that the weights are those of the backbone ``wanted``; its output stride may be another one.

    Raises:
        UserError: They are not. The message names the settings to give.
    """
    held, asked = ({"name": "resnet", **asdict(spec)} for spec in (initial.spec, wanted))
    differing = [name for name in held if held[name] != asked.get(name) and name != "output_stride"]
    if "name" in differing:
        differing = [name for name in differing if name in ("name", "options")]
    if differing:
        if "stem" in differing:
            differing.append("output_stride")
        options = " ".join(f"--backbone.{name} {_word(held[name])}" for name in differing)
        raise UserError(
            f"init_from {initial.source} holds {an(initial.spec.title)}, but the run has {an(wanted.title)}; give {options}, or "
            "choose other weights"
        )


def _word(value: object) -> str:
    """Return ``value`` as a word of the command line."""
    word = json.dumps(value) if isinstance(value, bool | dict) else str(value)
    return shlex.quote(word)


def require(init_from: str, initial: InitialWeights | None) -> None:
    """Check that the weights ``init_from`` were read, if there are to be any.

    Raises:
        UserError: They were not. The message names the command that reads them.
    """
    if init_from and initial is None:
        raise UserError(
            f"init_from is {init_from}, but python -m pretrain reads no weights; start the same run with pixbench pretrain, "
            "with several processes: torchrun --nproc_per_node 8 --no-python pixbench pretrain ..."
        )
