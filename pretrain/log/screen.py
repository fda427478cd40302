"""Show the progress of a run: a bar with a line of values below it in a terminal, otherwise two lines now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from pixbench.progress import LINE_S, screen_may_be_gone

SHOWN = {
    "loss": "loss {:.4f}",
    "lr": "lr {:.3g}",
    "momentum": "EMA {:.4f}",
    "feature_std": "feature std {:.2f}",
    "positives": "{:.1f} positives",
    "skipped": "{:.0f} skipped",
    "bad_steps": "{:.0f} bad",
}
"""Values of a step on the screen, by their name in the log; a method need not have all of them."""


class Screen:
    """Progress of a run of ``total`` steps in ``epochs`` epochs that goes on after step ``first``."""

    def __init__(self, first: int, total: int, epochs: int) -> None:
        self._total, self._epochs, self._last_line, self._aside = total, epochs, 0.0, 0.0
        self._live = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=first,
            disable=not self._live,
            dynamic_ncols=True,
            bar_format="{desc}step {n_fmt}/{total_fmt} |{bar}|{percentage:3.0f}%{postfix}, {remaining} left",
        )
        self._values = tqdm(disable=not self._live, dynamic_ncols=True, position=1, bar_format="{desc}", leave=False)

    def step(self, aside: float = 0.0) -> None:
        """Count a finished step. ``aside`` are the seconds so far that went into no step; they do not count for "left"."""
        if self._live:
            self._bar.start_t += aside - self._aside
            self._bar.last_print_t += aside - self._aside
        self._aside = aside
        with screen_may_be_gone():
            self._bar.update()

    def show(self, record: Mapping[str, float]) -> None:
        """Show the line of the log ``record``."""
        step, epoch = int(record["step"]), f"epoch {record['epoch']:.1f}/{self._epochs}, "
        waiting = f"data wait {record['data_wait']:.0%}"
        speed = f"{record['images_per_s']:.0f} img/s, {waiting}, {record['memory_gb']:.1f} GB"
        values = ", ".join(text.format(record[name]) for name, text in SHOWN.items() if name in record)
        if self._live:
            with screen_may_be_gone():
                self._bar.set_description_str(epoch, refresh=False)
                self._bar.set_postfix_str(speed, refresh=False)
                self._values.set_description_str(values)
        elif (now := time.monotonic()) - self._last_line >= LINE_S or step == self._total:
            self._last_line = now
            left = tqdm.format_interval((self._total - step) / record["steps_per_s"])
            tell(f"{epoch}step {step}/{self._total}, {speed}, {left} left\n    {values}")

    def close(self) -> None:
        """Leave the last state of the bar and the values on the screen."""
        with screen_may_be_gone():
            self._values.close()
            self._bar.close()
            if self._live and self._values.desc:
                print(self._values.desc, file=sys.stderr)


def tell(text: str) -> None:
    """Print ``text``, above the progress bar if there is one."""
    with screen_may_be_gone():
        tqdm.write(text)
        sys.stdout.flush()
