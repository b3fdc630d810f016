import numpy as np
import polars as pl
import pytest

from analyze.config import AnalyzeConfig
from analyze.features import table as module
from analyze.features.described import Sums, describe
from analyze.features.shown import shown_firings
from analyze.features.table import contexts_table, features_table
from analyze.subject import open_subject
from analyze.sweep.gather import gather

MIRRORS = pl.DataFrame(
    {"feature_a": [0], "feature_b": [5], "jaccard": [0.75], "correlation": [0.6]}
)
NUMBERS = np.array([5, 2, 0, 1])


@pytest.fixture(scope="module")
def subject(known_store, dfc_folder):
    return open_subject(known_store, dfc_folder)


@pytest.fixture(scope="module")
def sums(subject):
    found = Sums.of(subject, AnalyzeConfig(contexts=3))
    gather(subject, found.accumulators, 64)
    return found


@pytest.fixture(scope="module")
def table(subject, sums):
    return features_table(subject.dictionary, sums.firing, NUMBERS, MIRRORS)


@pytest.fixture(scope="module")
def shown(sums):
    return shown_firings(sums.firing, sums.top, sums.sample, NUMBERS)


@pytest.fixture(scope="module")
def contexts(subject, sums, shown):
    return contexts_table(subject, sums.firing, shown, 4, 64)


def test_features_come_in_the_order_asked_for_with_their_group_and_mirror(table):
    assert table["feature"].to_list() == NUMBERS.tolist()
    assert table["group"].to_list() == ["b", "shared", "a", "a"]
    assert table["claimed_for"].to_list()[::2] == ["b", "a"]
    assert table["mirror"].to_list() == [0, None, 5, None]
    assert table["mirror_jaccard"].to_list() == [0.75, None, 0.75, None]


def test_numbers_are_those_of_the_rows(table, subject, known_store):
    words = [known_store.documents.text(d).split(" ") for d in range(60)]
    fires = sum(word == "only_a" for text in words for word in text)
    line = table.row(by_predicate=pl.col("feature") == 0, named=True)
    assert line["fires"] == fires
    assert line["density"] == fires / known_store.rows
    assert (line["share_german"], line["share_prose"]) == (1, 0)
    quantiles = [line[f"activation_{name}"] for name in ("q10", "q50", "q90", "q99", "max")]
    assert 1 <= quantiles[0] < quantiles[1] < quantiles[2] <= quantiles[3] <= quantiles[4] <= 2


def test_a_feature_that_never_fires_has_no_quantiles_and_no_contexts(table, contexts):
    silent = table.row(by_predicate=pl.col("feature") == 1, named=True)
    assert silent["fires"] == 0
    assert silent["activation_q50"] is None
    assert contexts.filter(feature=1).is_empty()


def test_contexts_carry_their_pieces_the_peak_and_the_exact_text(contexts, known_store):
    documents = known_store.column("document")
    for line in contexts.iter_rows(named=True):
        assert "".join(line["pieces"]) == line["text"]
        assert line["text"] in known_store.documents.text(line["document"])
        assert len(line["pieces"]) == len(line["strengths"])
        word = line["pieces"][line["peak"]].strip()
        expected = {5: ("only_b", "<script>alert(1)</script>"), 2: ("shared0",), 0: ("only_a",)}
        assert word in expected[line["feature"]]
        assert line["document"] == documents[line["row"]]
        assert line["label"] == ("prose", "german", "code")[line["document"] % 3]


def test_strengths_are_shares_of_the_features_largest_activation(contexts, table):
    largest = dict(zip(table["feature"], table["activation_max"], strict=True))
    for line in contexts.iter_rows(named=True):
        peak = line["strengths"][line["peak"]]
        assert peak == pytest.approx(line["activation"] / largest[line["feature"]], rel=1e-6)
        assert 0 <= min(line["strengths"]) <= max(line["strengths"]) <= 1
    first = contexts.group_by("feature", maintain_order=True).first()
    assert [s[p] for s, p in zip(first["strengths"], first["peak"], strict=True)] == [1, 1, 1]


def test_contexts_read_in_blocks_are_the_same(subject, sums, shown, contexts, monkeypatch):
    monkeypatch.setattr(module, "CONTEXTS_AT_ONCE", 2)
    parts = contexts_table(subject, sums.firing, shown, 4, 64)
    assert parts.equals(contexts)


def test_half_a_character_in_a_text_does_not_keep_the_table_from_being_written(
    subject, sums, shown, tmp_path, monkeypatch
):
    plain = subject.store.documents.text
    monkeypatch.setattr(subject.store.documents, "text", lambda d: plain(d).replace("r", "\ud83d"))
    table = contexts_table(subject, sums.firing, shown, 4, 64)
    table.write_parquet(tmp_path / "contexts.parquet")
    assert "sha\ufffded0" in "".join(pl.read_parquet(tmp_path / "contexts.parquet")["text"])


def test_no_features_make_empty_tables_with_all_their_columns(subject, sums, table, contexts):
    none = np.zeros(0, np.int64)
    found = describe(subject, sums, none, AnalyzeConfig(), None)
    assert found.features.columns == table.columns
    assert found.contexts.schema == contexts.schema
    assert found.features.is_empty()
    assert found.contexts.is_empty()
    assert found.neighbours.is_empty()
