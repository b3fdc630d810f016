"""The page of an analysis without further tables, and `analyze report`, run as a user runs it."""

import json
import re
import subprocess
import sys

import pytest

from .conftest import CONFIG, maker_of


@pytest.fixture(scope="module")
def file(known_store, dfc_folder, tmp_path_factory):
    """The page of nothing but the analysis."""
    maker = maker_of(known_store, dfc_folder, tmp_path_factory.mktemp("alone"))
    return maker.page(CONFIG, {"analyze": {"planted": CONFIG.planted}})


@pytest.fixture(scope="module")
def page(file, browser):
    opened = browser.page(file)
    yield opened
    opened.close()


def test_title_asks_what_the_second_model_has(page):
    assert page.text("h1") == "What does b represent that a does not?"


def test_claims_come_first_the_seconds_before_the_firsts(page):
    assert page.texts("#table tbody tr td:first-child")[:2] == ["5", "0"]
    assert page.texts("#table tbody tr td:nth-child(2)")[:2] == ["b", "a"]


def test_claims_are_called_claims_where_nothing_has_been_tested(page):
    assert page.text("#overview h2") == "Where to look: claims, not verdicts"
    assert page.texts("#table tbody .chip") == ["claim", "claim"]
    assert page.texts(".tile.big b") == ["1", "1"]


def test_contexts_outline_the_word_on_which_the_feature_fires(page):
    peaks = set()
    for feature in (0, 5):
        page.run(f"location.hash = 'feature-{feature}'")
        page.settle()
        peaks |= {peak.strip() for peak in page.texts("#detail .peak")}
    page.run("location.hash = ''")
    page.settle()
    assert "only_a" in peaks
    assert peaks <= {"only_a", "only_b", "<script>alert(1)</script>"}


def test_text_of_the_corpus_is_shown_and_never_run(page, file):
    page.run("location.hash = 'feature-5'")
    page.settle()
    shown = " ".join(page.texts("#detail .context .text"))
    page.run("location.hash = ''")
    page.settle()
    assert "<script>alert(1)</script>" in shown
    assert "<script>alert(1)" not in file.read_text()


def test_histogram_of_norms_is_drawn_with_a_bar_per_group(page):
    bars = page.run(
        "[...document.querySelectorAll('#norms-chart rect')].map((e) => e.getAttribute('class'))"
    )
    assert sorted(bars) == ["fill-a", "fill-b", "fill-n0"]


def test_page_loads_nothing_from_elsewhere(page, file):
    text = file.read_text()
    assert re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)\s*=", text) == []
    asked = {event["request"]["url"] for event in page.said("Network.requestWillBeSent")}
    assert asked == {file.as_uri()}


def test_browser_has_nothing_to_complain_of(page):
    assert page.complaints() == []


def test_page_states_health_and_the_planted_table(page):
    assert "1.000FVE b" in page.texts(".tile")
    assert page.texts("#planted-counts tbody tr:first-child td")[:2] == ["1 of 1", "1 of 1"]


def test_page_says_which_command_makes_what_is_missing(page):
    told = " ".join(page.texts(".missing"))
    for command in ("analyze scaling", "analyze transfer", "analyze fidelity", "analyze steer"):
        assert command in told


def test_page_says_how_it_was_made(page, known_store):
    made = page.text("#made")
    assert f"analyze report --store {known_store.path}" in made
    assert "planted:" in made
    assert '"recipe": "dfc"' in made
    assert "crossdiff 0" in made


@pytest.fixture(scope="module")
def run_folder(known_store, dfc_folder, crosscoder_folder, tmp_path_factory):
    """What `analyze report` writes."""
    root = tmp_path_factory.mktemp("report")
    command = [sys.executable, "-m", "analyze", "report"]
    command += ["--store", str(known_store.path), "--dictionary", str(dfc_folder)]
    command += ["--baseline", str(crosscoder_folder), "--out", str(root), "--json"]
    command += ["--set", "analyze.min_fires=1"]
    command += ["--set", "analyze.planted.a=german", "--set", "analyze.planted.b=code"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    (root / "stdout.json").write_text(done.stdout)
    return root


def test_command_writes_a_page_with_its_baselines_that_a_browser_shows(run_folder, browser):
    page = browser.page(run_folder / "report.html")
    assert page.texts("#planted-counts tbody th") == ["dfc", "batch_topk_crosscoder"]
    assert set(page.texts("#table tbody tr td:first-child")) == set("0123456")
    assert page.complaints() == []
    page.close()


def test_printed_json_is_the_summary_that_is_written(run_folder):
    printed = json.loads((run_folder / "stdout.json").read_text())
    assert printed == json.loads((run_folder / "summary.json").read_text())
    assert printed["planted"]["crosscoder_b"] >= 1


def test_tables_of_the_baseline_lie_beside_those_of_the_main_dictionary(run_folder):
    names = {"norms.parquet", "norms.csv", "norms.png", "norms.html"}
    main = run_folder / "analysis"
    beside = main / "dictionary-batch_topk_crosscoder"
    assert names <= {file.name for file in main.iterdir()}
    assert names <= {file.name for file in beside.iterdir()}
