"""What tells a reader where the pages come from: a table of the book, one a chapter, and a line on each page.

They hold no clock time of the build: two builds of the same commit give the same page.
"""

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime

import nbformat

from tools import notebooks

DIGESTS = {
    "source": "code of the chapter",
    "library": "gmmlib",
    "lock": "requirements.lock",
    "outputs": "outputs",
}

DRAFT = """:::{admonition} Draft
:class: warning
This chapter is not finished: its text and its numbers may change, and no published run stands behind them.
:::
"""


def table(root, scale, records):
    """The table in Markdown, from the provenance of all notebooks on the pages."""
    commit, date = version_of(root)
    rows = {
        "scale": {"paper": "paper", "sample": "sample (small, bundled images)"}[scale],
        "commit": commit,
        "date": date,
        "requirements.lock": _digests(record["lock"] for record in records),
    }
    for name in sorted({name for record in records for name in record["data"]}):
        rows[f"data: {name}"] = _digests(record["data"].get(name) for record in records)
    for name in sorted({name for record in records for name in record["versions"]}):
        rows[name] = _values(record["versions"].get(name) for record in records)
    return _markdown("made from", rows)


def appended(nb, repository):
    """A copy of a chapter's run that ends in a table of how its results were made.

    Parameters
    ----------
    nb : notebook
    repository : str
        Public address of the project, or nothing.
    """
    rows = _markdown("made from", chapter_rows(nb))
    text = f":::{{admonition}} How these results were made\n:class: note dropdown\n\n{rows}"
    if repository:
        # A hosted notebook comes alone; this gives it the library and all that the library needs.
        text += f"\nOn Colab, run `%pip install git+{repository}` before the first cell.\n"
    copy = nbformat.from_dict(nb)
    copy.cells.append(nbformat.v4.new_markdown_cell(text + ":::\n", id="how-these-results-were-made"))
    return copy


def marked(nb):
    """The same notebook, with a note under its title if it is a draft."""
    if nb.metadata.get("draft"):
        title = nb.cells[0]
        title.source = re.sub(
            "^# .*", lambda line: f"{line[0]}\n\n{DRAFT}", title.source, count=1, flags=re.M
        )
    return nb


def chapter_rows(nb):
    """Name and value of everything that decided the outputs of one chapter, and of the occasion."""
    record = nb.metadata.provenance
    rows = {"parameters": ", ".join(f"`{name} = {v}`" for name, v in notebooks.settings(nb).items())}
    if occasion := record.get("occasion"):
        rows["run"] = f"{occasion.date}, from commit {occasion.commit}"
        rows["time"] = f"{occasion.seconds} s, with another chapter beside it, on {occasion.cores} cores"
    rows["versions"] = ", ".join(f"{name} {version}" for name, version in sorted(record.versions.items()))
    rows |= {f"data: {name}": _digests([digest]) for name, digest in sorted(record.data.items())}
    return rows | {words: _digests([record[name]]) for name, words in DIGESTS.items()}


def occasion(root, seconds):
    """When a chapter was run, from which commit, and how long it took; no clock under SOURCE_DATE_EPOCH."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return {
        "date": now.date().isoformat(),
        "commit": commit_of(root)[0].replace("`", ""),
        "seconds": 0 if epoch else round(seconds),
        "cores": os.cpu_count(),
    }


def footer(root):
    """The line at the foot of every page."""
    commit, date = version_of(root)
    return f"<p>Made from commit {commit.replace('`', '')}, {date}.</p>"


def version_of(root):
    """The commit and its day."""
    commit, seconds = commit_of(root)
    seconds = os.environ.get("SOURCE_DATE_EPOCH", seconds)
    return commit, datetime.fromtimestamp(int(seconds), UTC).date().isoformat() if seconds else "unknown"


def _markdown(title, rows):
    """A table of two columns."""
    lines = [f"| {title} | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(lines) + "\n"


def _values(values):
    """One value, or all of them where notebooks differ."""
    return ", ".join(sorted({value for value in values if value}))


def _digests(values):
    """The same for digests, of which a reader compares the first 12 digits."""
    return _values(f"`{value[:12]}`" for value in values if value)


def commit_of(root):
    """The commit of a project folder, marked if files were modified since, and its time in seconds.

    Outside a repository of its own: ``("unknown", None)``.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if not top or not os.path.samefile(top, root) or not (commit := _git(root, "rev-parse", "HEAD")):
        return "unknown", None
    modified = " and files modified since" if _git(root, "status", "--porcelain") else ""
    return f"`{commit[:12]}`{modified}", _git(root, "log", "-1", "--format=%ct")


def _git(root, *arguments):
    """What git prints, or None where it fails or is missing."""
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
