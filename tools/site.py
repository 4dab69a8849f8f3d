"""Stage the pages of one scale and render them; nothing is executed here."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import yaml

from tools import colophon, explorer, mathjax, notebooks, offline, pairs, polish
from tools.project import REPOSITORY

BANNER = (
    "The numbers and figures on these pages come from a small sample of bundled images, not from the "
    "paper's data. For the paper's scale: make book SCALE=paper."
)

WORK = "work-"  # how the names of folders begin in which something is being made


class NotRendered(Exception):
    """The pages could not be made; the text says why."""


def render(project, folder, name, scale):
    """Render the notebooks in `folder` with the pages of the book into ``_build/<name>/html``.

    Two at once would write the same files; `tools.locks` makes one wait.

    Parameters
    ----------
    project : tools.project.Project
    folder : Path
        Where the executed notebooks are.
    name : str
        ``paper``, ``sample`` or ``published``.
    scale : str
        What they were run at.

    Returns
    -------
    Path
        The first page. What stood there before is replaced only by a complete set of pages, and stays if
        it was made from the same.
    """
    start = time.monotonic()
    folders = project.build(name)
    source, html, stamp = (folders / part for part in ("source", "html", "made_from"))
    shutil.rmtree(source, ignore_errors=True)
    stage(project, folder, source, scale)
    made_from = digest(source, project.library, REPOSITORY / "tools", project.lock)
    if html.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == made_from:
        print(f"the {name} pages are up to date: {html / 'index.html'}", flush=True)
        return html / "index.html"
    stamp.unlink(missing_ok=True)
    print(f"rendering the {name} pages", flush=True)
    with workroom(folders) as work:
        build(source, work, project.root)
        new = work / "_build" / "html"
        polish.polish(new)
        # Sphinx would offer the notebooks that it read, which end in a table for the page.
        shutil.copytree(source / "downloads", new / "_sources" / "book", dirs_exist_ok=True)
        if remote := offline.remote_addresses(new):
            addresses = ", ".join(" ".join(pair) for pair in remote)
            raise NotRendered(f"pages would load from a network: {addresses}")
        old = folders / "old"
        shutil.rmtree(old, ignore_errors=True)
        if html.exists():
            html.rename(old)
        new.rename(html)
        shutil.rmtree(old, ignore_errors=True)
    stamp.write_text(made_from, encoding="utf-8")
    print(f"rendered in {time.monotonic() - start:.0f} s: {html / 'index.html'}", flush=True)
    return html / "index.html"


@contextmanager
def workroom(folder):
    """A folder of its own for one build; a build whose caller was killed may still be writing to another."""
    for left in sorted(folder.glob(f"{WORK}*")):
        shutil.rmtree(left, ignore_errors=True)
    # What cannot be removed now is removed by the next one.
    with tempfile.TemporaryDirectory(prefix=WORK, dir=folder, ignore_cleanup_errors=True) as name:
        yield Path(name)


def stage(project, folder, source, scale):
    """Put together everything a build reads: pages, executed notebooks, configuration."""
    book = source / "book"
    sources = notebooks.chapters(project.book)
    absent = [path for path in sources if not (folder / f"{path.stem}.ipynb").exists()]
    if missing := [path.stem for path in absent if not notebooks.is_draft(path)]:
        raise NotRendered(f"no executed notebook of {', '.join(missing)} in {folder}")
    if absent:
        print(f"drafts left out of these pages: {', '.join(path.stem for path in absent)}", flush=True)
    chapters = [path.stem for path in sources if path not in absent]
    book.mkdir(parents=True)
    for path in project.book.iterdir():
        if path.is_file() and path.suffix != ".ipynb" and path not in sources:
            shutil.copyfile(path, book / path.name)
    config = yaml.safe_load((project.root / "_config.yml").read_text(encoding="utf-8"))
    generated, downloads = book / "_generated", source / "downloads"
    generated.mkdir()
    downloads.mkdir()
    records, galleries = [], []
    for stem in chapters:
        nb = notebooks.read(folder / f"{stem}.ipynb")
        galleries += [(stem, gallery) for gallery in explorer.taken_out(nb)]
        page = colophon.appended(pairs.joined(nb, stem, generated), config["repository"]["url"])
        notebooks.write(colophon.marked(page), book / f"{stem}.ipynb")
        offer(nb, project.book / f"{stem}.md", downloads)
        records.append(nb.metadata.provenance)
        # Glue cannot give a figure of another page its caption and alternative text; a file can.
        for name, png in notebooks.glued_figures(nb):
            (generated / f"{name}.png").write_bytes(base64.b64decode(png))
    if (project.book / "_static").is_dir():
        shutil.copytree(project.book / "_static", book / "_static")
    mathjax.copy_into(book / "_static")
    explorer.write(book / "_static", galleries)
    (source / "genindex.md").write_text("# Index\n", encoding="utf-8")  # Sphinx writes its page
    (generated / "provenance.md").write_text(colophon.table(project.root, scale, records), encoding="utf-8")
    configure(config, scale, colophon.footer(project.root))
    (source / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    contents = yaml.safe_load((project.root / "_toc.yml").read_text(encoding="utf-8"))
    contents = without(contents, {f"book/{path.stem}.ipynb" for path in absent})
    (source / "_toc.yml").write_text(yaml.safe_dump(contents, sort_keys=False), encoding="utf-8")


def without(contents, files):
    """A table of contents, or a piece of it, without these files and without parts that would be empty."""
    if isinstance(contents, dict):
        return {name: without(piece, files) for name, piece in contents.items()}
    if isinstance(contents, list):
        kept = (without(piece, files) for piece in contents if piece.get("file") not in files)
        return [piece for piece in kept if piece.get("chapters", True)]
    return contents


def offer(nb, chapter, downloads):
    """Put a chapter beside each other as notebook, as MyST source and as script."""
    notebooks.write(nb, downloads / f"{chapter.stem}.ipynb")
    shutil.copyfile(chapter, downloads / chapter.name)
    (downloads / f"{chapter.stem}.py").write_text(notebooks.script(nb), encoding="utf-8")


def configure(config, scale, footer):
    """Add what depends on the scale and the commit; without a public address, leave out what needs one."""
    html = config.setdefault("html", {})
    html["extra_footer"] = footer
    if scale == "sample":
        html["announcement"] = BANNER
    if not config["repository"]["url"]:
        del config["repository"], config["launch_buttons"]
        for button in ("edit_page", "issues", "repository"):
            html[f"use_{button}_button"] = False


def digest(*places):
    """SHA-256 over the names and contents of files, and of all files in folders."""
    total = hashlib.sha256()
    for place in places:
        for path in sorted([place] if place.is_file() else place.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                total.update(f"{path.relative_to(place.parent)} {content}\n".encode())
    return total.hexdigest()


def build(source, work, root, builder="html"):
    """One build in which every warning is an error."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "-q", "-W", "-n", "--keep-going"]
    command += ["--builder", builder, "--path-output", str(work), str(source)]
    # The extension tools.header is found from here.
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(REPOSITORY)}
    if seconds := colophon.commit_of(root)[1]:
        environment.setdefault("SOURCE_DATE_EPOCH", seconds)
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise NotRendered(f"the build stopped:\n{done.stdout}")
