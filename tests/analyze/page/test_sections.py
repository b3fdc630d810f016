"""Sections of the page that tables of other commands fill."""

import pytest

from analyze.page.overview import overview

from .conftest import maker_of

FIDELITY = [
    {"model": model, "label": label, "loss_recovered": value, "ce_clean": 2.0}
    for model, label, value in (("a", "all", 0.5), ("b", "all", 0.75), ("b", "code", 0.25))
]
REPLACE = [
    {"set": name, "ranking": "q", "features": 3, "kl": kl, "ce": 1.0, "positions": 64}
    for name, kl in (("best", 0.25), ("worst", 0.5))
]
STEER = [
    {"feature": 5, "steered": model, "mapped": model == "a", "alpha": alpha}
    | {"kl_firing": alpha**2, "kl_silent": 0.0, "kl_random_firing": 0.1, "kl_random_silent": None}
    | {"steerable": model == "b", "positions_firing": 7, "positions_silent": None}
    | {"top1_changed_firing": 0.5, "top1_changed_silent": 0.0}
    for model in ("b", "a")
    for alpha in (-1.0, 0.0, 1.0)
]
NEIGHBOURS = [{"feature": 5, "model": "b", "rank": 0, "neighbour": 2, "cosine": 0.5}]
SCALING = [{"feature": f, "direction": 0.1 * f, "null_direction": 0.05} for f in (0, 2, 3, 5)]
TRANSFER = [{"feature": f, "readout_ratio": 0.1 * f} for f in (0, 2, 3, 5)]


def _overview(maker, tables, fdr=0.05):
    made = maker.tables(**tables)
    return overview(maker.analysis, made.read("exclusivity"), made.read("fidelity"), fdr)


def test_found_features_are_counted_per_model_with_those_that_were_tested(maker, judged_tables):
    second, first = _overview(maker, judged_tables).found
    assert (second.model, second.count, second.of, second.untested) == ("b", 1, 1, 1)
    assert (first.model, first.count, first.of, first.untested) == ("a", 1, 1, 1)


def test_the_rate_is_that_at_which_features_were_called(maker, judged_tables):
    assert _overview(maker, judged_tables, fdr=0.05).fdr == 0.05
    assert _overview(maker, judged_tables, fdr=0.001).fdr == 0.02


def test_without_verdicts_there_are_claims_with_their_rule(maker):
    found = _overview(maker, {})
    assert not found.judged
    assert [(one.model, one.count) for one in found.found] == [("b", 1), ("a", 1)]
    assert found.found[0].rule == "exclusive group, by summed activation"


@pytest.fixture(scope="module")
def page(known_store, dfc_folder, judged_tables, tmp_path_factory, browser):
    maker = maker_of(known_store, dfc_folder, tmp_path_factory.mktemp("sections"))
    tables = {"fidelity": FIDELITY, "replace": REPLACE, "steer": STEER, "neighbours": NEIGHBOURS}
    tables |= {"scaling": SCALING, "transfer": TRANSFER}
    opened = browser.page(maker.page(**judged_tables, **tables), hash="#feature-5")
    opened.settle()
    yield opened
    assert opened.complaints() == []
    opened.close()


def test_exclusive_is_explained_with_the_rate_and_its_null(page):
    assert page.text("#overview h2") == "What was found"
    said = " ".join(page.text("#overview").split())
    assert "features of b exclusive at a false-discovery rate of 5% of 1 tested" in said
    assert "no linear counterpart in the other model's activations" in said
    assert "rotated copy of itself" in said


def test_a_rate_that_is_not_calibrated_is_said_beside_it(maker, judged_tables, monkeypatch):
    assert _overview(maker, judged_tables).caution is None
    plain = maker.page(**judged_tables).read_text()
    monkeypatch.setattr("analyze.page.overview.caution", lambda dictionary: "known to be <worse>")
    page = maker.page(**judged_tables).read_text()
    assert "<strong>Caution:</strong>" not in plain
    assert "<strong>Caution:</strong> known to be &lt;worse&gt;." in page


def test_loss_recovered_stands_above_and_by_label_below(page):
    assert "75.0%loss recovered, b" in page.texts(".tile")
    rows = ["".join(row.split()) for row in page.texts("#causal table.fidelity tbody tr")]
    assert [row.split("–")[0] for row in rows] == ["aall0.500", "ball0.750", "bcode0.250"]


def test_replacement_sets_are_listed_with_bars_of_their_kl(page):
    assert page.texts("#replaced tbody th") == ["best", "worst"]
    widths = "[...document.querySelectorAll('#replaced rect')].map((e) => e.getAttribute('width'))"
    assert page.run(widths) == ["50.0", "100.0"]


def test_steering_draws_a_curve_per_model_and_kind_of_position(page):
    drawn = page.run(
        "[...document.querySelectorAll('#detail figure')]"
        ".map((figure) => figure.querySelectorAll('path:not([d=\"\"])').length)"
    )
    assert drawn == [3, 3]
    heads = page.texts("#detail figure h4")
    assert heads == ["b along its decoder", "a along the mapped direction"]
    assert "there is no direction to add" in page.texts("#detail figure")[1]


def test_nearest_features_lead_to_their_own_address(page):
    link = "document.querySelector('#detail a[href=\"#feature-2\"]')"
    assert page.run(f"{link}.textContent") == "feature 2"


def test_every_known_measure_has_a_chart_of_its_points_and_of_chance(page):
    for name in ("ratio", "direction"):  # four that fire, and two dead ones of which a table tells
        assert page.run(f"document.querySelectorAll('#scatter-{name} circle').length") == 6
    assert page.run("document.querySelectorAll('#scatter-direction .null').length") == 1
    assert page.run("document.querySelectorAll('#scatter-ratio .null').length") == 0
    assert page.run("document.querySelectorAll('#scatter-ratio .ringed').length") == 2


def test_a_point_of_a_chart_opens_its_feature(page):
    page.press("Escape")
    page.click("#scatter-ratio circle")
    opened = page.text("#detail h2")
    assert opened.startswith("Feature ")
    assert page.run("location.hash") == "#feature-" + opened.split()[1].rstrip("abexclusiv")


def test_what_has_been_made_is_not_called_missing(page):
    told = " ".join(page.texts("main .missing"))
    assert "analyze scaling" not in told
    assert "analyze fidelity" not in told
