import itertools

from hypothesis import given
from hypothesis import strategies as st

from analyze.page.contexts import bands_of, snippet_of, to_runs

PIECES = st.lists(st.tuples(st.text(max_size=5), st.floats(0, 1)), min_size=1, max_size=20)


def _line(band="top", rank=0, pieces=("a ", "b", " c"), strengths=(0.0, 1.0, 0.0), peak=1):
    return {
        **{"feature": 0, "band": band, "rank": rank, "document": 3, "label": "x"},
        **{"activation": 2.0, "pieces": list(pieces), "strengths": list(strengths), "peak": peak},
    }


@given(PIECES, st.data())
def test_runs_join_up_to_the_text_and_keep_every_firing(pieces, data):
    texts, strengths = [text for text, _ in pieces], [value for _, value in pieces]
    peak = data.draw(st.integers(0, len(pieces) - 1))
    runs, cut = to_runs(texts, strengths, peak)
    assert not cut
    assert "".join(run if isinstance(run, str) else run[0] for run in runs) == "".join(texts)
    fired = [run for run in runs if not isinstance(run, str)]
    expected = [n for n, value in enumerate(strengths) if value >= 0.005 or n == peak]
    assert [run[0] for run in fired] == [texts[n] for n in expected]
    assert [run[1] for run in fired] == [round(strengths[n], 2) for n in expected]
    assert [len(run) == 3 for run in fired] == [n == peak for n in expected]
    silent = [isinstance(run, str) for run in runs]
    assert (True, True) not in itertools.pairwise(silent)


def test_a_very_long_piece_is_cut_in_its_middle():
    runs, cut = to_runs(["x", "y" * 1000, "z"], [0.0, 1.0, 0.0], 1)
    assert cut
    assert runs[0] == "x"
    assert runs[1] == ["y" * 200 + "…" + "y" * 200, 1.0, 1]
    assert runs[2] == "z"


def test_of_long_silence_what_is_next_to_the_firing_is_kept():
    runs, cut = to_runs(["a" * 9000 + "b", "!", "c" + "d" * 9000], [0.0, 1.0, 0.0], 1)
    assert cut
    assert runs[0].endswith("ab")
    assert runs[2].startswith("cd")
    assert len(runs[0]) + len(runs[2]) < 5000


def test_missing_strengths_and_nan_are_silence():
    assert to_runs(["a", "b", "c"], [float("nan")], -1) == (["abc"], False)


def test_the_top_band_comes_first_then_the_higher_quantiles():
    lines = [_line("25-50%"), _line("top", 1), _line("75-90%"), _line("top", 0), _line("odd")]
    assert [band.name for band in bands_of(lines)] == ["top", "75-90%", "25-50%", "odd"]


def test_contexts_of_a_band_are_in_the_order_of_their_rank():
    lines = [_line(rank=2, pieces=("3", "!")), _line(rank=0, pieces=("1", "!"))]
    assert [context.runs[0] for context in bands_of(lines)[0].contexts] == ["1", "3"]


def test_snippet_is_the_text_around_the_first_peak():
    assert snippet_of(bands_of([_line()])) == ["a ", "b", " c"]
    assert snippet_of([]) == []


def test_lines_that_lack_columns_still_make_contexts():
    (band,) = bands_of([{"feature": 0, "pieces": ["a"], "strengths": [1.0]}])
    assert band.name == "top"
    assert band.contexts[0].runs == [["a", 1.0]]
