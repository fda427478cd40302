"""What a check knows of the model of a transfer job: its resolved config, and its sizes after it was built."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn, optim

from transfer.weights.spec import Spec


class Resolved(NamedTuple):
    """The config of a transfer job."""

    config: Any
    """In the framework's own type."""
    plain: dict[str, Any]
    """As plain data, the same for all jobs of a protocol that differ in seed and weights only."""
    spec: Spec
    """Backbone of the model."""
    batch: int
    """Images per iteration, of all processes."""
    iterations: int
    kept: int
    """Largest number of checkpoints at a time, with the one that is being written."""


class Built(NamedTuple):
    """Sizes of the model, in bytes."""

    state: int
    """Parameters and statistics."""
    trained: int
    """Parameters that are trained."""
    states: int
    """Number of values that the optimiser keeps for each of them."""
    activations: float | None
    """Activations of one image of training size; None if they are not known."""

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint."""
        return self.state + self.states * self.trained

    def memory(self, images: int) -> int | None:
        """Return about how many bytes a GPU needs for so many images at a time; None if that is not known."""
        if self.activations is None:
            return None
        return int(self.checkpoint + self.trained + self.activations * images)


def sizes(model: nn.Module, optimizer: Any, activations: float | None = None) -> Built:
    """Return the sizes of ``model`` and of the state of its ``optimizer``."""
    return Built(
        state=sum(x.numel() * x.element_size() for x in model.state_dict().values()),
        trained=sum(x.numel() * x.element_size() for x in model.parameters() if x.requires_grad),
        states=2 if isinstance(optimizer, optim.Adam | optim.AdamW) else 1,
        activations=activations,
    )
