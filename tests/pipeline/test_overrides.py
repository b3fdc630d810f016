"""`--set section.key=value`."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import load_config

from .sections import FILE, Training, message


def test_an_override_wins_over_the_file(load):
    assert load(FILE, "train.k=64").section("train", Training).k == 64


def test_of_two_overrides_of_one_key_the_last_wins(load):
    assert load(FILE, "train.k=64", "train.k=65").section("train", Training).k == 65


def test_an_override_reaches_into_nested_sections(load):
    assert load(FILE, "train.schedule.warmup=3").section("train", Training).schedule.warmup == 3


def test_an_override_reaches_into_a_model_and_leaves_the_rest(load):
    models = load(FILE, "models.a.device=cpu").models
    assert (models["a"].device, models["a"].path) == ("cpu", "demo/a")


def test_an_override_may_set_a_section_that_the_file_leaves_empty(load):
    assert load("train:", "train.k=3").section("train", Training).k == 3


def test_an_override_may_hold_an_equals_sign(load):
    assert load(FILE, "corpus.path=a=b.txt").corpus.path == "a=b.txt"


def test_an_override_that_is_no_yaml_is_taken_as_text(load):
    assert load(FILE, "corpus.path={odd").corpus.path == "{odd"


@given(st.integers(1, 10**9))
def test_any_whole_number_may_be_set(number):
    config = load_config(Path("/nonexistent/p.yaml"), [f"train.k={number}"], explicit=False)
    assert config.section("train", Training).k == number


@pytest.mark.parametrize("text", ["train.k", "=3", ""])
def test_an_override_without_key_or_value_is_refused(load, text):
    found = message(lambda: load(FILE, text))
    assert found == f"--set {text}: expected section.key=value, e.g. train.k=64"


def test_an_override_inside_a_plain_value_is_refused(load):
    found = message(lambda: load(FILE, "train.k.deep=3"))
    assert found == "--set train.k.deep=3: k holds 16, which has no keys inside"


def test_an_override_of_an_unknown_section_says_set(load):
    assert message(lambda: load(FILE, "trian.k=3")).startswith("--set: trian: unknown key")


def test_an_override_of_an_unknown_key_says_set(load):
    config = load(FILE, "train.kk=3")
    assert message(lambda: config.section("train", Training)).startswith(
        "--set: train.kk: unknown key (given 3); did you mean k?"
    )


def test_an_override_of_the_wrong_type_says_set(load):
    config = load(FILE, "train.k=many")
    found = message(lambda: config.section("train", Training))
    assert found.startswith("--set: train.k: given 'many'")


def test_a_wrong_key_inside_an_overridden_mapping_says_set(load):
    config = load(FILE, "train.schedule={warm: 1}")
    assert message(lambda: config.section("train", Training)).startswith(
        "--set: train.schedule.warm: unknown key"
    )


def test_an_error_beside_an_overridden_key_names_the_file(load, tmp_path):
    config = load("train: {kk: 1}", "train.k=3")
    assert message(lambda: config.section("train", Training)).startswith(f"{tmp_path}/my.yaml")


def test_a_key_that_begins_like_an_overridden_one_names_the_file(load, tmp_path):
    config = load("train: {kk: 1}", "train.k=3")
    assert "my.yaml: train.kk" in message(lambda: config.section("train", Training))
