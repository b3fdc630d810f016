"""Explanations of features, asked of a server that answers as the tests tell it to."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyze.export import explain as module
from analyze.export.endpoint import Chat, Endpoint
from analyze.export.examples import evidence
from analyze.export.explain import (
    Explained,
    Limits,
    estimate,
    explain_all,
    plan_jobs,
    rates,
)
from analyze.export.explanations import explanations_table, read_explanations
from analyze.export.order import in_order
from analyze.export.silent import Window, draw_windows
from analyze.tables import Tables
from pipeline.errors import ConfigError
from store.sweep import read_range


def contexts_table(features, each: int = 9) -> pl.DataFrame:
    """`each` contexts per feature in two bands; the word `hit` is where it fires."""
    lines = [
        {
            "feature": feature,
            "band": "top" if n % 2 == 0 else "50-75%",
            "rank": n // 2,
            "document": 100 + n,
            "label": "x",
            "row": n,
            "activation": 10.0 - n,
            "pieces": [f"word{n} ", f"hit{feature} ", "more"],
            "strengths": [0.0, 1.0, 0.0],
            "peak": 1,
            "text": f"word{n} hit{feature} more",
        }
        for feature in features
        for n in range(each)
    ]
    return pl.DataFrame(lines, schema_overrides={"strengths": pl.List(pl.Float32)})


WINDOWS = [Window(f"silence {n}", np.array([7, 9]) if n < 3 else np.array([9])) for n in range(12)]


def knows(completion):
    """A model that explains by the marked word, and recognises it in texts."""

    def reply(body):
        text = body["messages"][1]["content"]
        if text.startswith("Description: "):
            word = re.match(r"Description: (\w+)", text)[1]
            lines = re.findall(r"Excerpt (\d+): (.*)", text)
            fitting = [int(number) for number, line in lines if word in line]
            return 200, completion(f"These: {fitting}")
        return 200, completion("EXPLANATION: " + re.search(r"<<(\w+)", text)[1])

    return reply


def run(stub, jobs, **changes) -> list[Explained]:
    fields = {"model_name": "tiny", "timeout": 5.0, "retries": 1} | changes
    chat = Chat(Endpoint(stub.url, **fields), lambda seconds: None)
    try:
        return sorted(explain_all(jobs, chat, "tiny", 3), key=lambda one: one.feature)
    finally:
        chat.close()


def jobs_of(features, known=None, windows=WINDOWS, limit=100):
    return plan_jobs(contexts_table(features), features, windows, known or {}, Limits(limit))


def test_every_third_context_is_held_back_of_all_bands_and_other_documents():
    (found,) = evidence(contexts_table([5]), [5], shown=12, held_back=5)
    texts = [example.text for example in (*found.shown, *found.held_back)]
    assert len(set(texts)) == 9
    assert len(found.held_back) == 3
    (few,) = evidence(contexts_table([5]), [5], shown=2, held_back=1)
    assert (len(few.shown), len(few.held_back)) == (2, 1)


def test_a_document_is_shown_once_however_many_bands_it_is_in():
    twice = contexts_table([5]).with_columns(document=pl.col("document") // 2)
    (found,) = evidence(twice, [5], shown=12, held_back=5)
    assert len(found.shown) + len(found.held_back) == 5


@pytest.mark.parametrize("of", ["own peak", "feature"])
def test_strengths_are_of_the_features_largest_whatever_they_were_of(of):
    table = contexts_table([5], each=2)
    if of == "feature":
        table = table.with_columns(
            strengths=pl.Series([[0.0, 1.0, 0.0], [0.0, 0.9, 0.0]], dtype=pl.List(pl.Float32))
        )
    (found,) = evidence(table, [5], shown=12, held_back=0)
    strongest = [max(example.strengths) for example in found.shown]
    assert strongest == pytest.approx([1.0, 0.9], rel=1e-6)


def test_features_are_explained_and_the_explanations_tested(serve, completion):
    stub = serve(knows(completion))
    found = run(stub, jobs_of([3, 7, 8]))
    assert [one.explanation for one in found] == ["hit3", "hit7", "hit8"]
    assert all(one.detection == one.sensitivity == one.specificity == 1.0 for one in found)
    assert [(one.shown, one.held_back, one.silent) for one in found] == [(6, 3, 3)] * 3
    assert all(one.model == "tiny" and one.error is None for one in found)
    assert len(stub.bodies) == 6
    told = [body["messages"][1]["content"] for body in stub.bodies]
    for feature in (3, 7, 8):  # what an explanation is tested on, it was not made from
        explaining = next(t for t in told if f"<<hit{feature}" in t)
        testing = next(t for t in told if t.startswith(f"Description: hit{feature}"))
        assert not set(re.findall(r"word\d", explaining)) & set(re.findall(r"word\d", testing))
        assert "<<" not in testing


def test_a_model_that_says_yes_to_all_is_at_chance(serve, completion):
    def reply(body):
        return 200, completion("[1,2,3,4,5,6]")

    (one,) = run(serve(reply), jobs_of([3]))
    assert (one.sensitivity, one.specificity, one.detection) == (1.0, 0.0, 0.5)


@given(st.integers(2, 12), st.data())
def test_rates_are_those_of_the_confusion_matrix(texts, data):
    numbers = st.sets(st.integers(1, texts))
    right = data.draw(numbers.filter(lambda some: 0 < len(some) < texts))
    chosen = data.draw(numbers)
    table = {(n in right, n in chosen): 0 for n in range(1, texts + 1)}
    for n in range(1, texts + 1):
        table[n in right, n in chosen] += 1
    yes, no = table.get((True, True), 0), table.get((False, False), 0)
    expected = yes / (yes + table.get((True, False), 0)), no / (no + table.get((False, True), 0))
    assert rates(chosen, right, texts) == expected


def test_silent_texts_are_those_where_the_feature_does_not_fire():
    (seven,) = jobs_of([7])
    assert all(window.silent(7) for window in seven.silent)
    (nine,) = jobs_of([9])
    assert nine.silent == ()
    assert not nine.scores


def test_without_texts_to_test_on_there_is_an_explanation_without_a_score(serve, completion):
    stub = serve(knows(completion))
    found = run(stub, jobs_of([3, 9], windows=[]))
    assert [one.explanation for one in found] == ["hit3", "hit9"]
    assert all(one.detection is None and one.error is None for one in found)
    assert len(stub.bodies) == 2


def test_what_is_known_is_not_asked_for_again(serve, completion):
    stub = serve(knows(completion))
    first = {one.feature: one for one in run(stub, jobs_of([3, 7]))}
    assert jobs_of([3, 7], known=first) == []
    assert [job.evidence.feature for job in jobs_of([3, 7, 8], known=first)] == [8]


def test_only_what_is_missing_is_asked_for(serve, completion):
    stub = serve(knows(completion))
    unscored = Explained(3, "hit3 by another", "other", error="score: no list")
    failed = Explained(7, None, "other", error="500")
    found = run(stub, jobs_of([3, 7], known={3: unscored, 7: failed}))
    assert [one.explanation for one in found] == ["hit3 by another", "hit7"]
    assert [one.model for one in found] == ["other", "tiny"]
    assert all(one.detection == 1.0 and one.error is None for one in found)
    assert len(stub.bodies) == 3


def test_the_limit_counts_features_that_are_asked_for():
    known = {3: Explained(3, "x", "tiny", detection=0.5)}
    jobs = jobs_of([3, 7, 8, 6], known=known, limit=2)
    assert [job.evidence.feature for job in jobs] == [7, 8]


def test_one_failure_is_a_line_of_its_feature_and_the_others_go_on(serve, completion):
    plain = knows(completion)

    def reply(body):
        text = body["messages"][1]["content"]
        if "hit7" in text:
            return 500, b"out of order"
        if text.startswith("Description: hit8"):
            return 200, completion("I would rather not")
        return plain(body)

    three, seven, eight = run(serve(reply), jobs_of([3, 7, 8]))
    assert three.detection == 1.0
    assert seven.explanation is None
    assert "500 (out of order)" in seven.error
    assert eight.explanation == "hit8"
    assert eight.detection is None
    assert eight.error == "score: the answer is not a list of numbers of the texts"


def test_hostile_text_is_kept_as_text(serve, completion, tmp_path):
    hostile = 'EXPLANATION: <img src=x onerror=alert(1)> \x1b[2J "; DROP TABLE \ud800'

    def reply(body):
        return 200, completion(hostile)

    found = run(serve(reply), jobs_of([3], windows=[]))
    tables = Tables(tmp_path, "this")
    tables.write("explanations", explanations_table(found))
    (kept,) = read_explanations(tables).values()
    assert kept.explanation == '<img src=x onerror=alert(1)> [2J "; DROP TABLE ?'


def test_a_server_that_fails_every_time_is_not_asked_forever(serve, monkeypatch):
    monkeypatch.setattr(module, "FAILURES", 3)
    stub = serve(lambda body: (400, b'{"error": "context too long"}'))
    with pytest.raises(ConfigError, match=r"3 features failed .*context too long.*run again"):
        run(stub, jobs_of(list(range(10, 30))))
    assert len(stub.bodies) < 12


def test_a_refused_key_ends_the_run(serve):
    stub = serve(lambda body: (401, b"no"))
    with pytest.raises(ConfigError, match="--key-variable"):
        run(stub, jobs_of(list(range(10, 30))))
    assert len(stub.bodies) <= 6


def test_results_survive_the_table(tmp_path):
    tables = Tables(tmp_path, "this")
    some = Explained(4, "it", "tiny", 0.75, 1.0, 0.5, 6, 3, 3)
    known = {4: some, 2: replace(some, feature=2, explanation=None, detection=None, error="500")}
    tables.write("explanations", explanations_table(known.values()))
    assert read_explanations(tables) == known
    assert tables.read("explanations")["feature"].to_list() == [2, 4]
    assert read_explanations(Tables(tmp_path, "another")) == {}
    tables.write("explanations", pl.DataFrame({"feature": [1]}))
    assert read_explanations(tables) == {}


def test_an_estimate_counts_what_a_run_would_send(serve, completion):
    stub = serve(knows(completion))
    jobs = jobs_of([3, 7, 9])
    planned = estimate(jobs, 300)
    run(stub, jobs)
    assert (planned.features, planned.requests) == (3, len(stub.bodies))
    sent = sum(len(m["content"]) for body in stub.bodies for m in body["messages"])
    assert planned.prompt_tokens == pytest.approx(sent / 4, rel=0.2)
    assert planned.answer_tokens == 300 * planned.requests


def test_windows_are_of_one_document_and_know_all_that_fires_in_them(uneven_subject):
    store, dictionary = uneven_subject.store, uneven_subject.dictionary
    fires = dictionary.encode(read_range(store, 0, store.rows).activations)
    rows, columns = fires.pattern.rows.numpy(), fires.pattern.columns.numpy()
    documents, starts = store.column("document"), store.column("char_start")
    windows = list(draw_windows(uneven_subject, 40, reach=3))
    assert len(windows) == 40
    for window in windows:
        words = window.text.split()
        assert 1 <= len(words) <= 7
        first, last = int(words[0][1:]), int(words[-1][1:])
        assert last - first == len(words) - 1
        found = False
        for document in np.unique(documents):
            inside = np.flatnonzero(documents == document)
            part = inside[(starts[inside] >= 4 * first) & (starts[inside] <= 4 * last)]
            expected = np.unique(columns[np.isin(rows, part)])
            found |= len(part) == len(words) and np.array_equal(expected, window.fires)
        assert found
        assert not window.silent(19)
        assert window.silent(0)


def test_more_windows_than_rows_may_be_asked_for(uneven_subject):
    window = next(draw_windows(uneven_subject, 10 * uneven_subject.store.rows, reach=0))
    assert len(window.text.split()) == 1


def test_exclusive_features_come_first_then_the_strongest(tmp_path):
    tables, features = Tables(tmp_path, "this"), np.arange(6)
    assert in_order(tables, features) == [0, 1, 2, 3, 4, 5]
    tables.write("norms", pl.DataFrame({"feature": features, "activation_sum": [1, 2, 9, 4, 5, 6]}))
    assert in_order(tables, features) == [2, 5, 4, 3, 1, 0]
    verdicts = {"feature": [0, 3, 4], "verdict": ["exclusive", "exclusive", "not shown"]}
    tables.write("exclusivity", pl.DataFrame({**verdicts, "q": [0.04, 0.01, 0.5]}))
    assert in_order(tables, features)[:2] == [3, 0]
