"""Steering: what is measured is what a plain loop over plain hooks gives, one text at a time."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from analyze.causal.steer import effects, steered_curve
from analyze.causal.steer_scenes import find_scenes
from analyze.causal.steer_steps import own_steps, refuse_unseen
from analyze.causal.steer_table import shown_alpha, steer_summary, steer_table, tokens_table
from analyze.subject import open_subject
from harvest.models.intervene import logits
from pipeline.errors import DictionaryError
from tests.harvest.models import naive
from train.dictionary.artifact import save_dictionary
from train.dictionary.fold import fold

from .directed import FEATURES, ONLY_A, ONLY_B, SHARED, dense_codes


@pytest.fixture(scope="module")
def plain(harvested):
    config, _ = harvested
    return {
        name: AutoModelForCausalLM.from_pretrained(spec.path, dtype=torch.float32)
        for name, spec in config.models.items()
    }


@pytest.fixture(scope="module")
def scenes(subject, models, swept):
    found = find_scenes(subject, models, [ONLY_A, SHARED, ONLY_B], swept[1], 64)
    assert found.left_out == {}
    return {scene.feature: scene for scene in found.of}


def steps(subject, swept, feature, models=("a", "b"), **keys):
    return own_steps(subject, feature, float(swept[0].largest[feature]), models, **keys)


LAYERS = {"a": "model.layers.1", "b": "gpt_neox.layers.1"}


def naive_distributions(plain, model: str, looked, vector):
    """Log-probabilities at every row looked at, each text alone and whole."""
    found = []
    handle = naive.hook(plain[model], LAYERS[model], "out", lambda x: x + vector)
    for one in looked:
        reading = one.passage.readings[model]
        ids = torch.tensor(reading.ids)[None]
        scores = naive.logits(plain[model], ids, torch.ones_like(ids))[0]
        for row, position in zip(one.passage.rows, reading.positions, strict=True):
            if row in one.rows:
                found.append(torch.log_softmax(scores[position].double(), dim=0))
    handle.remove()
    return torch.stack(found)


@pytest.mark.parametrize(
    ("feature", "model"), [(ONLY_A, "a"), (SHARED, "a"), (SHARED, "b"), (ONLY_B, "b")]
)
def test_a_curve_is_that_of_a_plain_loop(
    harvested, dictionary, subject, swept, models, plain, scenes, feature, model
):
    _, store = harvested
    number = "ab".index(model)
    place = dictionary.visibility(number).features_V.tolist().index(feature)
    d_D = dictionary.W_dec[str(number)].detach()[place] / dictionary.scale[number]
    s_max = dense_codes(store, dictionary)[:, feature].max().float()
    (step,) = steps(subject, swept, feature, [model])
    scene, alphas = scenes[feature], (-2.0, 0.0, 0.5)
    curve = steered_curve(models[model], scene, step, alphas, 300, tokens=3)
    for name, looked in (("firing", scene.firing), ("silent", scene.silent)):
        clean = naive_distributions(plain, model, looked, torch.zeros_like(d_D))
        for alpha, effect in zip(alphas, curve.of[name], strict=True):
            changed = naive_distributions(plain, model, looked, alpha * s_max * d_D)
            kl = torch.nn.functional.kl_div(changed, clean, reduction="batchmean", log_target=True)
            assert effect.positions == len(clean)
            assert effect.kl == pytest.approx(float(kl), rel=1e-3, abs=1e-9)
            moved = (changed.argmax(1) != clean.argmax(1)).double().mean()
            assert effect.top1_changed == pytest.approx(float(moved))
            if name == "firing":
                change = (changed - clean).mean(0)
                wanted = [*change.topk(3).values, *change.topk(3, largest=False).values]
                found = [token.log_change for token in effect.tokens]
                assert found == pytest.approx([float(x) for x in wanted], abs=1e-4)
                for token in effect.tokens:
                    exact = float(changed[:, token.token].exp().mean())
                    assert token.probability_changed == pytest.approx(exact, rel=1e-3)
    assert curve.of["firing"][0].kl > 1e-4


def test_sums_do_not_depend_on_the_batches(subject, swept, models, scenes):
    (step,) = steps(subject, swept, SHARED, ["b"])
    curves = [
        steered_curve(models["b"], scenes[SHARED], step, (1.0, 4.0), tokens)
        for tokens in (1, 90, 10_000)
    ]
    for name in ("firing", "silent"):
        for number in range(2):
            kls = [curve.of[name][number].kl for curve in curves]
            assert kls == pytest.approx([kls[0]] * 3, rel=1e-4)
            random = [curve.random[name][number] for curve in curves]
            assert random == pytest.approx([random[0]] * 3, rel=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_alpha_0_changes_no_bit(harvested, subject, swept, models, dtype):
    """The step is added all the same: zero times as long."""
    ids = torch.arange(2, 42).reshape(2, 20)
    mask = torch.ones_like(ids)
    for step in steps(subject, swept, SHARED):
        model = models[step.steered]
        if dtype == "bfloat16":
            from harvest.models.hooked import HookedModel

            model = HookedModel(model.name, model.spec.model_copy(update={"dtype": dtype}))
        clean = logits(model, ids, mask)
        assert torch.equal(logits(model, ids, mask, step.edits(0.0)), clean)
        assert not torch.equal(logits(model, ids, mask, step.edits(1.0)), clean)


def test_at_alpha_0_and_without_a_direction_the_measures_are_exactly_0(
    subject, swept, models, scenes
):
    lines = []
    for step in [*steps(subject, swept, ONLY_A), *steps(subject, swept, ONLY_B)]:
        model = models[step.steered]
        lines.append(steered_curve(model, scenes[step.feature], step, (-4.0, 0.0, 4.0), 500))
    table = steer_table(lines)
    assert table["steerable"].to_list() == [True] * 3 + [False] * 6 + [True] * 3
    for line in table.iter_rows(named=True):
        nothing = not line["steerable"] or line["alpha"] == 0
        for name in ("firing", "silent"):
            assert (line[f"kl_{name}"] == 0.0) == nothing
            assert (line[f"kl_random_{name}"] is None) == nothing
            assert not (nothing and line[f"top1_changed_{name}"] != 0.0)
            assert line[f"positions_{name}"] > 0


def test_steering_a_model_with_a_feature_that_it_does_not_see_changes_no_bit(
    subject, swept, models
):
    ids = torch.arange(2, 42).reshape(2, 20)
    mask = torch.ones_like(ids)
    (step,) = steps(subject, swept, ONLY_B, ["a"])
    clean = logits(models["a"], ids, mask)
    assert torch.equal(logits(models["a"], ids, mask, step.edits(4.0)), clean)


def test_it_is_refused_where_it_is_asked_for(subject, swept):
    (step,) = steps(subject, swept, ONLY_B, ["a"])
    with pytest.raises(
        DictionaryError, match=r"feature 22 is of group b: a has no direction .* --model b"
    ):
        refuse_unseen(step, subject)
    refuse_unseen(steps(subject, swept, ONLY_B, ["b"])[0], subject)


@pytest.mark.parametrize("feature", [-1, FEATURES])
def test_a_feature_that_is_not_there_is_refused(subject, feature):
    with pytest.raises(DictionaryError, match=rf"no feature {feature}; it has 24, from 0"):
        own_steps(subject, feature, 1.0, ["a"])


def test_a_feature_that_never_fires_is_refused(subject):
    with pytest.raises(DictionaryError, match=r"feature 3 fires on no row of .*name another"):
        own_steps(subject, 3, 0.0, ["a"])


def test_a_folded_dictionary_steers_with_the_same_steps(
    harvested, dictionary, subject, swept, tmp_path
):
    folded, _ = fold(dictionary)
    save_dictionary(tmp_path / "folded", folded, {})
    other = open_subject(harvested[1], tmp_path / "folded", "cpu")
    for feature in (ONLY_A, SHARED):
        for one, two in zip(
            steps(subject, swept, feature), steps(other, swept, feature), strict=True
        ):
            assert (one.hookpoint, one.claimed_for) == (two.hookpoint, two.claimed_for)
            if one.vector_D is not None:
                torch.testing.assert_close(one.vector_D, two.vector_D, rtol=1e-6, atol=0)
                assert one.relative == pytest.approx(two.relative)


def test_a_step_is_as_long_as_it_says_relative_to_the_median_activation(harvested, subject, swept):
    _, store = harvested
    for step in steps(subject, swept, SHARED):
        norms = torch.cat(
            [store.activations(step.hookpoint, chunk).float() for chunk in range(store.chunks)]
        ).norm(dim=1)
        length = float(step.vector_D.norm() / norms.median())
        assert step.relative == pytest.approx(length, rel=0.02)


def test_random_directions_are_as_long_and_a_matter_of_seed_and_draw(subject, swept):
    (step,) = steps(subject, swept, SHARED, ["a"])
    one, again = step.control(3), step.control(3)
    assert torch.equal(one.vector_D, again.vector_D)
    assert float(one.vector_D.norm()) == pytest.approx(float(step.vector_D.norm()))
    others = [step.vector_D, step.control(4).vector_D, step.control(3, 1).vector_D]
    others += [steps(subject, swept, SHARED, ["b"])[0].control(3).vector_D[:32]]
    for other in others:
        assert abs(float(torch.cosine_similarity(one.vector_D, other, dim=0))) < 0.7


def test_the_control_is_the_mean_over_its_draws(subject, swept, models, scenes):
    (step,) = steps(subject, swept, ONLY_A, ["a"])
    readings = [looked.reading("a") for looked in scenes[ONLY_A].firing]
    draws = [
        effects(models["a"], readings, [step.control(7, draw).edits(2.0)], 400)[0].kl
        for draw in range(3)
    ]
    curve = steered_curve(models["a"], scenes[ONLY_A], step, (0.0, 2.0), 400, controls=3, seed=7)
    assert curve.random["firing"] == (None, pytest.approx(np.mean(draws), rel=1e-4))


def test_tables_have_a_line_per_alpha_and_the_tokens_of_the_tokenizer(
    subject, swept, models, scenes
):
    alphas = (-1.0, 0.0, 1.0)
    curves = [
        steered_curve(models[step.steered], scenes[ONLY_B], step, alphas, 500, tokens=2)
        for step in steps(subject, swept, ONLY_B)
    ]
    table, tokens = steer_table(curves), tokens_table(curves, models)
    assert table["alpha"].to_list() == [*alphas, *alphas]
    assert table["steered"].to_list() == ["a"] * 3 + ["b"] * 3
    assert tokens["steered"].to_list() == ["b"] * 8
    assert tokens["rank"].to_list() == [0, 1] * 4
    assert tokens["alpha"].to_list() == [-1.0] * 4 + [1.0] * 4
    best = curves[1].of["firing"][2].tokens[0]
    line = tokens.row(4, named=True)
    assert line["token"] == models["b"].tokenizer.decode([best.token])
    assert line["log_change"] == best.log_change > 0
    assert steer_summary(table)["alpha"].to_list() == [1.0, 1.0]


def test_the_alpha_shown_is_the_nearest_to_1():
    assert shown_alpha([-1.0, 0.0, 2.0]) == 2.0
    assert shown_alpha([-4.0, 0.5, 1.0, 4.0]) == 1.0
    assert shown_alpha([0.0]) == 0.0
