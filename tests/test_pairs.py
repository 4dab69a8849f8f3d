"""Pairs of pictures, before and after: from a notebook to a slider that keys and pointers move."""

import base64
import io

import nbformat
import numpy as np
import pytest
from PIL import Image

from tests import test_site
from tests.test_pages import TOO_WIDE, visit
from tools import book, export, notebooks, pairs, site
from tools.browser import settle, windows

ALTS = ['A grey `ramp` under [white] "noise": <b>grain</b>.', "The same *grey* ramp; it is smooth."]
CELLS = """
```{code-cell} ipython3
---
tags: [before-after]
mystnb:
  figure: {caption: A ramp and its noise., name: fig-pair}
  image:
    alt:
    - 'A grey `ramp` under [white] "noise": <b>grain</b>.'
    - The same *grey* ramp; it is smooth.
---
show()
```

```{code-cell} ipython3
---
tags: [actual-size]
mystnb:
  figure: {caption: A ramp., name: fig-ramp}
  image: {alt: "A ramp from black to white.", width: 100px}
---
show()
```
"""
SIZE = (481, 321)


def drawn(noise, size=SIZE):
    """A picture as a cell displays it."""
    ramp = np.linspace(40, 215, size[0]) + noise * np.random.default_rng(0).normal(size=size[::-1])
    file = io.BytesIO()
    Image.fromarray(ramp.clip(0, 255).astype(np.uint8)).save(file, "png")
    data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": "<Figure>"}
    return nbformat.v4.new_output("display_data", data)


def make_book(root, outputs):
    """A book whose chapter has these outputs in its pair."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_site, "SOURCE", test_site.SOURCE + CELLS)
        project = test_site.make_book(root, "")
    path = project.book / "one.ipynb"
    nb = notebooks.read(path)
    notebooks.code_cells(nb)[2].outputs = outputs
    notebooks.code_cells(nb)[3].outputs = [drawn(0)]
    notebooks.write(nb, path)
    return project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_book(tmp_path_factory.mktemp("pairs"), [drawn(30), drawn(0)])


@pytest.fixture(scope="module")
def address(project):
    """The page of the chapter, as it is published."""
    first = site.render(project, project.book, "published", "paper")
    return (first.parent / "book" / "one.html").as_uri()


def opened(browser, address, width=1280, **options):
    page = windows(browser, viewport={"width": width, "height": 900}, **options).new_page()
    settle(page, address)
    return page


def boxes(page):
    """Where the two pictures are."""
    return [picture.bounding_box() for picture in page.locator("#fig-pair img").all()]


def line(page):
    """Where the line is, from 0 to 1, by what is cut off the upper picture."""
    clip = page.locator("#fig-pair img").nth(1).evaluate("e => getComputedStyle(e).clipPath")
    return float(clip.removesuffix("%)").split()[-1]) / 100


@pytest.mark.parametrize("width", [1280, 390])
def test_two_pictures_lie_over_each_other(browser, address, width):
    page = opened(browser, address, width)
    before, after = boxes(page)
    assert before == after
    assert before["width"] <= SIZE[0]
    assert (before["width"] == SIZE[0]) == (width == 1280)
    assert before["width"] / before["height"] == pytest.approx(SIZE[0] / SIZE[1], rel=0.01)
    assert page.evaluate(TOO_WIDE) == []
    assert page.locator("#fig-pair button").count() == 0
    assert page.locator("#fig-ramp button.enlarge").count() == 1


def test_each_picture_keeps_its_description_and_both_share_a_caption(browser, address):
    page = opened(browser, address)
    assert [e.get_attribute("alt") for e in page.locator("#fig-pair img").all()] == ALTS
    assert page.locator("#fig-pair .slider em").all_inner_texts() == ["before", "after"]
    assert page.locator("#fig-pair figcaption").inner_text().startswith("Fig. 1 A ramp and its noise.")
    assert page.locator("#fig-ramp .caption-number").inner_text().strip() == "Fig. 2"


def test_keys_move_the_line(browser, address):
    page = opened(browser, address)
    slider = page.get_by_role("slider")
    assert line(page) == 0.5
    slider.press("ArrowRight")
    assert 0.5 < line(page) <= 0.52
    assert slider.get_attribute("aria-valuetext") == f"{100 * line(page):.0f} % before"
    for key, end in (("Home", 0), ("End", 1)):
        slider.press(key)
        assert line(page) == end
        assert page.evaluate(TOO_WIDE) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_line_is_black_and_white_over_every_picture(browser, address, theme):
    page = opened(browser, address, color_scheme=theme)
    box = boxes(page)[0]
    clip = {"x": box["x"] + box["width"] / 2 - 4, "y": box["y"] + 50, "width": 8, "height": 1}
    seen = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("L"))
    assert seen.min() < 30
    assert seen.max() > 225


def test_the_line_follows_a_pointer(browser, address):
    page = opened(browser, address)
    box = boxes(page)[0]
    places = [box["x"] + share * box["width"] for share in (0.25, 0.75)]
    page.mouse.click(places[0], box["y"] + 50)
    assert line(page) == pytest.approx(0.25, abs=0.01)
    page.mouse.down()
    page.mouse.move(places[1], box["y"] + 500)
    assert line(page) == pytest.approx(0.75, abs=0.01)
    page.mouse.up()
    page.mouse.move(*places)
    assert line(page) == pytest.approx(0.75, abs=0.01)


def test_a_finger_sideways_moves_the_line_and_upwards_the_page(browser, address):
    page = opened(browser, address, 390, has_touch=True, is_mobile=True)
    page.locator("#fig-pair").evaluate("e => e.scrollIntoView({block: 'center', behavior: 'instant'})")
    touch, box = page.context.new_cdp_session(page), boxes(page)[0]
    x, y, top = (
        box["x"] + box["width"] / 2,
        box["y"] + box["height"] / 2,
        "document.documentElement.scrollTop",
    )

    def swipe(right, down):
        for step in range(11):
            point = {"x": x + right * step / 10, "y": y + down * step / 10}
            kind = "touchMove" if step else "touchStart"
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    start = page.evaluate(top)
    swipe(100, 0)
    moved = line(page)
    assert moved > 0.7
    assert page.evaluate(top) == start
    swipe(0, -60)
    page.wait_for_function(f"{top} > {start}")
    assert line(page) == moved


@pytest.mark.parametrize("printed", [False, True])
def test_without_a_script_and_on_paper_one_stands_below_the_other(browser, address, printed):
    page = opened(browser, address, java_script_enabled=printed)
    if printed:
        page.emulate_media(media="print")
    before, after = boxes(page)
    assert before["x"] == after["x"]
    assert before["y"] + before["height"] < after["y"]
    labels = page.locator("#fig-pair em").all()
    assert [label.inner_text() for label in labels] == ["before", "after"]
    assert before["y"] < labels[1].bounding_box()["y"] < after["y"]
    if printed:
        assert not page.get_by_role("slider").is_visible()
        assert page.locator("#fig-pair img").nth(1).evaluate("e => getComputedStyle(e).clipPath") == "none"


def test_a_picture_at_its_actual_size_ignores_a_width(browser, address):
    assert opened(browser, address).locator("#fig-ramp img").bounding_box()["width"] == SIZE[0]
    page = opened(browser, address, 390)
    assert 300 < page.locator("#fig-ramp img").bounding_box()["width"] <= 390


def test_a_page_with_a_pair_has_no_fault(browser, address):
    seen = visit(windows(browser, viewport={"width": 1280, "height": 900}), address)
    assert {field: found for field, found in seen._asdict().items() if found} == {}


def test_both_pictures_are_exported(project):
    found = [(name, suffix) for name, suffix, _ in export.figures(notebooks.read(project.book / "one.ipynb"))]
    assert found == [("fig-pair-before", "png"), ("fig-pair-after", "png"), ("fig-ramp", "png")]


def test_tags_that_change_the_display_alone_leave_a_run_current(project):
    nb = notebooks.read(project.book / "one.ipynb")
    assert [tags for _, tags in notebooks.program(nb)[2:]] == [[], []]


@pytest.mark.parametrize(
    ("outputs", "fault"),
    [
        ([drawn(0)], "its outputs hold 1 pictures where two are expected"),
        ([drawn(0), drawn(0, (480, 321))], "its pictures are of different size, 481 x 321 and 480 x 321"),
    ],
)
def test_what_is_no_pair_is_refused(tmp_path, capsys, outputs, fault):
    project = make_book(tmp_path, outputs)
    assert book.main(["--root", str(project.root), "html"]) == 1
    assert capsys.readouterr().err == f"one, cell 4: tagged before-after, but {fault}\n"


@pytest.mark.parametrize("alts", [None, "one text", ["one text"], ["one text", 2]])
def test_each_picture_needs_a_description(alts):
    png = base64.b64decode(drawn(0).data["image/png"])
    assert pairs.lacking([png, png], alts) == "mystnb.image.alt is not a list of two texts"
