"""What follows a run step by step: its log, its checkpoints."""

from __future__ import annotations

from typing import Any

from pretrain.data.views import Views
from pretrain.run import Run


class Watcher:
    """Base class of what is called after every step of a run."""

    def after_step(self, run: Run, views: Views, values: dict[str, Any]) -> None:
        """Look at the step that ended: ``run.step`` counts it already.

        Args:
            run: the run.
            views: the batch of this process, on the CPU.
            values: what the step returns: "loss" (mean over the processes), "lr", and the other values of the method. They may
                be tensors on the device; reading one waits for the device, so do it rarely.
        """

    def close(self) -> None:
        """Finish, also after an error."""
