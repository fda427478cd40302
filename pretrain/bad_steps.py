"""Count the steps that were skipped because their loss was not finite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class BadSteps:
    """How many steps were skipped. The counts are saved in the checkpoint, so a run that is continued counts on.

    Every process counts the same, because the loss is the mean over the processes.
    """

    most: int
    """Number of bad steps in a row with which a run still goes on."""
    total: int = 0
    in_a_row: int = 0
    """Number of bad steps up to the last finished step; 0 if that one was good."""

    def count(self, bad: bool) -> None:
        """Count one more finished step."""
        self.in_a_row = self.in_a_row + 1 if bad else 0
        self.total += bad

    @property
    def too_many(self) -> bool:
        """Whether the run must stop."""
        return self.in_a_row > self.most

    def before_the_row(self) -> BadSteps:
        """Return the counts as they were before the present row of bad steps."""
        return BadSteps(self.most, self.total - self.in_a_row)

    def state(self) -> dict[str, int]:
        """Return what a checkpoint holds."""
        return {"total": self.total, "in_a_row": self.in_a_row}
