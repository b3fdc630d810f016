"""The page as a browser sees it: rendered by headless Chromium, then read from its DOM."""

import html.parser
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _chromium() -> str:
    for name in (os.environ.get("CHROMIUM", ""), *BROWSERS):
        found = shutil.which(name) if name else None
        if found:
            return found
    pytest.fail("no Chromium found: install it, or name one in CHROMIUM")


def _rendered(page, profile) -> str:
    """The DOM after scripts ran."""
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]
    command = [_chromium(), *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


class _Elements(html.parser.HTMLParser):
    """Collects the text inside every element that has an id or a class of interest."""

    def __init__(self) -> None:
        super().__init__()
        self.features: list[tuple[str, str]] = []
        self.contexts: list[str] = []
        self.peaks: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        classes = (values.get("class") or "").split()
        kind = next((name for name in ("context", "peak", "tag") if name in classes), "")
        if tag in ("div", "span"):
            self._open.append(kind)
        if "feature" in classes:
            self.features.append((values["data-model"], values["id"]))
        if kind == "context":
            self.contexts.append("")
        if kind == "peak":
            self.peaks.append("")

    def handle_endtag(self, tag):
        if tag in ("div", "span"):
            self._open.pop()

    def handle_data(self, data):
        if "context" in self._open and "tag" not in self._open:
            self.contexts[-1] += data
        if "peak" in self._open:
            self.peaks[-1] += data


@pytest.fixture(scope="module")
def run_folder(known_store, dfc_folder, crosscoder_folder, tmp_path_factory):
    """What `analyze report` writes, run as a user runs it."""
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


@pytest.fixture(scope="module")
def dom(run_folder, tmp_path_factory):
    return _rendered(run_folder / "report.html", tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def elements(dom):
    parser = _Elements()
    parser.feed(dom)
    return parser


def test_browser_finds_the_exclusive_features_of_both_models_the_seconds_first(elements):
    assert elements.features == [("b", "feature-5"), ("a", "feature-0")]


def test_contexts_highlight_the_word_on_which_the_feature_fires(elements):
    peaks = {peak.strip() for peak in elements.peaks}
    assert "only_a" in peaks
    assert peaks <= {"only_a", "only_b", "<script>alert(1)</script>"}


def test_text_of_the_corpus_is_shown_and_never_run(elements, run_folder):
    assert any("<script>alert(1)</script>" in context for context in elements.contexts)
    assert "<script>alert(1)" not in (run_folder / "report.html").read_text()


def test_histogram_is_drawn_by_the_page_itself(dom):
    assert 'class="main-svg"' in dom


def test_page_loads_nothing_from_elsewhere(run_folder):
    page = (run_folder / "report.html").read_text()
    loads = re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)\s*=", page)
    assert loads == []


def test_page_states_health_and_the_planted_table(dom):
    assert re.search(r"<b>1\.000</b>FVE a", dom)
    assert "1 of 1" in dom


def test_printed_json_is_the_summary_that_is_written(run_folder):
    printed = json.loads((run_folder / "stdout.json").read_text())
    assert printed == json.loads((run_folder / "summary.json").read_text())
    assert printed["planted"]["crosscoder_b"] >= 1


def test_tables_of_the_baseline_lie_beside_those_of_the_main_dictionary(run_folder):
    names = {"norms.parquet", "norms.csv", "norms.png", "norms.html"}
    main = run_folder / "analysis"
    assert names <= {file.name for file in main.iterdir()}
    assert names == {file.name for file in (main / "dictionary-batch_topk_crosscoder").iterdir()}
