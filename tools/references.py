"""Make finished runs the references that are published and compared with."""

import base64

from tools import notebooks, provenance

README_FIGURE = ("02_bsds_16x16", "sheet")  # chapter, and the name it is glued by


class Missing(Exception):
    """A chapter has no reference and should have one; the text says which and what to do."""


def freeze(project, scale, sources=None):
    """Store the current runs of these chapters, by default all, as references; True if each has one.

    Where only the text of a chapter changed, its reference itself serves as the run.  Drafts are left out.
    """
    missing = 0
    notebooks.sweep(project.references(scale))
    for source in notebooks.chapters(project.book) if sources is None else sources:
        if notebooks.is_draft(source):
            print(f"{source.stem}: a draft, left out")
            continue
        target = project.references(scale) / f"{source.stem}.ipynb"
        candidates = [project.runs(scale) / target.name, target]
        run = current_run(candidates, provenance.key(project, source, scale))
        if run is None:
            print(f"{source.stem}: no current run at the {scale} scale; make book SCALE={scale}")
            missing += 1
            continue
        nb = notebooks.with_prose_of(run, notebooks.convert(source))
        if scale == "sample":
            # Compared by text alone, so that the repository stays small.
            notebooks.without_figures(nb)
            nb.metadata.provenance.outputs = notebooks.outputs_digest(nb)
        changed = notebooks.write(nb, target)
        print(f"{target.relative_to(project.root)}: {'written' if changed else 'unchanged'}")
    if scale == "paper" and not missing:
        show_in_readme(project)
    return not missing


def stored(project, scale, sources):
    """The references of these chapters; a draft need not have one, and it is said when it has none.

    Raises
    ------
    Missing
    """
    paths = {source: project.references(scale) / f"{source.stem}.ipynb" for source in sources}
    absent = [source for source, path in paths.items() if not path.exists()]
    if missing := [source.stem for source in absent if not notebooks.is_draft(source)]:
        raise Missing(f"no {scale} reference of {', '.join(missing)}; make freeze SCALE={scale}")
    for source in absent:
        print(f"{source.stem}: a draft without a reference, left out", flush=True)
    return [path for source, path in paths.items() if source not in absent]


def show_in_readme(project):
    """Keep the figure of the README the published one."""
    chapter, name = README_FIGURE
    path = project.references("paper") / f"{chapter}.ipynb"
    if path.exists():
        figures = dict(notebooks.glued_figures(notebooks.read(path)))
        (project.book / "readme.png").write_bytes(base64.b64decode(figures[name]))


def current_run(paths, wanted):
    """The first stored notebook that still stands, or None."""
    for path in paths:
        try:
            nb = notebooks.read(path)
        except (FileNotFoundError, notebooks.Unreadable):
            continue
        if not provenance.changes(nb, wanted):
            return nb
    return None
