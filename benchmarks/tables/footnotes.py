"""Letters for what differs, one line for each, and the full list for the appendix."""

from __future__ import annotations

from benchmarks.tables.brief import brief
from benchmarks.tables.collected import Task
from benchmarks.tables.table import letter

DEVIATIONS, UNDEFINED = "Deviations from the published protocols", "Undefined numbers"
"""Headings of the footnotes."""
FULL = "--full"
APPENDIX = "All deviations"


class Footnotes:
    """Letters for sets of sentences; equal sets of one protocol get the same letter."""

    def __init__(self, scale: str) -> None:
        self.scale = scale
        self.letters: dict[tuple[str, Task, tuple[str, ...]], str] = {}

    def mark(self, task: Task, texts: tuple[str, ...], heading: str = DEVIATIONS) -> tuple[str, ...]:
        """Return the letter of ``texts``; none if there are none."""
        return (self.letters.setdefault((heading, task, texts), letter(len(self.letters))),) if texts else ()

    def sections(self) -> list[tuple[str, list[str]]]:
        """Return (heading, lines) that explain the letters, one line for each."""
        undefined = [
            f"[{name}]: {'; '.join(texts)}" for (of, _, texts), name in self.letters.items() if of == UNDEFINED
        ]
        lines = [
            f"[{name}] {task.protocol}{task.own}, {brief(task.about, self.scale, texts)}"
            for (of, task, texts), name in self.letters.items()
            if of == DEVIATIONS
        ]
        found = [(UNDEFINED, undefined), (f"{DEVIATIONS} (`pixbench table {FULL}` lists each setting)", lines)]
        return [(heading, lines) for heading, lines in found if lines]

    def appendix(self) -> list[tuple[str, list[str]]]:
        """Return all deviations word by word; one that several letters share comes once, after all of them."""
        letters: dict[str, list[str]] = {}
        for (of, _, sentences), name in self.letters.items():
            for text in sentences if of == DEVIATIONS else ():
                letters.setdefault(text, []).append(f"[{name}]")
        texts: dict[str, list[str]] = {}
        for text, found in letters.items():
            texts.setdefault(" ".join(found), []).append(text)
        lines = [f"{found}: {'; '.join(texts[found])}" for found in sorted(texts, key=lambda f: (-len(f), f))]
        return [(APPENDIX, lines)] if lines else []
