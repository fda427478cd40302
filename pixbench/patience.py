"""How long the processes of a run wait for one another."""

from __future__ import annotations

from pixbench.errors import UserError

PROCESS_TIMEOUT_H = 3.0
"""Hours that a process waits in an exchange. NCCL's own 10 minutes are less than an evaluation may take, which is on rank 0."""
LONGEST_TIMEOUT_H = 24 * 365


def check_timeout(hours: float, name: str) -> None:
    """Raise UserError if ``hours``, the setting ``name``, is no time limit."""
    if not 0 < hours <= LONGEST_TIMEOUT_H:
        raise UserError(f"{name} is {hours} hours; it must be more than 0 and at most {LONGEST_TIMEOUT_H}")
