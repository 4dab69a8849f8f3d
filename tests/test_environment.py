"""environment.yml, pyproject.toml and requirements.lock say the same thing."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tools.project import REPOSITORY

LOCK = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DIRECT = [
    *PROJECT["dependencies"],
    *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
]


def locked():
    """Each entry of the lock: its requirement and the number of its hashes."""
    for entry in LOCK.replace("\\\n", " ").splitlines():
        if entry.strip():
            requirement, *hashes = entry.split("--hash=")
            yield Requirement(requirement.strip()), len(hashes)


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def conda():
    return yaml.safe_load((REPOSITORY / "environment.yml").read_text(encoding="utf-8"))


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
