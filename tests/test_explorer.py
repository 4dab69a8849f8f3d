"""The component explorer: taken out of notebooks, and driven by clicks and keys."""

import json

import nbformat
import pytest

from gmmlib.book.gallery import MIME
from tests.test_pages import TOO_WIDE, WIDE_FONT
from tools import explorer, notebooks
from tools.browser import windows


def a_notebook():
    """One cell with a gallery among its outputs."""
    data = {"name": "one", "title": "One", "weights": [1.0], "sheets": []}
    output = nbformat.v4.new_output("display_data", {MIME: data, "text/plain": "1 component"})
    text = nbformat.v4.new_output("stream", text="kept")
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[text, output])]), data


def test_the_library_and_the_tools_mean_the_same_type():
    assert notebooks.GALLERY == MIME


def test_references_of_the_sample_store_no_gallery():
    nb, _ = a_notebook()
    notebooks.without_figures(nb)
    assert nb.cells[0].outputs[1].data == {"text/plain": "1 component"}


def test_galleries_leave_the_notebook_and_become_scripts(tmp_path):
    nb, data = a_notebook()
    found = explorer.taken_out(nb)
    assert found == [data]
    assert [o.output_type for o in nb.cells[0].outputs] == ["stream"]
    explorer.write(tmp_path, [("04_x", found[0])])
    text = (tmp_path / "explorer" / "one.js").read_text()
    assert json.loads(text.removeprefix("explorer.receive(").removesuffix(");\n")) == data
    listed = (tmp_path / "explorer" / "models.js").read_text()
    assert '"page":"04_x"' in listed
    assert (tmp_path / "plotly" / "plotly.min.js").stat().st_size > 1e6


@pytest.fixture
def page(published, browser):
    """The explorer as it opens, on a phone."""
    page = windows(browser, viewport={"width": 400, "height": 900}).new_page()
    page.goto((published / "book" / "explorer.html").as_uri())
    page.locator("#explorer[data-ready]").wait_for()
    return page


def ready(page, model, component):
    page.locator(f'#explorer[data-ready="{model}/{component}"]').wait_for()


def test_it_opens_on_the_first_model_with_all_its_pictures(page):
    ready(page, "photographs-16", 1)
    assert "Component 1 of 32" in page.locator("#explorer [role=status]").inner_text()
    assert page.locator("#explorer .sheets canvas").count() == 4
    assert page.locator("#explorer .charts .main-svg").count() > 0
    blank = (
        "c => !c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v, i) => i % 4 < 3 && v)"
    )
    assert not any(c.evaluate(blank) for c in page.locator("#explorer canvas").all())


def test_keys_and_buttons_step_through_components_and_models(page):
    page.locator("article h1").click()
    page.keyboard.press("ArrowRight")
    ready(page, "photographs-16", 2)
    page.get_by_label("Next component").click()
    ready(page, "photographs-16", 3)
    page.keyboard.press("ArrowLeft")
    ready(page, "photographs-16", 2)
    page.get_by_label("Previous component").click()
    ready(page, "photographs-16", 1)
    page.get_by_label("Previous component").click()
    ready(page, "photographs-16", 32)
    page.locator("article h1").click()
    page.keyboard.press("m")
    ready(page, "photographs-8", 1)
    page.keyboard.press("Shift+M")
    ready(page, "photographs-16", 1)


def test_a_component_has_an_address(page):
    page.get_by_label("Model").select_option("digits-32")
    ready(page, "digits-32", 1)
    page.get_by_label("Component", exact=True).fill("7")
    page.keyboard.press("Enter")
    ready(page, "digits-32", 7)
    assert page.url.endswith("#model=digits-32&component=7")
    page.reload()
    ready(page, "digits-32", 7)


def test_the_nearest_component_is_a_click_away(page):
    link = page.locator("#explorer .near a").first
    wanted = link.inner_text().split(":")[0].strip()
    link.click()
    ready(page, "photographs-16", wanted)


@pytest.mark.parametrize("style", ["* {}", WIDE_FONT], ids=["its font", "a wide font"])
def test_every_model_opens_and_nothing_complains(page, style):
    errors = []
    page.add_style_tag(content=style)
    page.on("pageerror", lambda error: errors.append(str(error)))
    for option in page.locator("#explorer option").all():
        name = option.get_attribute("value")
        page.get_by_label("Model").select_option(name)
        ready(page, name, 1)
        assert page.evaluate(TOO_WIDE) == []
    assert errors == []


def test_an_unknown_address_shows_the_first_model(published, browser):
    page = windows(browser).new_page()
    page.goto((published / "book" / "explorer.html").as_uri() + "#model=none&component=99")
    ready(page, "photographs-16", 32)


def test_the_data_are_small(published):
    folder = published / "_static" / "explorer"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6
