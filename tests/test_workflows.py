"""What runs on the servers of the host: pinned, bounded in time, and allowed no more than it needs."""

import re

import pytest
import yaml

from tools.project import REPOSITORY

FILES = sorted((REPOSITORY / ".github" / "workflows").iterdir())
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES}
JOBS = {
    f"{stem}-{name}": job for stem, workflow in WORKFLOWS.items() for name, job in workflow["jobs"].items()
}
STEPS = [
    pytest.param(step, id=f"{name}-{n}") for name, job in JOBS.items() for n, step in enumerate(job["steps"])
]
TARGETS = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
# The one job that may do more than read: it publishes the pages.
DEPLOY = {"book-deploy": {"pages": "write", "id-token": "write"}}
LONGEST = 120  # minutes


def test_the_workflows_are_the_known_ones():
    assert set(WORKFLOWS) == {"book", "nightly", "tests"}
    assert len(STEPS) > 10


@pytest.mark.parametrize("stem", WORKFLOWS)
def test_a_workflow_may_read_and_nothing_else(stem):
    assert WORKFLOWS[stem]["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("name", JOBS)
def test_only_the_deployment_is_allowed_more(name):
    assert JOBS[name].get("permissions") == DEPLOY.get(name)


@pytest.mark.parametrize("name", JOBS)
def test_every_job_has_an_end(name):
    assert 0 < JOBS[name]["timeout-minutes"] <= LONGEST


@pytest.mark.parametrize("step", STEPS)
def test_actions_are_pinned_to_a_commit(step):
    if "uses" in step:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_comment_names_the_version_of_each_pin(path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        assert re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_an_action_has_one_version_everywhere():
    used = {step.values[0]["uses"] for step in STEPS if "uses" in step.values[0]}
    assert len(used) == len({name.split("@")[0] for name in used})


@pytest.mark.parametrize("step", STEPS)
def test_no_checkout_leaves_a_token_behind(step):
    if step.get("uses", "").startswith("actions/checkout@"):
        assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("step", STEPS)
def test_no_command_is_put_together_from_outside_text(step):
    assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("step", STEPS)
def test_commands_are_targets_of_the_makefile(step):
    # What a server does can be done at home.
    for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", "")):
        assert target in TARGETS or f"grep -q '^{target}:' Makefile" in step["run"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_secret_and_no_foreign_code_with_rights(path):
    text = path.read_text(encoding="utf-8")
    for word in ("secrets", "github.token", "pull_request_target", "workflow_run", "write-all"):
        assert word not in text


def test_pages_are_published_from_the_main_branch_alone():
    # YAML 1.1 reads the key `on` as true.
    assert WORKFLOWS["book"][True] == {"push": {"branches": ["main"]}, "workflow_dispatch": None}
    assert WORKFLOWS["book"]["jobs"]["deploy"]["needs"] == "build"
