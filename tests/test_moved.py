"""The table of digits that moved: where each is, and how far it went."""

import nbformat
import pytest

from tools import moved

SOURCE = """---
kernelspec: {name: python3}
---

# A title

## A part

```{code-cell} ipython3
x = 1
```

```python
# no heading
```

### A smaller part

```{code-cell} ipython3
:tags: [hide-input]

x = 1
glue("first", x)
glue("second", x)
```

## Another part

```{code-cell} ipython3
x = 1
```
"""
CODE = ("x = 1", 'x = 1\nglue("first", x)\nglue("second", x)')


def glued(name, text):
    data = {"application/papermill.record/text/plain": text}
    return nbformat.v4.new_output("display_data", data=data, metadata={"scrapbook": {"name": name}})


@pytest.fixture
def stored():
    cells = [
        nbformat.v4.new_markdown_cell("# A title\n\n## A part"),
        nbformat.v4.new_code_cell(CODE[0]),
        nbformat.v4.new_markdown_cell("```python\n# no heading\n```\n\n### A smaller part"),
        nbformat.v4.new_code_cell(CODE[1], outputs=[glued("first", "1.5"), glued("second", "'2,000'")]),
        nbformat.v4.new_markdown_cell("## Another part"),
        nbformat.v4.new_code_cell(CODE[0]),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def test_a_number_is_shown_with_heading_line_and_relative_difference(stored, tmp_path):
    source = tmp_path / "01_model.md"
    source.write_text(SOURCE)
    now = [glued("first", "1.5"), glued("second", "'2,001'")]
    found = moved.rows(stored, stored.cells[3], source, now)
    assert found == [("01_model", "A smaller part", "24", "2,000", "2,001", "5.0e-04")]
    assert SOURCE.splitlines()[23] == 'glue("second", x)'
    assert moved.table(found) == (
        "chapter   heading         line  stored  now    relative difference\n"
        "01_model  A smaller part  24    2,000   2,001  5.0e-04"
    )


def test_equal_cells_have_lines_and_headings_of_their_own(stored, tmp_path):
    source = tmp_path / "01_model.md"
    source.write_text(SOURCE)
    places = [moved.place(stored, stored.cells[number], source) for number in (1, 5)]
    assert places == [("01_model", "A part", "10"), ("01_model", "Another part", "30")]


def test_what_is_not_in_the_source_has_no_line(stored, tmp_path):
    source = tmp_path / "01_model.md"
    for text in (None, "# Another text\n"):
        if text:
            source.write_text(text)
        (row,) = moved.rows(
            stored, stored.cells[3], source, [glued("first", "2"), glued("second", "'2,000'")]
        )
        assert row.line == "-"


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("a 1.25 b", "a 1.25 b", []),
        ("a 1.25 b 2", "a 1.5 b 2", [("1.25", "1.5")]),
        ("  9.5 -1e-3", " 10.5  1e-3", [("9.5", "10.5"), ("-1e-3", "1e-3")]),
        ("holds", "does not hold", [("'holds'", "'does not hold'")]),
        ("a  1", "a 1", [("'a  1'", "'a 1'")]),
        ("1 of 3", "1", [("'1 of 3'", "'1'")]),
    ],
)
def test_numbers_are_paired_and_other_text_is_quoted(old, new, found):
    assert moved.changed(old, new) == found


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("2", "3", "5.0e-01"),
        ("-2", "2", "2.0e+00"),
        ("1,000", "1,001.0", "1.0e-03"),
        ("0", "1", "inf"),
        ("'a'", "'b'", "-"),
    ],
)
def test_the_difference_is_relative_to_the_stored_number(old, new, shown):
    assert moved.relative(old, new) == shown


def test_a_long_table_says_how_much_is_left_out():
    rows = [moved.Row("01", "-", "-", str(n), str(n + 1)) for n in range(45)]
    lines = moved.table(rows).splitlines()
    assert len(lines) == 32
    assert lines[-1] == "and 15 more"
