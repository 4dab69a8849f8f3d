"""The stored notebooks are complete runs of today's chapters, and nobody edited them by hand.

nbval runs them again and compares; what is checked here is that there is something to compare.
"""

import pytest

from tools import notebooks, provenance, references
from tools.project import SCALES, Project

PROJECT = Project()
CHAPTERS = [path for path in notebooks.chapters(PROJECT.book) if not notebooks.is_draft(path)]
REFERENCES = [
    pytest.param(source, scale, id=f"{scale}-{source.stem}") for source in CHAPTERS for scale in SCALES
]


def path_of(source, scale):
    return PROJECT.references(scale) / f"{source.stem}.ipynb"


def stored(source, scale):
    path = path_of(source, scale)
    if not path.exists():
        pytest.fail(f"{source.name} has no {scale} reference; make book freeze SCALE={scale}")
    return notebooks.read(path)


def test_the_book_has_chapters():
    assert CHAPTERS, "no book/*.md is a notebook: every check of a reference would pass on nothing"


@pytest.mark.parametrize("scale", SCALES)
def test_every_reference_belongs_to_a_chapter(scale):
    stems = {path.stem for path in PROJECT.references(scale).glob("*.ipynb")}
    assert stems <= {source.stem for source in CHAPTERS}


@pytest.mark.parametrize(("source", "scale"), REFERENCES)
def test_reference_is_a_complete_run(source, scale):
    assert notebooks.flaws(stored(source, scale)) == []


@pytest.mark.parametrize(("source", "scale"), REFERENCES)
def test_reference_has_the_text_and_code_of_its_source(source, scale):
    nb = stored(source, scale)
    same = notebooks.written(nb) == notebooks.written(notebooks.convert(source))
    assert same, f"{source.name} has changed since; make book freeze SCALE={scale}"
    assert nb.metadata.provenance.source == provenance.source_digest(nb)


@pytest.mark.parametrize(("source", "scale"), REFERENCES)
def test_outputs_are_those_of_the_run(source, scale):
    nb = stored(source, scale)
    assert nb.metadata.provenance.outputs == notebooks.outputs_digest(nb), "outputs were edited by hand"


@pytest.mark.parametrize(("source", "scale"), REFERENCES)
def test_reference_was_run_at_its_scale(source, scale):
    nb = stored(source, scale)
    assert nb.metadata.provenance.scale == scale
    assert nb.metadata.provenance.parameters == provenance.parameters(scale)
    # What a reader of the paper's pages sees is the whole program, with no parameter put in from outside.
    assert sum(map(notebooks.is_injected, nb.cells)) == len(provenance.parameters(scale))


@pytest.mark.parametrize(("source", "scale"), REFERENCES)
def test_reference_is_stored_in_the_one_form(source, scale):
    stored(source, scale)
    path = path_of(source, scale)
    assert path.read_bytes() == notebooks.to_bytes(notebooks.normalise(notebooks.read(path)))


def test_published_notebooks_stay_small():
    sizes = [path.stat().st_size for path in PROJECT.references("paper").glob("*.ipynb")]
    mean = sum(sizes) / len(sizes)
    assert mean <= 1e6, f"book/*.ipynb hold {mean / 1e6:.2f} MB each; draw fewer or smaller figures"


def test_the_figure_of_the_readme_is_the_published_one():
    shown = PROJECT.book / "readme.png"
    before = shown.read_bytes()
    references.show_in_readme(PROJECT)
    assert shown.read_bytes() == before, "the README showed an old figure; it is renewed now"
