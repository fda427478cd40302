"""The broken images of a run: counted, shown, and listed in its folder. The list in the checkpoint is the one that counts."""

from __future__ import annotations

from pixbench.errors import UserError, printable
from pixbench.file_versions import SKIPPED_LIST
from pixbench.files import write_text
from pretrain.data.broken import broken_line
from pretrain.log.screen import tell
from pretrain.run import Run

SHOWN = 10
"""Number of broken images that are shown one by one."""


def skip(run: Run, found: dict[int, str], replaced: bool, writes: bool) -> None:
    """Note the broken images ``found`` (index -> what is wrong) of a batch, the same in all processes.

    Args:
        run: the run.
        found: the broken images.
        replaced: whether others could be taken for them.
        writes: whether this process shows and lists them.

    Raises:
        UserError: More images are broken than the run allows.
    """
    new = {index: reason for index, reason in found.items() if index not in run.skipped}
    if not new and replaced:
        return
    shown = SHOWN - len(run.skipped)
    run.skipped |= new
    if writes:
        with open(run.out / SKIPPED_LIST, "a", encoding="ascii") as stream:
            stream.write(_lines(run, new))
        for index, reason in [*new.items()][: max(0, shown)]:
            tell(f"image {printable(run.source.where(index))} is skipped ({printable(reason)})")
        if 0 <= shown < len(new):
            tell(f"further broken images are listed in {run.out / SKIPPED_LIST} only")
    most, count = run.config.data.most_skipped(len(run.source)), len(run.skipped)
    if count > most or not replaced:
        listed = [
            f"{printable(run.source.where(index))} ({printable(reason)})"
            for index, reason in [*run.skipped.items()][:3]
        ]
        rest = ", ..." if count > 3 else ""
        raise UserError(
            f"{count} of {len(run.source)} images are broken, more than data.max_skipped {run.config.data.max_skipped:g} allows: "
            f"{', '.join(listed)}{rest}; {run.out / SKIPPED_LIST} lists those met so far: replace or delete them, or raise "
            "data.max_skipped, then start again"
        )


def write_skipped(run: Run) -> None:
    """Write the list of the broken images that the checkpoint knows. Without any, there is no file."""
    path = run.out / SKIPPED_LIST
    if run.skipped:
        write_text(path, _lines(run, run.skipped))
    else:
        path.unlink(missing_ok=True)


def _lines(run: Run, skipped: dict[int, str]) -> str:
    return "".join(f"{broken_line(run.source.names[index], reason)}\n" for index, reason in skipped.items())
