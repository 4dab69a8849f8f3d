"""The table that tells a reader what the pages were made from.

It holds no clock time: two builds of the same commit give the same page.
"""

import os
import shutil
import subprocess
from datetime import UTC, datetime


def table(root, scale, records):
    """The table in Markdown, from the provenance of all notebooks on the pages."""
    commit, seconds = commit_of(root)
    seconds = os.environ.get("SOURCE_DATE_EPOCH", seconds)
    date = datetime.fromtimestamp(int(seconds), UTC).date().isoformat() if seconds else "unknown"
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
    lines = ["| made from | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
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
