"""One table for notebooks: every table's lines of a feature in its row."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from analyze.export.columns import describe_columns
from analyze.export.notebook import feature_table, write_parquet
from analyze.tables import Tables
from pipeline.errors import ConfigError

EVERY = np.arange(20)


@pytest.fixture
def tables(tmp_path):
    found = Tables(tmp_path / "analysis", "this")
    found.write(
        "norms",
        pl.DataFrame(
            {
                "feature": EVERY,
                "group": ["a"] * 4 + ["shared"] * 11 + ["b"] * 5,
                "relative_decoder_norm": np.linspace(1, 0, 20),
                "fires": EVERY * 10,
                "share_x y": 0.5,
            }
        ),
    )
    return found


@pytest.fixture
def dictionary(uneven_subject):
    return uneven_subject.dictionary


def test_a_row_per_feature_with_what_each_table_says_of_it(tables, dictionary):
    few = [0, 3, 19]
    tables.write(
        "features",
        pl.DataFrame(
            {"feature": [3, 19], "claimed_for": ["a", "b"], "fires": [1, 1], "mirror": [19, 3]}
        ),
    )
    tables.write(
        "exclusivity",
        pl.DataFrame(
            {
                "feature": few,
                "claimed_for": ["a", "a", "b"],
                "verdict": ["too rare", "exclusive", "not shown"],
                "q": [None, 0.01, 0.4],
            }
        ),
    )
    found = feature_table(dictionary, tables, EVERY)
    assert found["feature"].to_list() == EVERY.tolist()
    row = found.row(3, named=True)
    assert row["fires"] == 30  # of norms: the first that has it
    assert row["mirror"] == 19
    assert row["claimed_for"] == "a"
    assert row["exclusivity_verdict"] == "exclusive"
    assert found["exclusivity_q"].to_list()[:4] == [None, None, None, 0.01]
    assert found.row(7, named=True)["exclusivity_verdict"] is None


def test_several_lines_of_a_feature_become_lists(tables, dictionary):
    tables.write(
        "scaling",
        pl.DataFrame(
            {
                "feature": [1, 1, 2],
                "group": ["a"] * 3,
                "claimed_for": ["a"] * 3,
                "other_hookpoint": ["b.0", "b.1", "b.0"],
                "nu_eps": [0.1, None, 0.3],
            }
        ),
    )
    found = feature_table(dictionary, tables, EVERY)
    assert found["scaling_nu_eps"].to_list()[:3] == [None, [0.1, None], [0.3]]
    assert found["claimed_for"].to_list()[:3] == [None, "a", "a"]


def test_lists_of_tokens_neighbours_and_mirrors_are_nested_in_their_order(tables, dictionary):
    tables.write(
        "tokens",
        pl.DataFrame(
            {
                "feature": [5, 5, 5, 6],
                "model": ["a", "a", "b", "b"],
                "promoted": [True, True, False, True],
                "rank": [1, 0, 0, 0],
                "token": ["second", "first", "<b>", "x"],
                "logit": [1.0, 2.0, -3.0, 4.0],
            }
        ),
    )
    tables.write(
        "neighbours",
        pl.DataFrame(
            {
                "feature": [5, 5],
                "model": ["a", "a"],
                "rank": [0, 1],
                "neighbour": [6, 7],
                "cosine": [0.9, 0.8],
            }
        ),
    )
    tables.write(
        "mirrors",
        pl.DataFrame(
            {
                "feature_a": [1, 2],
                "feature_b": [17, 17],
                "fires_a": [3, 3],
                "fires_b": [4, 4],
                "both": [2, 3],
                "jaccard": [0.4, 0.75],
                "correlation": [0.3, 0.7],
            }
        ),
    )
    found = feature_table(dictionary, tables, EVERY)
    five = found.row(5, named=True)
    assert [t["token"] for t in five["tokens_promoted_a"]] == ["first", "second"]
    assert five["tokens_suppressed_b"] == [{"token": "<b>", "logit": -3.0}]
    assert five["tokens_promoted_b"] is None
    assert [n["neighbour"] for n in five["neighbours_a"]] == [6, 7]
    assert [m["feature"] for m in found.row(17, named=True)["mirrors"]] == [2, 1]
    assert [m["feature"] for m in found.row(2, named=True)["mirrors"]] == [17]


def test_steering_is_summarised_by_its_largest_effect(tables, dictionary):
    generator = np.random.default_rng(0)
    lines = [
        {
            "feature": feature,
            "claimed_for": "b",
            "steered": model,
            "alpha": alpha,
            **{
                f"{name}_{where}": generator.random()
                for name in ("kl", "top1_changed", "positions")
                for where in ("firing", "silent")
            },
        }
        for feature in (15, 16)
        for model in ("a", "b")
        for alpha in (-2.0, 2.0, 4.0)
    ]
    tables.write("steer", pl.DataFrame(lines))
    found = feature_table(dictionary, tables, EVERY)
    for feature in (15, 16):
        for model in ("a", "b"):
            own = [x for x in lines if (x["feature"], x["steered"]) == (feature, model)]
            row = found.row(feature, named=True)
            assert row[f"steer_kl_firing_{model}"] == max(x["kl_firing"] for x in own)
            assert row[f"steer_top1_silent_{model}"] == max(x["top1_changed_silent"] for x in own)
    assert found.row(0, named=True)["steer_kl_firing_a"] is None


def test_only_chosen_features_have_rows(tables, dictionary):
    assert feature_table(dictionary, tables, np.array([2, 18]))["feature"].to_list() == [2, 18]


def test_tables_of_another_dictionary_are_left_out(tables, dictionary):
    foreign = Tables(tables.folder, "another")
    foreign.write("exclusivity", pl.DataFrame({"feature": [1], "verdict": ["exclusive"]}))
    found = feature_table(dictionary, tables, EVERY)
    assert not [name for name in found.columns if name.startswith("exclusivity")]
    with pytest.raises(ConfigError, match="no table of this dictionary"):
        feature_table(dictionary, Tables(tables.folder, "third"), EVERY)


def test_the_file_is_read_by_pandas_and_polars_in_one_line_and_says_what_is_in_it(
    tables, dictionary, tmp_path
):
    texts = [["<b>", "日本", "\n"], [], ["\x00"]]
    contexts = pl.DataFrame(
        {"feature": [1, 1, 2], "pieces": texts, "strengths": [[0.0, 1.0, 0.5], [], [1.0]]},
        schema_overrides={"strengths": pl.List(pl.Float32)},
    )
    write_parquet(feature_table(dictionary, tables, EVERY), tmp_path / "new" / "all.parquet")
    write_parquet(contexts, tmp_path / "contexts.parquet")
    assert pd.read_parquet(tmp_path / "new" / "all.parquet").shape == (20, 5)
    read = pd.read_parquet(tmp_path / "contexts.parquet")
    assert [list(pieces) for pieces in read["pieces"]] == texts
    again = pl.read_parquet(tmp_path / "contexts.parquet")
    assert again["pieces"].to_list() == texts
    assert again["strengths"].dtype == pl.List(pl.Float32)
    metadata = pq.read_schema(tmp_path / "new" / "all.parquet").metadata
    meaning = json.loads(metadata[b"columns"])
    assert meaning["share_x y"] == "share of its firing on documents labelled x y"
    assert pl.read_parquet_metadata(tmp_path / "new" / "all.parquet")["columns"]


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    file = tmp_path / "all.parquet"
    write_parquet(pl.DataFrame({"feature": [1]}), file)

    def full(table, place, **_):
        place.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        write_parquet(pl.DataFrame({"feature": [2]}), file)
    assert pl.read_parquet(file)["feature"].to_list() == [1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["all.parquet"]


def test_every_column_has_a_line(tables, dictionary):
    lines = describe_columns(["decoder_norm_raw_a", "steer_kl_firing_b", "strange", "scaling_new"])
    assert lines["decoder_norm_raw_a"] == "decoder norm of a, in units of its activations"
    assert lines["steer_kl_firing_b"] == "largest KL by steering b, where the feature is firing"
    assert lines["strange"] == "column strange"
    assert lines["scaling_new"] == "column new of the table scaling"
