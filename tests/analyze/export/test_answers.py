"""What a language model writes is taken as text, and as nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyze.export.answers import choice_in, clean, explanation_in


@pytest.mark.parametrize(
    ("answer", "explanation"),
    [
        ("EXPLANATION: colons in code", "colons in code"),
        ("I see colons.\n\nExplanation: colons in code\n", "colons in code"),
        ("[EXPLANATION]: colons in code", "colons in code"),
        ("**Explanation:** colons in code", "colons in code"),
        ("EXPLANATION: first\nno,\nEXPLANATION: colons\nin code", "colons in code"),
        ('EXPLANATION: "colons in code"', "colons in code"),
        ("colons in code", "colons in code"),
        ("<think>EXPLANATION: wrong</think>colons in code", "colons in code"),
        ("endless thoughts</think>\nEXPLANATION: colons in code", "colons in code"),
        ("EXPLANATION:", ""),
        ("EXPLANATION: <b>{{ 7*7 }}</b> =1+1", "<b>{{ 7*7 }}</b> =1+1"),
        ("EXPLANATION: \x1b[31mred\x00 \u202etfel", "[31mred tfel"),
        ("EXPLANATION: half \ud800 a pair", "half ? a pair"),
    ],
)
def test_the_explanation_is_what_the_model_ends_with(answer, explanation):
    assert explanation_in(answer) == explanation


@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_an_explanation_is_always_one_line_that_can_be_stored_and_printed(answer):
    found = explanation_in(answer)
    assert found.isprintable()
    assert found.encode("utf-8").decode() == found
    assert "\n" not in found


def test_a_long_explanation_is_cut_off():
    assert len(clean("word " * 1000)) <= 1000
    assert clean("word " * 1000).endswith("word…")


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("[1, 3]", {1, 3}),
        ("[]", set()),
        ("Texts [1] and [2] look alike. So: [2, 4]", {2, 4}),
        ("<think>[1]</think>[2]", {2}),
        ("```json\n[1,\n 2]\n```", {1, 2}),
        ("[1, 1]", {1}),
        ("none of them", None),
        ("[0]", None),
        ("[6]", None),
        ("[1, 2,]", None),
        ("[01]", None),
        ("[" + "9" * 5000 + "]", None),
        ("[" * 100_000, None),
    ],
)
def test_a_choice_is_the_last_list_of_numbers_of_texts_that_there_are(answer, chosen):
    assert choice_in(answer, 5) == chosen
