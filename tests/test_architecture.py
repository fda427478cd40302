"""The packages stand on one another in one direction, and no two modules need each other."""

from __future__ import annotations

import ast
import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from started import finished

ROOT = Path(__file__).parents[1]
FLOORS = (
    *("pixbench", "pretrain", "transfer", "benchmarks"),
    *("benchmarks.commands", "benchmarks.speed", "benchmarks.gpu_day"),
)
"""Each may import from itself and from those before it."""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the program by its dotted name; asked for by tests only, since every worker collects all files."""
    found = {}
    for package in ("pixbench", "pretrain", "transfer", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(name: str, tree: ast.AST) -> Iterator[str]:
    """The modules of the program that ``name`` imports, wherever in the file, for type checking too."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative imports are not used here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for full in names:
            while full and full not in modules():
                full = full.rpartition(".")[0]
            if full:
                yield full


@cache
def all_imports() -> dict[str, set[str]]:
    return {name: set(imports(name, tree)) - {name} for name, tree in modules().items()}


def floor(name: str) -> int:
    return max(number for number, prefix in enumerate(FLOORS) if f"{name}.".startswith(f"{prefix}."))


def test_no_import_leads_upwards() -> None:
    pairs = [(name, other) for name, others in all_imports().items() for other in others]
    assert [f"{name} -> {other}" for name, other in pairs if floor(other) > floor(name)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(all_imports()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_name_of_a_higher_package_is_hidden_in_a_string() -> None:
    """A module started by its name is an import too. Docstrings may mention what they like."""
    hidden = []
    for name, tree in modules().items():
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                words = [word.strip("`'\",;:()") for word in node.value.split()]
                hidden += [
                    f"{name}: {word}"
                    for word in words
                    if word in modules() and "." in word and floor(word) > floor(name)
                ]
    assert hidden == []


def test_every_module_can_be_imported_without_the_packages_above() -> None:
    """However an import is written, it fails here if it leads upwards."""
    names = {
        package: [name for name in modules() if name.split(".")[0] == package and not name.endswith("__main__")]
        for package in FLOORS[:2]
    }
    code = f"""
import importlib, sys
for name in {FLOORS[1:4]}:
    sys.modules[name] = None  # importing it is an error
for package, names in {names}.items():
    sys.modules.pop(package, None)
    for name in names:
        importlib.import_module(name)
"""
    done = finished([sys.executable, "-c", code], cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_floor_and_the_shared_packages_need_no_framework_when_imported() -> None:
    """`import pixbench.…` and `import pretrain` stay cheap: PyTorch is imported by what needs it."""
    light = ("errors", "files", "file_versions", "interrupt", "lock", "paths", "progress", "results")
    for name in [f"pixbench.{module}" for module in light] + ["pretrain", "transfer.weights"]:
        top = [node for node in modules()[name].body if isinstance(node, ast.Import | ast.ImportFrom)]
        heads = {alias.name.partition(".")[0] for node in top if isinstance(node, ast.Import) for alias in node.names}
        heads |= {str(node.module).partition(".")[0] for node in top if isinstance(node, ast.ImportFrom)}
        assert heads.isdisjoint({"torch", "torchvision", "detectron2", "mmengine", "mmseg"}), name


@pytest.mark.parametrize("package", ["pretrain", "transfer.weights"])
def test_public_names_are_the_same_for_type_checkers_and_at_run_time(package: str) -> None:
    public = importlib.import_module(package)
    (typed,) = (node for node in modules()[package].body if isinstance(node, ast.If))
    imports_ = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    assert {(node.module, alias.name) for node in imports_ for alias in node.names} == {
        (f"{package}.{module}", name) for module, names in public._MODULES.items() for name in names
    }
    assert all(hasattr(public, name) for name in public.__all__)


def test_no_two_test_files_have_one_name() -> None:
    """Pytest imports them by their names alone, and stops at the second; a run of one folder does not show it."""
    often = Counter(
        path.name for path in (ROOT / "tests").rglob("*.py") if path.name not in ("conftest.py", "__init__.py")
    )
    assert [name for name, number in often.items() if number > 1] == []
