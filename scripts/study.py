"""Run the study (docs/study.md) in pieces, and keep what is finished in `study/` and `zoo/`, which git tracks.

    nice -n 19 python scripts/study.py search            # start it again to go on
    python scripts/study.py finetuned frozen --jobs 1    # several parts, one after another
    python scripts/study.py search --keep                # only keep what is finished by now, also while another one runs

Backbones and ablations wait for the whole search, whose outcome is written into their suites first (docs/study.md). A row
whose results are kept is not computed again, on any machine. Rows of backbones that the zoo does not have yet wait.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.commands.main import main as pixbench
from benchmarks.portable import DATA, portable, portable_pretraining
from benchmarks.zoo.entry import add, finished
from pixbench.errors import UserError, run_command
from pixbench.file_versions import RESULT_FILE
from pixbench.files import make_folder, write_text
from pixbench.paths import CONFIGS, STUDY, ZOO
from pixbench.results import read_result, rewrite_result

PARTS = {
    "search": "study_search.yaml",
    "backbones": "study_backbones.yaml",
    "finetuned": "study.yaml",
    "frozen": "study_frozen.yaml",
    "ablations": "study_ablations.yaml",
}
SEARCHED = ("backbones", "ablations")
"""Parts whose optimisers the search chooses."""


def main() -> int:
    """Run the parts that the arguments name; return the largest exit code of their suites."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", metavar="PART", help=f"of {', '.join(PARTS)}; they follow in this order")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="work folder (default: runs/study)")
    parser.add_argument("--jobs", type=int, default=2, help="number of jobs at a time (default: 2)")
    parser.add_argument("--keep", action="store_true", help="run nothing, only keep what is finished")
    args = parser.parse_args()
    if unknown := [part for part in args.parts if part not in PARTS]:
        raise UserError(f"there is no part {unknown[0]!r}; choose of {', '.join(PARTS)}")
    code = 0
    for part in args.parts:
        keep(part, args.out)  # of an earlier start
        try:
            code = max(code, 0 if args.keep else run(part, args.out, args.jobs))
        finally:
            keep(part, args.out)
        if code > 1:  # stopped, or an error; 1: some jobs failed, and their rows are left for the next start
            break
    return code


def run(part: str, out: Path, jobs: int) -> int:
    """Run the rows of ``part`` that are not kept, by a suite of them alone."""
    suite = content(part)
    if part in SEARCHED and not all(is_kept("search", label, content("search")) for label in content("search")["rows"]):
        raise UserError(
            f"{part} waits for the search: run `python scripts/study.py search` to its end, then write the settings that it "
            f"chose into configs/suites/{PARTS[part]}"
        )
    left = {label: row for label, row in suite["rows"].items() if not is_kept(part, label, suite)}
    ready = {label: row for label, row in left.items() if can_start(row)}
    print(f"{part}: {len(suite['rows']) - len(left)} of {len(suite['rows'])} rows kept, {len(left) - len(ready)} wait")
    if not ready:
        return 0
    make_folder(out)
    world, path = out / f"world{suite['mini']['seed']}", out / f"{part}.yaml"
    pixbench(["data", "mini", "--root", str(world), *(f"--{key}={value}" for key, value in suite["mini"].items())])
    write_text(path, yaml.safe_dump({**suite, "rows": ready}, sort_keys=False))
    places = ["--data-root", str(world), "--out", str(out / part)]
    return pixbench(["suite", str(path), *places, "--jobs-at-a-time", str(jobs)])


def content(part: str) -> dict[str, Any]:
    """Return the suite of ``part`` as its file has it."""
    found: dict[str, Any] = yaml.safe_load((CONFIGS / "suites" / PARTS[part]).read_text(encoding="utf-8"))
    return found


def can_start(row: dict[str, Any]) -> bool:
    """Return whether the zoo has the backbone that a row starts from, if it starts from one of the zoo."""
    scheme, _, name = row.get("weights", "").partition(":")
    return scheme != "zoo" or (ZOO / name).is_dir()


def is_kept(part: str, label: str, suite: dict[str, Any]) -> bool:
    """Return whether all results of a row are kept."""
    if part == "backbones":
        return (ZOO / label).is_dir()
    runs = [f"{label}/{name}/seed{seed}" for name in suite["protocols"] for seed in suite.get("seeds", [0])]
    return all((STUDY / part / "runs" / run / RESULT_FILE).is_file() for run in runs)


def keep(part: str, out: Path) -> None:
    """Keep what is finished of ``part``: backbones in the zoo, results without folders of this machine in `study/`."""
    done = out.resolve() / part
    for path in results(done / "pretrain"):
        name = path.parent.name
        if part == "backbones":
            if not (ZOO / name).exists():
                print(f"zoo:{add(path.parent, name).name}")
            continue
        store(path, done, portable_pretraining(finished(path.parent), f"study/{part}/pretrain/{name}"))
    for path in results(done / "runs"):
        result = read_result(path)
        places = {done: f"study/{part}", Path(result["data"]["root"]): DATA}
        store(path, done, portable(result, places, "transfer"))


def results(folder: Path) -> Iterator[Path]:
    """Yield the results of finished runs below ``folder``."""
    for path in sorted(folder.rglob(RESULT_FILE)):
        if read_result(path)["status"] == "ok":
            yield path


def store(path: Path, done: Path, result: dict[str, Any]) -> None:
    """Write ``result`` to the place below `study/` that ``path`` has below ``done``, unless it is there.

    The arrays beside it are not kept, so the result does not name them either. Its settings stand beside it if it is of
    pre-training, because tables look for them there.
    """
    place = STUDY / done.name / path.relative_to(done)
    if place.exists():
        return
    make_folder(place.parent)
    if result["kind"] == "pretrain":
        write_text(place.with_name("config.yaml"), yaml.safe_dump(result["config"], sort_keys=False))
    rewrite_result(place, {key: value for key, value in result.items() if key not in ("stored", "per_image")})
    print(place.relative_to(STUDY.parent))


if __name__ == "__main__":
    sys.exit(run_command(main, name="study.py", continues=True))
