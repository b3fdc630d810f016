import io
import re

import pytest
from rich.console import Console

from analyze.features.card import Card
from analyze.features.terminal import SHADES, show, visible

FEATURE = {
    "feature": 7, "group": "a", "claimed_for": "a", "density": 0.0125, "fires": 1250,
    "activation_q10": 1.0, "activation_q50": 2.0, "activation_q90": 3.0, "activation_q99": 4.0,
    "activation_max": 5.0, "share_prose": 0.25, "share_code": 0.75, "share_none": 0.0,
    "mirror": 9, "mirror_jaccard": 0.6,
}  # fmt: skip
CONTEXT = {
    "feature": 7, "band": "top", "rank": 1, "document": 3, "label": "code", "row": 40,
    "activation": 5.0, "peak": 2,
}  # fmt: skip


def context(pieces, strengths, **changes):
    own = {"pieces": pieces, "strengths": strengths, "text": "".join(pieces)}
    return {**CONTEXT, **own, **changes}


def card(**changes):
    lines = [context(["one ", "two", " three"], [0.0, 0.3, 1.0])]
    return Card(**{
        "feature": FEATURE, "contexts": lines, "tokens": [], "neighbours": [], "mirrors": [],
        "found": {}, "notes": [], **changes,
    })  # fmt: skip


def shown(card, color=None, width=100):
    out = io.StringIO()
    console = Console(
        file=out, width=width, color_system=color, force_terminal=color is not None, no_color=False
    )
    show(card, console)
    return out.getvalue()


def test_the_heading_says_where_it_fires_and_how_strongly():
    text = shown(card())
    assert "feature 7   group a   claimed for a" in text
    assert "on 1,250 rows, 1.250% of all" in text
    assert "q10 1   q50 2   q90 3   q99 4   max 5" in text


def test_labels_are_bars_in_the_order_of_their_shares():
    lines = [line for line in shown(card()).splitlines() if "█" in line]
    assert [re.sub(r"\s+", " ", line.replace("█", "")).strip() for line in lines] == [
        "labels code 75.0%",
        "prose 25.0%",
    ]
    assert [line.count("█") for line in lines] == [18, 6]


def test_a_feature_that_never_fires_says_so():
    silent = {**FEATURE, "fires": 0, "density": 0.0, "activation_q50": None}
    assert "on no row of the store" in shown(card(feature=silent, contexts=[]))


def test_without_colours_the_peak_is_between_marks():
    assert "one two« three»   code, document\u00a03" in shown(card())


@pytest.mark.parametrize(("strength", "shade"), [(0.1, 0), (0.3, 1), (0.6, 2), (0.9, 3), (1.0, 3)])
def test_stronger_pieces_have_a_deeper_shade_and_silent_ones_none(strength, shade):
    text = shown(card(contexts=[context(["x", "y", "z"], [0.0, strength, 1.0])]), "truecolor")
    wanted = ";".join(str(int(SHADES[shade][n : n + 2], 16)) for n in (1, 3, 5))
    assert re.search(rf"x\x1b\[38;2;0;0;0;48;2;{wanted}my\x1b\[0m", text)


def test_text_is_shown_and_not_understood():
    pieces = ["[red]not red[/red]\n", "\t\x1b[31m\x9b31m", " [/] \u202eback \r"]
    text = shown(card(contexts=[context(pieces, [0, 0, 1], label="[bold]x\x1b")]))
    assert "[red]not red[/red]↵⇥\ufffd[31m\ufffd31m« [/] \ufffdback ␍»" in text
    assert "[bold]x\ufffd" in text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)


@pytest.mark.parametrize("character", ["\x07", "\x7f", "\x85", "\u2028", "\u2067", "\ufeff"])
def test_no_character_that_moves_the_cursor_is_left(character):
    assert visible(f"a{character}b") == "a\ufffdb"


def test_a_very_long_piece_is_shortened_in_its_middle():
    text = shown(card(contexts=[context(["a" * 5000, "", "peak"], [0, 0, 1])]), width=1000)
    assert re.search("a{80} … a{80}«peak»", text)


def test_tokens_show_their_spaces():
    tokens = [
        {"model": "a", "promoted": promoted, "token": token, "logit": logit}
        for promoted, token, logit in [(True, " the", 3.25), (True, "\n", 2.0), (False, "x", -1.0)]
    ]
    lines = shown(card(tokens=tokens)).splitlines()
    assert "  a promotes    ·the 3.2   ↵ 2.0" in [line.rstrip() for line in lines]
    assert "  a suppresses  x -1.0" in [line.rstrip() for line in lines]


def test_the_mirror_is_the_other_of_the_pair():
    mirror = {"feature_a": 7, "feature_b": 9, "jaccard": 0.6, "correlation": None}
    assert "mirror     feature 9 of the other model" in shown(card(mirrors=[mirror]))
    other = {"feature_a": 4, "feature_b": 7, "jaccard": 0.6, "correlation": 0.7}
    assert (
        "feature 4 of the other model fires on the same rows (jaccard 0.60, correlation 0.70)"
        in (shown(card(mirrors=[other])))
    )


def test_what_others_found_is_words_where_lines_agree_and_a_table_where_they_differ():
    lines = [
        {"feature": 7, "steered": "a", "note": "[i]x", "alpha": alpha, "kl": kl, "unknown": None}
        for alpha, kl in [(-1.0, 0.01234), (2.0, None)]
    ]
    text = shown(card(found={"steer": lines}))
    assert "steered a   note [i]x" in text
    assert re.search(r"-1\s+0\.0123\s*\n\s+2\s+–", text)
    assert "unknown" not in text


def test_notes_come_last():
    text = shown(card(notes=["no logit lens: [x]"]))
    assert text.rstrip().endswith("note: no logit lens: [x]")
