"""Imports run one way, and no file knows the machine it was written on."""

import ast
import pkgutil
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from setuptools import find_packages

import gmmlib
from tools.project import REPOSITORY

MODULES = sorted(Path(gmmlib.__file__).parent.rglob("*.py"))
# The modules that may import each of these.
HOME = {"numba": {"_compiled"}, "matplotlib": {"plotting"}}

# Put together from pieces, so that this file does not hold what it looks for.
FOLDERS = "|".join(["ho" + "me", "ro" + "ot", "Us" + "ers", "wo" + "rk"])
REGISTRIES = "|".join(["py" + "pi.org", "pythonho" + "sted.org", "np" + "mjs.org", "ana" + "conda.org"])
FORBIDDEN = {
    "a path of somebody's machine": rf"(?<![\w.~}}-])/({FOLDERS})/\w",
    "a package registry": REGISTRIES.replace(".", r"\."),
}


def imports(path):
    """Top-level names of the packages a module imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


def files():
    """Everything that is tracked or about to be; outside git, everything that is not made."""
    git = shutil.which("git")
    if git and (REPOSITORY / ".git").exists():
        command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
        return [REPOSITORY / name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()]
    made = {
        ".venv",
        "_build",
        "build",
        "dist",
        "__pycache__",
        ".git",
        ".pytest_cache",
        ".ruff_cache",
        ".hypothesis",
        "mutants",
    }
    paths = [path for path in REPOSITORY.rglob("*") if path.is_file()]
    return [path for path in paths if not made & set(path.relative_to(REPOSITORY).parts)]


def findings(text):
    """What of the forbidden a text holds."""
    return [what for what, pattern in FORBIDDEN.items() if re.search(pattern, text)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_heavy_packages_stay_in_their_module(path):
    for package in HOME.keys() & set(imports(path)):
        assert path.stem in HOME[package], f"{path.name} imports {package}; only {HOME[package]} may"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_the_library_knows_neither_tools_nor_tests_nor_the_book(path):
    assert not set(imports(path)) & {"tools", "tests", "oracles", "book"}


@pytest.mark.parametrize(
    "text", ["see /ho" + "me/me/x", '"/wo' + 'rk/a"', "from fi" + "les.pythonho" + "sted.org"]
)
def test_the_search_finds_what_it_looks_for(text):
    assert findings(text)


@pytest.mark.parametrize(
    "text", ["a/wo" + "rk/b", "../data/mnist", "homework/me", "https://example.org/ho" + "me/x"]
)
def test_the_search_leaves_other_text_alone(text):
    assert not findings(text)


def test_no_file_holds_a_machine_path_or_a_registry():
    found, searched = [], 0
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        searched += 1
        found += [f"{path.relative_to(REPOSITORY)}: {what}" for what in findings(text)]
    assert searched > 20
    assert found == []


def test_every_folder_of_the_library_is_a_package_that_a_wheel_holds():
    """So that the walks over modules, the digest of the library and a wheel see the same files."""
    folder = Path(gmmlib.__file__).parent
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    include = pyproject["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = set(find_packages(str(folder.parent), include=include))
    parts = [path.parent.relative_to(folder.parent).parts for path in MODULES]
    assert packages == {".".join(part) for part in parts}
    walked = {module.name for module in pkgutil.walk_packages(gmmlib.__path__, "gmmlib.")}
    assert len(walked) == len(MODULES) - 1  # not gmmlib itself


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_modules_and_classes_fit_on_a_few_pages(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno < 250, node.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_room_reaches_into_the_private_names_of_another(path):
    """Beside the package's own `_checks` and the like, which all rooms share."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gmmlib"):
            room = node.module.split(".")[1:2]
            own = path.relative_to(path.parents[len(path.parts) - path.parts.index("gmmlib") - 1]).parts[0:1]
            if room and room != list(own) and not room[0].startswith("_"):
                assert [a.name for a in node.names if a.name.startswith("_")] == []


# The rooms that each room may import from; all know the modules that stand beside the rooms.
MAY_IMPORT = {
    "em": set(),
    "stationary": {"em", "full"},
    "full": {"em"},
    "compose": {"em", "full", "stationary"},
    "evaluation": set(),
    "data": set(),
    "book": {"evaluation"},
    "restore": {"em", "full", "stationary", "data"},
}


def rooms_of(path):
    """The rooms a module imports from, its own left out."""
    own = path.parent.name
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gmmlib"):
            parts = node.module.split(".")[1:] or [alias.name for alias in node.names]
            yield from {part for part in parts if part in MAY_IMPORT and part != own}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_between_rooms_run_one_way(room):
    folder = Path(gmmlib.__file__).parent / room
    seen = {other for path in folder.glob("*.py") for other in rooms_of(path)}
    assert seen <= MAY_IMPORT[room]


def test_readme_has_a_line_for_each_room():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for room in MAY_IMPORT:
        assert len(re.findall(rf"^\| `gmmlib/{room}/` \|", readme, re.M)) == 1, room
    folders = {path.parent.name for path in MODULES} - {"gmmlib"}
    assert folders == set(MAY_IMPORT)
