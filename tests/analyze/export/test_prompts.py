"""Prompts show where a feature fires, and tests of explanations do not."""

from analyze.export.prompts import Example, detect_prompt, explain_prompt, marked, tokens_of


def example(*pairs: tuple[str, float]) -> Example:
    pieces, strengths = zip(*pairs, strict=True)
    return Example(pieces, strengths)


def test_runs_of_active_pieces_are_marked_together():
    shown = marked(example(("he ", 0.0), ("was ", 0.4), ("over", 0.9), (" it", 0.0), ("!", 1.0)))
    assert shown == "he <<was over>> it<<!>>"


def test_weak_firing_is_judged_against_the_strongest_of_its_context():
    assert marked(example(("a", 0.1), ("b", 0.02), ("c", 0.0))) == "<<a>>bc"


def test_a_context_in_which_nothing_fires_has_no_marks():
    assert marked(example(("a", 0.0), ("b", 0.0))) == "ab"


def test_marks_in_a_text_cannot_be_taken_for_ours_and_it_stays_on_one_line():
    shown = marked(example(("cout << x >> y;\n", 0.0), ("\tend\r\n", 1.0)))
    assert shown == "cout < < x > > y;\\n<<\\tend\\n>>"


def test_what_is_not_utf8_can_be_sent():
    assert marked(example(("half \ud800", 1.0))) == "<<half ?>>"


def test_an_explanation_is_asked_for_with_strengths_of_the_marked_tokens():
    system, user = explain_prompt([example(("so ", 0.0), ("far", 0.84), (".", 0.01))])
    assert "EXPLANATION:" in system["content"]
    assert user["content"] == 'Excerpt 1: so <<far>>.\nStrengths: "far" 8'


def test_texts_to_be_judged_are_numbered_and_unmarked():
    texts = [example(("  so ", 0.0), ("far", 1.0), ("\n", 0.0)).text, "other"]
    _, user = detect_prompt("distance", texts)
    assert user["content"] == "Description: distance\n\nExcerpt 1: so far\nExcerpt 2: other"


def test_tokens_are_a_quarter_of_the_characters():
    assert tokens_of([{"role": "user", "content": "x" * 400}]) == 100
