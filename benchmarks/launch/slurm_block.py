"""Find what is wrong in the ``slurm:`` block of a suite, before anything is submitted."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pixbench.errors import UserError, did_you_mean, listed

COMMANDS = ("data", "pretrain", "convert", "transfer")
"""Commands of jobs; each may have its own options in the suite's ``slurm:`` block, besides the common ones."""
TIMES = "whole minutes (1440), auto, or one of Slurm's forms: 24:00:00, 4-00, 4-00:00:00"


class Wrong(NamedTuple):
    """A mistake in the block."""

    part: str
    """Command in whose own options it is; "" for the common ones."""
    option: str
    """The option that cannot be used; "" if it is the whole part."""
    sentence: str


def minutes(given: Any) -> int | None:
    """Return the minutes of a time limit, rounded up; None if it is none.

    Besides whole numbers, all forms of sbatch's ``--time`` are read: M, M:S, H:M:S, D-H, D-H:M and D-H:M:S.
    """
    if _is_count(given):
        return int(given)
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", given.strip()) if isinstance(given, str) else None
    if not found:
        return None
    days, *parts = (int(part) if part else 0 for part in found.groups())
    if found[1] is None and found[4] is None:  # M or M:S
        parts = [0, *parts[:2]]
    hours, whole, seconds = parts
    return 60 * (24 * days + hours) + whole + math.ceil(seconds / 60) or None


def wrong(block: Mapping[str, Any]) -> list[Wrong]:
    """Return all mistakes of a ``slurm:`` block, whichever job they are about."""
    found = [*_wrong_options("", {name: value for name, value in block.items() if name not in COMMANDS})]
    for command in COMMANDS:
        own = block.get(command) or {}
        if isinstance(own, dict):
            found += _wrong_options(command, own)
        else:
            found.append(Wrong(command, "", f"{own!r} must be a mapping of options, e.g. {{time: 30}}"))
    return found


def check(block: Mapping[str, Any]) -> None:
    """Raise UserError if the block has a mistake; the message names all of them."""
    if found := wrong(block):
        said = "; ".join(f"{part}: {sentence}" if part else sentence for part, _, sentence in found)
        raise UserError(f"the suite's slurm block: {said}")


def without(block: Mapping[str, Any], mistakes: list[Wrong]) -> dict[str, Any]:
    """Return the block without the options that are wrong."""
    bad = {(part, option) for part, option, _ in mistakes}
    kept = {name: value for name, value in block.items() if name not in COMMANDS and ("", str(name)) not in bad}
    for command in COMMANDS:
        if (command, "") not in bad:
            own = (block.get(command) or {}).items()
            kept[command] = {name: value for name, value in own if (command, str(name)) not in bad}
    return kept


def _wrong_options(part: str, options: Mapping[str, Any]) -> Iterator[Wrong]:
    from submitit import SlurmExecutor

    known = SlurmExecutor._valid_parameters() | {"max_num_timeout"}
    for name, value in options.items():
        if name not in known:
            more = did_you_mean(str(name), known)
            yield Wrong(part, str(name), f"there is no option {name!r}{more} (known: {listed(sorted(known))})")
        elif value is not None and not (kind := KINDS.get(name, TEXT)).fits(value):
            yield Wrong(part, name, f"{name} is {value!r}; it must be {kind.says}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_count_or_0(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


class Kind(NamedTuple):
    """What values an option may have."""

    fits: Callable[[Any], bool]
    says: str


TEXT = Kind(lambda value: isinstance(value, str | int | float), "a text or a number")
COUNT = Kind(_is_count, "a whole number, e.g. 64")
KINDS = {
    **dict.fromkeys(("cpus_per_task", "cpus_per_gpu", "nodes", "signal_delay_s", "array_parallelism"), COUNT),
    "max_num_timeout": Kind(_is_count_or_0, "a whole number or 0"),
    "gpus_per_node": Kind(_is_count_or_0, "a number; to choose a type of GPU, use gres and --gpus-per-run"),
    "ntasks_per_node": Kind(
        lambda value: value == 1, "1: one task on each machine starts a process for each of its GPUs"
    ),
    "time": Kind(lambda value: value == "auto" or minutes(value) is not None, TIMES),
    "setup": Kind(_is_list, "a list of shell lines, e.g. [module load cuda]"),
    "teardown": Kind(_is_list, "a list of shell lines, e.g. [date]"),
    "srun_args": Kind(_is_list, "written like [--cpu-bind=none]"),
    "additional_parameters": Kind(lambda value: isinstance(value, dict), "written like {nice: 10}"),
}
"""Option -> values that it may have, where it is not just a text or a number."""
