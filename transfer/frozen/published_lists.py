"""Published lists of training pictures: parts of a data set, so that runs with few labels can be compared.

`configs/frozen/lists/DATASET.txt` holds them; its first lines name the source. Each other line is a picture and a digit for each
seed: in how many of the lists of 1/8, 1/64 and 1/128 it is. Each list is a part of the larger ones.
"""

from __future__ import annotations

from pathlib import Path

from pixbench.errors import UserError
from pixbench.paths import CONFIGS

LISTS = CONFIGS / "frozen" / "lists"
FRACTIONS = (8, 64, 128)


def published_list(dataset: str, fraction: int, seed: int) -> list[str]:
    """Return the names of the pictures of the 1/``fraction`` list with ``seed``.

    Raises:
        UserError: there is no such list.
    """
    path = LISTS / f"{dataset}.txt"
    if not path.exists():
        known = ", ".join(sorted(found.stem for found in LISTS.glob("*.txt")))
        raise UserError(f"there are no published lists of {dataset} (only of {known}); set settings.fraction to 1")
    lines = [line for line in path.read_text(encoding="ascii").splitlines() if not line.startswith("#")]
    prefix, *seeds = lines[0].split()
    if fraction not in FRACTIONS or str(seed) not in seeds:
        raise UserError(
            f"there is no list of 1/{fraction} of {dataset} with seed {seed}; settings.fraction may be 1, "
            f"{', '.join(map(str, FRACTIONS))}, and settings.list_seed {', '.join(seeds)}"
        )
    least, column = 1 + FRACTIONS.index(fraction), seeds.index(str(seed))
    pairs = (line.split() for line in lines[1:])
    return [prefix.strip("-") + name for name, digits in pairs if int(digits[column]) >= least]


def own_list(path: Path) -> list[str]:
    """Return the names in a text file of one name a line.

    Raises:
        UserError: it cannot be read or is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"settings.train_list: {path} cannot be read ({error}); give a text file of one name a line"
        ) from error
    names = [line.strip() for line in lines if line.strip()]  # a name may have blanks in it
    if not names:
        raise UserError(
            f"settings.train_list: {path} is empty; give the names of pictures, one a line, without their ending"
        )
    return names
