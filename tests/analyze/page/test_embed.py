import base64
import hashlib
import json
import math
import sys
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyze.page.embed import embedded, number, shortened, source_hash, visible

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@dataclass(frozen=True)
class Said:
    text: str
    inner: list


@given(ANY_TEXT)
def test_embedded_text_reads_back_as_it_was(text):
    assert json.loads(embedded(Said(text, [Said(text, [])])))["inner"][0]["text"] == text


@given(ANY_TEXT)
def test_embedded_text_cannot_end_its_element_nor_be_lost_on_the_way(text):
    found = embedded([text, "</script><!--&\u2028\u2029\ud800"])
    assert not set(found) & set("<>&\u2028\u2029\x7f\x85\ufeff")
    found.encode("utf-8")  # raises for a lone surrogate


@given(st.floats(-1e300, 1e300))
def test_numbers_keep_four_digits(value):
    assert number(value) == pytest.approx(value, rel=5e-4)


def test_the_largest_number_does_not_become_infinite():
    assert number(sys.float_info.max) == sys.float_info.max


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "text", []])
def test_what_is_no_number_is_none(value):
    assert number(value) is None


@given(ANY_TEXT)
def test_what_is_visible_keeps_all_but_controls(text):
    shown = visible(text)
    assert not set(shown) & set("\x00\x1b\x7f\u202e\u2066\u200f\ufeff")
    assert shown == text or "⟨U+" in shown


def test_emoji_of_several_characters_and_lines_stay_whole():
    assert visible("👩‍👩‍👧\tfamily\n") == "👩‍👩‍👧\tfamily\n"


def test_a_policy_names_a_source_by_its_sha256():
    expected = base64.b64encode(hashlib.sha256("let ä;".encode()).digest()).decode()
    assert source_hash("let ä;") == f"'sha256-{expected}'"


def test_shortened_text_says_that_something_is_missing():
    assert shortened("abcdef", 3) == "abc…"
    assert shortened("abc", 3) == "abc"
    assert shortened(None, 3) == ""
