"""What a hookpoint string names in a model, and what is said where it names nothing."""

import pytest
import torch

from harvest.models.hookpoints import Place, find_places
from harvest.models.probe import observe
from pipeline.errors import ModelError
from pipeline.specs import ModelSpec

from .architectures import FAMILIES

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def llama():
    return observe(FAMILIES["llama"].build(), CPU)


def places(observed, *hookpoints: str, site: str = "out") -> list[Place]:
    spec = ModelSpec(path="some/model", hookpoint=hookpoints, site=site)
    return find_places("a", spec, observed)


def refusal(observed, *hookpoints: str) -> str:
    with pytest.raises(ModelError) as error:
        places(observed, *hookpoints)
    message = str(error.value)
    assert message.startswith("models.a.hookpoint: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("site", ["in", "out"])
def test_a_path_takes_the_site_of_the_model_unless_it_names_its_own(llama, site):
    found = places(llama, "model.layers.1", "model.layers.0:in", "model.layers.0:out", site=site)
    assert [place.site for place in found] == [site, "in", "out"]


def test_the_site_does_not_bend_a_kind(llama):
    (place,) = places(llama, "resid_post.1", site="in")
    assert place == Place("model.layers.1", "out", 32)


def test_negative_layers_count_from_the_end(llama):
    found = places(llama, "resid_post.-1", "each_head.-3")
    assert found[0].path == "model.layers.2"
    assert {place.path for place in found[1:]} == {"model.layers.0.self_attn.o_proj"}


def test_each_head_is_one_place_per_head_side_by_side(llama):
    found = places(llama, "each_head.1")
    assert [place.name("a")[-6:] for place in found] == [f".head{head}" for head in range(4)]
    channels = [number for place in found for number in range(32)[place.channels]]
    assert channels == list(range(32))


def test_one_head_has_the_channels_that_it_has_among_all(llama):
    (place,) = places(llama, "head.1.2")
    assert place == places(llama, "each_head.1")[2]


@pytest.mark.parametrize(
    "pair",
    [
        ("resid_post.1", "model.layers.1"),
        ("resid_post.-1", "resid_post.2"),
        ("each_head.0", "head.0.3"),
        ("heads.0", "model.layers.0.self_attn.o_proj:in"),
    ],
)
def test_two_hookpoints_at_one_place_are_refused(llama, pair):
    message = refusal(llama, *pair)
    assert all(repr(hookpoint) in message for hookpoint in pair)


def test_the_end_of_a_layer_and_the_start_of_the_next_are_two_places(llama):
    assert len(places(llama, "resid_post.0", "resid_pre.1")) == 2


def test_a_layer_that_is_not_there_names_those_that_are(llama):
    assert "the layers are model.layers.0 to model.layers.2" in refusal(llama, "attn_out.3")
    assert "the layers are model.layers.0 to model.layers.2" in refusal(llama, "resid_pre.-4")


def test_a_head_that_is_not_there_names_those_that_are(llama):
    assert "heads 0 to 3" in refusal(llama, "head.0.4")


@pytest.mark.parametrize("hookpoint", ["head.1", "heads.1.2", "resid_post.1.2"])
def test_a_kind_with_the_wrong_numbers_shows_how_it_is_written(llama, hookpoint):
    assert "head.LAYER.HEAD" in refusal(llama, hookpoint)


def test_a_site_that_is_neither_in_nor_out_is_named(llama):
    assert "not :up" in refusal(llama, "model.layers.1:up")


def test_a_wrong_path_gets_the_nearest_names_and_the_layers(llama):
    message = refusal(llama, "model.layer.1.mlp:in")
    assert "model.layers.1.mlp" in message
    assert "; its layers are model.layers.0 to model.layers.2; did you mean" in message
    assert message.endswith("?")


def test_a_path_like_no_other_gets_the_layers(llama):
    assert refusal(llama, "zzz").endswith("'zzz'; its layers are model.layers.0 to model.layers.2")


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("resid_pst.2", "resid_post.2"),
        ("residpre.-1", "resid_pre.-1"),
        ("eachhead.0", "each_head.0"),
        ("haed.1.2", "head.1.2"),
    ],
)
def test_a_misspelt_kind_gets_the_nearest_kinds(llama, misspelt, meant):
    _, _, near = refusal(llama, misspelt).partition("did you mean ")
    assert meant in near.rstrip("?").split(" or ")
    assert places(llama, *near.rstrip("?").split(" or ")[:1])


@pytest.mark.parametrize(
    ("hookpoint", "why"),
    [
        ("model.layers", "does not run"),
        ("model.rotary_emb", r"gives float32 \(1, 3, 8\)"),
        ("model.embed_tokens:in", r"gives int64 \(2, 3\)"),
    ],
)
def test_a_module_without_one_vector_per_token_says_what_it_gives(llama, hookpoint, why):
    with pytest.raises(ModelError, match=f"{why}.*name a"):
        places(llama, hookpoint)


def test_a_module_that_runs_twice_in_a_pass_is_refused():
    phi = observe(FAMILIES["phi"].build(), CPU)
    assert "runs 2 times in a pass" in refusal(phi, "model.layers.1.resid_dropout")


def test_a_kind_that_cannot_be_told_asks_for_the_path():
    opt = observe(FAMILIES["opt"].build(), CPU)
    assert "name a module's path instead" in refusal(opt, "mlp_out.1")
    assert len(places(opt, "resid_post.1", "heads.1", "attn_out.1")) == 3


def test_layers_are_found_inside_a_model_that_also_reads_images():
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {**FAMILIES["gemma3"].size, "vocab_size": 320}
    vision = {"num_hidden_layers": 3, "hidden_size": 16, "intermediate_size": 16}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=300
    )
    observed = observe(Gemma3ForConditionalGeneration(config).eval(), CPU)
    (place,) = places(observed, "resid_post.1")
    assert place.path == "model.language_model.layers.1"
