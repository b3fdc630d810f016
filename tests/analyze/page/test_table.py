"""The table of features under a user's hands: clicks, keys, typing, addresses."""

import pytest


@pytest.fixture
def page(maker, judged_tables, browser):
    opened = browser.page(maker.page(**judged_tables))
    yield opened
    assert opened.complaints() == []
    opened.close()


def _features(page):
    return [int(text) for text in page.texts("#table tbody tr td:first-child")]


def _heads(page):
    return page.texts("#table thead th")


def _opened(page):
    return None if page.run("document.getElementById('detail').hidden") else page.text("#detail h2")


def _active(page):
    return page.run("document.activeElement.dataset.feature ?? document.activeElement.id")


def test_found_features_come_first_by_q_and_dead_ones_last(page):
    assert _features(page) == [5, 0, 2, 3, 1, 6, 4]


def test_columns_of_which_nothing_is_known_are_left_out(page):
    assert "q" in _heads(page)
    assert "promotes" not in _heads(page)


@pytest.mark.parametrize(
    ("column", "ascending"),
    [("number", [0, 1, 2, 3, 4, 5, 6]), ("ratio", [0, 1, 5, 6]), ("q", [5, 0])],
)
def test_a_click_on_a_heading_sorts_and_another_turns_it_round(page, column, ascending):
    def known():
        return _features(page)[: len(ascending)]

    page.click(f"th[data-key={column}] button")
    assert known() == ascending
    assert page.run(f"document.querySelector('th[data-key={column}]').ariaSort") == "ascending"
    page.click(f"th[data-key={column}] button")
    assert known() == ascending[::-1]
    assert page.run(f"document.querySelector('th[data-key={column}]').ariaSort") == "descending"


@pytest.mark.parametrize(
    ("control", "value", "left"),
    [
        ("#by-model", "a", {0, 1}),
        ("#by-verdict", "exclusive", {0, 5}),
        ("#by-group", "b", {5, 6}),
        ("#by-label", "1", {0}),
    ],
)
def test_filters_leave_what_was_chosen_and_reset_brings_all_back(page, control, value, left):
    page.choose(control, value)
    found = set(_features(page))
    assert found >= left
    assert found <= left | {2, 3, 4}
    assert f"{len(found)} feature" in page.text("#count")
    page.click("#reset")
    assert set(_features(page)) == set(range(7))


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("NEEDLE HAY", {2}),
        ("only_b!", {5}),
        ("feature 3", {3}),
        ("german", {0}),
        ("nowhere", set()),
    ],
)
def test_search_looks_through_contexts_numbers_and_labels_in_any_case(page, query, left):
    page.choose("#query", query)
    assert left <= set(_features(page))
    assert query == "german" or set(_features(page)) == left


def test_search_shows_the_place_that_it_found(page):
    page.choose("#query", "needle")
    assert page.texts("#table mark") == ["needle"]


def test_filters_and_search_hold_together(page):
    page.choose("#by-verdict", "exclusive")
    page.choose("#query", "only_a")
    assert _features(page) == [0]


def test_slash_goes_to_the_search_and_arrow_down_from_it_to_the_rows(page):
    page.press("/")
    assert _active(page) == "query"
    page.press("5", "ArrowDown")
    assert _active(page) == "5"
    page.press("/", "Escape")
    assert page.run("document.getElementById('query').value") == ""
    page.press("Escape")
    assert _active(page) != "query"


def test_keys_move_through_the_rows_and_stop_at_the_ends(page):
    page.press("j")
    assert _active(page) == "0"
    page.press("j", "ArrowDown", "ArrowUp", "k", "k", "k", "k")
    assert _active(page) == "5"
    page.press("End")
    assert _active(page) == "4"
    page.press("j", "Home")
    assert _active(page) == "5"


def test_one_row_alone_is_reached_by_tab(page):
    page.press("j")
    assert page.run("document.querySelectorAll('#table tr[tabindex=\"0\"]').length") == 1


def test_enter_opens_the_row_and_escape_goes_back_to_it(page):
    page.press("j", "Enter")
    assert _opened(page).startswith("Feature 0")
    assert page.run("location.hash") == "#feature-0"
    assert page.run("document.getElementById('page').inert")
    page.press("j")
    assert _opened(page).startswith("Feature 2")
    page.press("k", "k")
    assert _opened(page).startswith("Feature 5")
    page.press("Escape")
    assert _opened(page) is None
    assert page.run("location.hash") == ""
    assert _active(page) == "5"


def test_a_click_on_a_row_opens_it_and_the_button_closes_it(page):
    page.click('tr[data-feature="2"] td:nth-child(5)')
    assert _opened(page).startswith("Feature 2")
    page.click("#detail button[aria-label=Close]")
    assert _opened(page) is None


def test_keys_typed_into_the_search_move_nothing(page):
    page.press("/", "j", "k")
    assert page.run("document.getElementById('query').value") == "jk"
    assert _opened(page) is None


def test_going_back_closes_what_was_opened(page):
    page.press("j", "Enter")
    page.run("history.back()")
    page.settle(200)
    assert _opened(page) is None


def test_an_address_with_a_feature_opens_it(maker, judged_tables, browser):
    page = browser.page(maker.page(**judged_tables), hash="#feature-5")
    page.settle()
    assert _opened(page).startswith("Feature 5")
    assert "because of 5" in page.text("#detail")
    page.close()


def test_an_address_of_a_feature_that_is_not_there_says_so(maker, judged_tables, browser):
    page = browser.page(maker.page(**judged_tables), hash="#feature-77")
    page.settle()
    assert "Feature 77 is not among the 7 of 7" in page.text("#detail")
    page.press("Escape")
    assert _opened(page) is None
    page.close()
