"""A browser for the session, and pages made of the known store and of tables written by hand."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from analyze.analysis import Analysis, analyze
from analyze.config import AnalyzeConfig
from analyze.report import write_report
from analyze.subject import open_subject
from analyze.tables import Tables
from store.reader import Store

from .browser import Browser

CONFIG = AnalyzeConfig(device="cpu", min_fires=1, planted={"a": "german", "b": "code"})


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium; pages of a test are closed by the test."""
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@dataclass(frozen=True)
class Maker:
    """Writes pages of one analysis, with the tables that are given."""

    analysis: Analysis
    folder: Path

    def tables(self, **tables: list[dict]) -> Tables:
        """Tables of this analysis's subject."""
        made = Tables(self.folder / "analysis", self.analysis.subject.fingerprint)
        for name, lines in tables.items():
            made.write(name, pl.DataFrame(lines, infer_schema_length=None))
        return made

    def page(self, config: AnalyzeConfig = CONFIG, raw_config=None, **tables: list[dict]) -> Path:
        """The page with these tables and no others."""
        file = self.folder / "report.html"
        made = self.tables(**tables)
        write_report(self.analysis, [], made, {"known": True}, config, raw_config or {}, file)
        return file


@pytest.fixture
def maker(known_store, dfc_folder, tmp_path):
    """Of the known store and the dictionary that decodes it."""
    return maker_of(known_store, dfc_folder, tmp_path)


def maker_of(store: Store, dictionary: Path, folder: Path, config: AnalyzeConfig = CONFIG) -> Maker:
    """An analysis without a sweep on disk."""
    return Maker(analyze(open_subject(store, dictionary, "cpu"), config), folder)


@pytest.fixture(scope="module")
def judged_tables():
    """Tables of the seven known features: 0 and 1 of a alone, 5 and 6 of b alone."""
    verdicts = {0: "exclusive", 1: "too rare", 5: "exclusive", 6: "too rare"}
    p = {0: 0.02, 5: 0.01}
    owner = {0: "a", 1: "a", 5: "b", 6: "b"}
    exclusivity = [
        {
            "feature": feature,
            "claimed_for": owner[feature],
            "group": owner[feature],
            "verdict": verdict,
            "p": p.get(feature),
            "q": p.get(feature),
            "reason": f"because of {feature}",
            "readout_ratio": 0.1 * feature + 0.05,
            "p_readout_ratio": p.get(feature),
            "direction": 0.2,
        }
        for feature, verdict in verdicts.items()
    ]
    pieces = {0: ["one ", "only_a", " two"], 2: ["shared0", " needle ", "hay"], 5: ["only_b", "!"]}
    contexts = [
        {
            "feature": feature,
            "band": band,
            "rank": rank,
            "document": rank,
            "label": "code",
            "row": rank,
            "activation": 1.5 - rank,
            "pieces": words,
            "strengths": [0.0] * (len(words) - 1) + [1.0],
            "peak": len(words) - 1,
        }
        for feature, words in pieces.items()
        for rank, band in enumerate(["top", "50-75%"])
    ]
    return {"exclusivity": exclusivity, "contexts": contexts}
