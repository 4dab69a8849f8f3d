"""Make finished runs the references that are published and compared with."""

from tools import notebooks, provenance


def freeze(project, scale):
    """Store the current runs of a scale as its references; True if every chapter has one.

    Where only the text of a chapter changed, its reference itself serves as the run.
    """
    missing = 0
    for source in notebooks.chapters(project.book):
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
    return not missing


def current_run(paths, wanted):
    """The first stored notebook that still stands, or None."""
    for path in paths:
        if path.exists() and not provenance.changes(nb := notebooks.read(path), wanted):
            return nb
    return None
