"""What the sources of all pages have in common: equations that are cited, and terms that are linked."""

import re

from tools.project import Project

PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(Project().book.glob("*.md"))}
REFERENCE = {"glossary", "notation"}


def cited(role):
    """What the chapters refer to by a role."""
    pattern = re.compile(rf"\{{{role}\}}`(?:[^`<]*<)?([^`>]+)>?`")
    return {name for stem, text in PAGES.items() if stem not in REFERENCE for name in pattern.findall(text)}


def labels(kind):
    """The labels that all directives of a kind give."""
    return {
        name
        for text in PAGES.values()
        for name in re.findall(rf"^`+\{{{kind}\}}.*\n:label: (\S+)$", text, re.MULTILINE)
    }


def test_every_equation_is_cited_in_a_chapter():
    found = labels("math")
    assert len(found) > 5
    assert found - cited("eq") == set()


def test_every_displayed_equation_has_a_label():
    displayed = [stem for stem, text in PAGES.items() if re.search(r"^`+\{math\}\n(?!:label:)", text, re.M)]
    assert displayed == []


def test_every_proposition_and_algorithm_is_cited_in_a_chapter():
    found = labels("prf:[a-z]+")
    assert len(found) > 3
    assert found - cited("prf:ref") == set()


def test_every_term_of_the_glossary_is_linked_from_a_chapter():
    terms = set(re.findall(r"^(\S.*)\n  \S", PAGES["glossary"], re.MULTILINE))
    assert len(terms) > 10
    assert terms - cited("term") == set()
