"""environment.yml, pyproject.toml and requirements.lock say the same thing."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import gmmlib
from tools import bootstrap
from tools.project import REPOSITORY

LOCK = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = sorted(
    {
        *PROJECT["dependencies"],
        *(r for extra in EXTRAS.values() for r in extra if not r.startswith("gmmlib[")),
    }
)


def locked():
    """Each entry of the lock: its requirement and the number of its hashes."""
    for entry in LOCK.replace("\\\n", " ").splitlines():
        if entry.strip():
            requirement, *hashes = entry.split("--hash=")
            yield Requirement(requirement.strip()), len(hashes)


# The versions of Python that the tests run on, and that the lock was installed and run on.
TRIED = yaml.safe_load((REPOSITORY / ".github/workflows/tests.yml").read_text(encoding="utf-8"))["jobs"]
TRIED = TRIED["test"]["strategy"]["matrix"]["python"]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def conda():
    return yaml.safe_load((REPOSITORY / "environment.yml").read_text(encoding="utf-8"))


def test_the_book_brings_every_extra_of_the_library():
    (own,) = (Requirement(text) for text in EXTRAS["book"] if text.startswith("gmmlib["))
    assert own.extras == EXTRAS.keys() - {"book", "dev"}


def test_every_extra_that_an_error_names_is_one():
    texts = [path.read_text(encoding="utf-8") for path in Path(gmmlib.__file__).parent.rglob("*.py")]
    named = {name for text in texts for name in re.findall(r'extra\("(\w+)"\)|gmmlib\[(\w+)\]', text)}
    assert {name for pair in named for name in pair if name} == EXTRAS.keys() - {"dev"}


def test_conda_environment_takes_every_package_from_the_lock(conda):
    python, pip, nested = conda["dependencies"]
    assert (pip, nested) == ("pip", {"pip": ["-r requirements.lock"]})
    assert python.startswith("python")


def test_conda_environment_has_the_python_of_the_project(conda):
    python = conda["dependencies"][0].removeprefix("python").strip()
    assert SpecifierSet(python) == SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize("text", DIRECT)
def test_lock_holds_every_direct_dependency_at_an_allowed_version(text):
    wanted = Requirement(text)
    pins = [pin for pin, _ in locked() if canonical(pin.name) == canonical(wanted.name)]
    assert pins, f"{wanted.name} is missing from requirements.lock; make lock"
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert wanted.specifier.contains(exact.version), f"the lock has {pin}, pyproject.toml wants {wanted}"


def test_lock_has_hashes_for_every_package():
    entries = list(locked())
    assert len(entries) > 50
    assert [pin.name for pin, hashes in entries if not hashes] == []


def test_lock_names_no_address():
    assert not re.search(r"https?:|--(extra-)?index-url|--find-links|^-i\b", LOCK, re.MULTILINE)


@pytest.mark.parametrize("python", TRIED)
def test_lock_pins_one_version_of_each_direct_dependency_on_every_tried_python(python):
    here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    pins = [canonical(pin.name) for pin, _ in locked() if pin.marker is None or pin.marker.evaluate(here)]
    assert len(pins) == len(set(pins))
    assert {canonical(Requirement(text).name) for text in DIRECT} <= set(pins)


@pytest.mark.parametrize("python", TRIED)
def test_every_tried_python_is_an_allowed_one(python):
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")
    bounds = bootstrap.python_bounds(f'requires-python = "{PROJECT["requires-python"]}"')
    assert bootstrap.complaint(tuple(map(int, python.split("."))), bounds, []) is None


def test_the_oldest_allowed_python_is_tried():
    low, _ = bootstrap.python_bounds(f'requires-python = "{PROJECT["requires-python"]}"')
    assert ".".join(map(str, low)) in TRIED
    ruff = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    assert ruff["target-version"] == "py" + "".join(map(str, low))


def test_every_workflow_uses_a_tried_python():
    texts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / ".github/workflows").glob("*.yml")]
    used = {version for text in texts for version in re.findall(r'python-version: "([\d.]+)"', text)}
    assert used
    assert used <= set(TRIED)


def test_the_tests_run_the_library_of_this_checkout():
    assert Path(gmmlib.__file__).resolve().parent == (REPOSITORY / "gmmlib").resolve()


def test_names_and_versions_are_those_of_the_project(conda):
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert conda["name"] == PROJECT["name"]
    assert citation["version"] == gmmlib.__version__
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changelog, re.MULTILINE).group(1) == gmmlib.__version__
