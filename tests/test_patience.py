"""No limit of seconds is so tight that a busy machine fails it."""

import ast

import pytest

from tools import figures
from tools.project import PATIENCE, REPOSITORY

FILES = [path for folder in ("tools", "tests") for path in sorted((REPOSITORY / folder).glob("*.py"))]
SHORTEST = 60  # seconds that any limit leaves
LIMITED = {"wait", "join", "acquire"}  # methods whose only argument is a limit
# Here it is the limit itself that a test wants to see exceeded.
MEANT = {"available"}


def tight(text):
    """Calls with a limit of few seconds, and windows of a browser that keep its own limit of 30."""
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        limits = [keyword.value for keyword in call.keywords if (keyword.arg or "").endswith("timeout")]
        limits += call.args if name in LIMITED else []
        known = [limit.value for limit in limits if isinstance(limit, ast.Constant)]
        # Milliseconds, where a browser is asked to wait for something.
        scale = 1000 if name in ("wait_for", "goto", "click", "wait_for_function", "launch") else 1
        if (
            any(type(limit) in (int, float) and limit < scale * SHORTEST for limit in known)
            and name not in MEANT
        ):
            yield f"line {call.lineno}: {name}"
        if name in ("new_context", "new_page") and ast.unparse(call.func.value) in ("browser", "chromium"):
            yield f"line {call.lineno}: {name} outside tools/browser.py"


@pytest.mark.parametrize(
    "text",
    [
        "page.locator('a').wait_for(timeout=5_000)",
        "event.wait(10)",
        "process.communicate(timeout=30)",
        "nb(startup_timeout=59.5)",
        "browser.new_page()",
        "browser.new_context(offline=True)",
    ],
)
def test_a_tight_limit_is_found(text):
    assert len(list(tight(text))) == 1


@pytest.mark.parametrize(
    "text",
    ["event.wait()", "event.wait(300)", "x.wait_for(timeout=60_000)", "', '.join(x)", "context.new_page()"],
)
def test_other_calls_are_left_alone(text):
    assert list(tight(text)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_limit_is_tight(path):
    found = list(tight(path.read_text(encoding="utf-8")))
    if path.name == "browser.py":
        found = [line for line in found if "outside" not in line]
    assert found == []


def test_kernels_of_the_comparison_may_take_their_time(config):
    figures.pytest_configure(config)
    assert config.option.nbval_kernel_startup_timeout == PATIENCE >= 600


@pytest.fixture
def config():
    """What pytest hands to a plugin, and undone afterwards."""

    class Config:
        class option:
            nbval_kernel_startup_timeout = 60.0
            chapters = ""

        def __init__(self):
            self.after = []

        def add_cleanup(self, function):
            self.after.append(function)

    config = Config()
    yield config
    for function in config.after:
        function()
