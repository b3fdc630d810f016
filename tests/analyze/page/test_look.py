"""How the page is laid out: narrow, dark, on paper."""

import pytest


@pytest.fixture
def file(maker, judged_tables):
    return maker.page(**judged_tables)


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
@pytest.mark.parametrize("hash", ["", "#feature-5"])
def test_nothing_is_wider_than_the_window(file, browser, width, hash):
    page = browser.page(file, width, 800, hash=hash)
    page.settle()
    for element in ("document.documentElement", "document.getElementById('detail')"):
        assert page.run(f"{element}.scrollWidth") <= width
    page.close()


def test_on_a_phone_rows_are_cards_with_the_names_of_their_values(file, browser):
    page = browser.page(file, 390, 800)
    assert page.run("getComputedStyle(document.querySelector('#table tbody tr')).display") == "grid"
    name = "getComputedStyle(document.querySelector('td[data-name=q]'), '::before').content"
    assert page.run(name) == '"q"'
    page.close()


def _lightness(page, property, selector):
    color = page.run(f"getComputedStyle(document.querySelector('{selector}')).{property}")
    return sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(","))


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_in_the_light_and_in_the_dark(file, browser, dark):
    page = browser.page(file, dark=dark)
    ink, paper = (
        _lightness(page, "color", "body"),
        _lightness(page, "backgroundColor", "main section"),
    )
    assert (ink > paper) == dark
    assert abs(ink - paper) > 500
    page.close()


def test_on_paper_an_opened_feature_stands_alone_and_controls_are_gone(file, browser):
    page = browser.page(file, hash="#feature-5")
    page.call("Emulation.setEmulatedMedia", media="print")
    page.settle()
    assert page.run("getComputedStyle(document.getElementById('page')).display") == "none"
    assert page.run("getComputedStyle(document.getElementById('detail')).position") == "static"
    page.press("Escape")
    assert page.run("getComputedStyle(document.getElementById('controls')).display") == "none"
    page.close()
