"""Run the study (docs/study.md) in pieces, and keep what is finished in `study/` and `zoo/`, which git tracks.

    nice -n 19 python scripts/study.py search            # start it again to go on
    python scripts/study.py finetuned frozen --jobs 1    # several parts, one after another
    python scripts/study.py search --keep                # only keep what is finished by now, also while another one runs

Backbones and ablations wait for the whole search, whose outcome is written into their suites first (docs/study.md). A row
whose results are kept is not computed again, on any machine. Rows of backbones that the zoo does not have yet wait.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from benchmarks.commands.main import main as pixbench
from benchmarks.portable import DATA, portable, portable_pretraining
from benchmarks.zoo.entry import add, finished
from pixbench.errors import UserError, run_command
from pixbench.file_versions import RESULT_FILE, ZOO_FILE
from pixbench.files import make_folder, write_text
from pixbench.paths import CONFIGS, STUDY, ZOO
from pixbench.results import read_result, rewrite_result

PARTS = {
    "search": "study_search.yaml",
    "backbones": "study_backbones.yaml",
    "finetuned": "study.yaml",
    "frozen": "study_frozen.yaml",
    "ablations": "study_ablations.yaml",
    "longer": "study_longer.yaml",
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
    world, path = world_of(suite, out), out / f"{part}.yaml"
    options = [f"--{key}={value}" for key, value in suite["mini"].items()]
    if code := pixbench(["data", "mini", "--root", str(world), *options]):
        return code
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
    return scheme != "zoo" or (ZOO / name / ZOO_FILE).is_file()


def world_of(suite: dict[str, Any], out: Path) -> Path:
    """Return the folder of the world that ``suite`` is measured in."""
    return out / f"world{suite['mini']['seed']}"


def is_kept(part: str, label: str, suite: dict[str, Any]) -> bool:
    """Return whether all results of a row are kept; raise `UserError` if one is damaged, or was made with other settings."""
    if part == "backbones":
        if not (ZOO / label).is_dir():
            return False
        kept = [ZOO / label / RESULT_FILE]
    else:
        runs = [f"{label}/{name}/seed{seed}" for name in suite["protocols"] for seed in suite.get("seeds", [0])]
        kept = [STUDY / part / "runs" / run / RESULT_FILE for run in runs]
    found = [path for path in kept if path.is_file() or part == "backbones"]
    for path in found:
        if reason := foreign(read_result(path), suite, label):
            raise UserError(f"{path} {reason}; delete its folder to run it again, or restore the suite")
    return len(found) == len(kept)


def foreign(result: dict[str, Any], suite: dict[str, Any], label: str) -> str:
    """Return how the command of a result differs from the one that ``suite`` runs for the row ``label``; "" if it does not."""
    words = result["command"]
    if result["kind"] == "pretrain":
        given = {word for word in words if word.startswith("--") and "=" in word}
        wanted = {f"--{key}={value}" for key, value in suite["rows"].get(label, {}).get("set", {}).items()}
    else:
        given = {word for option, word in pairwise(words) if option == "--set"}
        own = (suite.get("overrides") or {}).get(result["protocol"], {})
        wanted = {f"{key}={json.dumps(value)}" for key, value in own.items()}
    other = sorted(given ^ wanted)
    return f"was made with other settings than the suite has now ({', '.join(other)})" if other else ""


def keep(part: str, out: Path) -> None:
    """Keep what is finished of ``part``: backbones in the zoo, results without folders of this machine in `study/`.

    What an older version of the suite, or another one, has left in ``out`` is named and not kept.
    """
    suite, done = content(part), out.resolve() / part
    world = world_of(suite, out).resolve()

    def wrong(result: dict[str, Any], label: str, root: Path) -> str:
        elsewhere = "" if root.resolve().is_relative_to(world) else f"has its pictures from {root} instead of {world}"
        return foreign(result, suite, label) or elsewhere

    for path in results(done / "pretrain"):
        name, result = path.parent.name, finished(path.parent)
        if reason := wrong(result, name, Path(result["config"]["data"]["root"])):
            print(f"not kept: {path} {reason}")
        elif part != "backbones":
            store(path, done, portable_pretraining(result, f"study/{part}/pretrain/{name}"))
        elif not (ZOO / name).exists():
            print(f"zoo:{add(path.parent, name).name}")
    for path in results(done / "runs"):
        result = read_result(path)
        root = Path(result["data"]["root"])
        if reason := wrong(result, result["label"], root):
            print(f"not kept: {path} {reason}")
        else:
            store(path, done, portable(result, {done: f"study/{part}", root: DATA}, "transfer"))


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
