"""A page of two thousand features with many contexts each: how large, how heavy, how fast."""

import polars as pl
import pytest
import torch

from analyze.tables import Tables
from train.dictionary.artifact import save_dictionary
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import dedicated

from .conftest import CONFIG, maker_of

FEATURES, SHOWN, CONTEXTS, PIECES = 2500, 2000, 24, 49


@pytest.fixture(scope="module")
def page(known_store, tmp_path_factory, browser):
    folder = tmp_path_factory.mktemp("large")
    shapes = (HookpointShape("a.mid.out", "a", 6), HookpointShape("b.mid.out", "b", 8))
    torch.manual_seed(0)
    dictionary = Crosscoder(shapes, dedicated(("a", "b"), FEATURES, {"a": 0.05, "b": 0.05}))
    for weights in (*dictionary.W_enc.values(), *dictionary.W_dec.values()):
        torch.nn.init.normal_(weights)
    save_dictionary(folder / "dictionary", dictionary, {"recipe": "dfc"})
    maker = maker_of(known_store, folder / "dictionary", folder)
    _write(maker.tables())
    opened = browser.page(maker.page())
    opened.settle(100)
    yield opened, maker.folder / "report.html"
    opened.close()


def _write(tables: Tables) -> None:
    count = FEATURES * CONTEXTS
    words = [[f" word{n % 7}" for n in range(PIECES)]]
    strengths = [[0.3 if n % 9 == 0 else 0.0 for n in range(PIECES)]]
    features = pl.Series([f for f in range(FEATURES) for _ in range(CONTEXTS)])
    contexts = pl.DataFrame(
        {
            "feature": features,
            "band": ["top"] * count,
            "rank": [n % CONTEXTS for n in range(count)],
            "document": [n % 60 for n in range(count)],
            "label": ["code"] * count,
            "activation": [1.0] * count,
            "pieces": words * count,
            "strengths": strengths * count,
            "peak": [27] * count,
        }
    )
    tables.write("contexts", contexts)
    numbers = pl.Series([f / FEATURES for f in range(FEATURES)])
    tables.write("transfer", pl.DataFrame({"feature": range(FEATURES), "readout_ratio": numbers}))
    scaling = {"feature": range(FEATURES), "direction": numbers, "null_direction": numbers}
    tables.write("scaling", pl.DataFrame(scaling))


def test_page_is_bounded_in_bytes_and_in_nodes(page):
    opened, file = page
    assert file.stat().st_size < 25_000_000
    assert opened.run("document.querySelectorAll('*').length") < 20_000
    timing = "performance.getEntriesByType('navigation')[0]"
    load = opened.run(f"{timing}.loadEventEnd")
    print(f"\n{file.stat().st_size / 1e6:.1f} MB, loaded after {load:.0f} ms")


def test_page_shows_as_many_features_as_were_asked_for(page):
    opened, _ = page
    assert opened.text("#count") == "2,000 features of 2,000 on this page"
    assert CONFIG.report_features == SHOWN
    assert opened.text("#place") == "page 1 of 40"
    assert opened.run("document.querySelectorAll('#scatter-ratio circle').length") == SHOWN


def test_pages_are_turned_by_buttons_and_by_keys(page):
    opened, _ = page
    opened.click("#next")
    assert opened.text("#place") == "page 2 of 40"
    opened.click("#previous")
    opened.press("j", "End")
    assert opened.text("#place") == "page 40 of 40"
    opened.press("Home")
    assert opened.text("#place") == "page 1 of 40"


def test_search_reaches_every_feature(page):
    opened, _ = page
    opened.choose("#query", "word6 word0")
    assert opened.text("#count") == "2,000 features of 2,000 on this page"
    opened.choose("#query", "word6 word1")
    assert opened.text("#count") == "0 features of 2,000 on this page"
    opened.click("#reset")
