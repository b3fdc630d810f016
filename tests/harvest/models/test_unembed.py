"""Logit lenses, against the model's own way from its last layer's output to its logits."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harvest.models import unembed
from harvest.models.unembed import find_unembedding, token_texts
from pipeline.errors import ModelError

from .architectures import FAMILIES, LAYERS, VOCABULARY

CAUSAL = [name for name, family in FAMILIES.items() if not family.bidirectional]
PADDED = 20  # rows of the head that no token has


class Vocabulary:
    """All that finding an unembedding asks of a tokenizer."""

    def get_vocab(self):
        return {f"token {n}": n for n in reversed(range(VOCABULARY - PADDED))}


def randomised(family):
    """The family's model with norms and biases that are not 1 and 0, and logits not capped."""
    model = FAMILIES[family].build()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
    model.config.final_logit_softcapping = None
    return model


def logits_of_residual(model, family, x_ND):
    """What the model scores where the last layer's output is replaced by each of these."""
    last = model.get_submodule(f"{FAMILIES[family].layers}.{LAYERS - 1}")

    def put(_, __, output):
        new = x_ND[:, None].to(torch.float32)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = last.register_forward_hook(put)
    with torch.no_grad():
        logits = model(input_ids=torch.zeros(len(x_ND), 1, dtype=torch.long)).logits[:, 0]
    handle.remove()
    return logits.double()


def directions(count, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.logspace(-2, 2, count)[:, None]
    return lengths * torch.randn(count, width, generator=generator)


@pytest.mark.parametrize("family", CAUSAL)
def test_scores_are_those_of_the_model_with_nothing_else_on_its_residual_stream(
    family, monkeypatch
):
    monkeypatch.setattr(unembed, "TOKENS_AT_ONCE", 7)
    model = randomised(family)
    d_ND = directions(5, 32)
    unit_ND = d_ND / d_ND.norm(dim=1, keepdim=True) * 32**0.5
    zero_1V = logits_of_residual(model, family, torch.zeros(1, 32))
    scores_NV = (logits_of_residual(model, family, unit_ND) - zero_1V)[:, :-PADDED]
    scores_NV = scores_NV - scores_NV.mean(dim=1, keepdim=True)
    found = find_unembedding("m", model, Vocabulary()).extremes(d_ND, 9)
    for extremes, sign in zip(found, (1, -1), strict=True):
        wanted = (sign * scores_NV).topk(9, dim=1)
        torch.testing.assert_close(sign * extremes.scores, wanted.values, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            scores_NV.gather(1, extremes.tokens), extremes.scores, rtol=1e-4, atol=1e-4
        )


def llama(model, d_ND):
    return model.model.norm.weight * d_ND / d_ND.square().mean(1, keepdim=True).sqrt()


def gemma(model, d_ND):
    return (1 + model.model.norm.weight) * d_ND / d_ND.square().mean(1, keepdim=True).sqrt()


def layer_norm(norm, d_ND):
    return norm.weight * (d_ND - d_ND.mean(1, keepdim=True)) / d_ND.std(1, False, keepdim=True)


BY_HAND = {
    "llama": llama,
    "qwen3": llama,
    "gemma2": gemma,
    "gemma3": gemma,
    "gpt2": lambda model, d_ND: layer_norm(model.transformer.ln_f, d_ND),
    "gpt_neox": lambda model, d_ND: layer_norm(model.gpt_neox.final_layer_norm, d_ND),
}


@pytest.mark.parametrize("family", BY_HAND)
def test_the_norms_gain_is_folded_in_and_its_bias_is_not(family):
    model, d_ND = randomised(family), directions(4, 32)
    found = find_unembedding("m", model, Vocabulary()).folded(d_ND)
    torch.testing.assert_close(found, BY_HAND[family](model, d_ND), rtol=1e-3, atol=1e-4)


def test_length_plays_no_part_and_the_opposite_direction_suppresses_what_this_one_promotes():
    found = find_unembedding("m", randomised("gpt_neox"), Vocabulary())
    d_ND = directions(3, 32)
    promoted, suppressed = found.extremes(d_ND, 6)
    longer, _ = found.extremes(100 * d_ND, 6)
    _, opposite = found.extremes(-d_ND, 6)
    assert torch.equal(promoted.tokens, longer.tokens)
    assert torch.equal(promoted.tokens, opposite.tokens)
    torch.testing.assert_close(promoted.scores, -opposite.scores)
    assert (promoted.scores[:, 0] > 0).all()
    assert (suppressed.scores[:, 0] < 0).all()


def test_rows_of_the_head_that_no_token_has_are_left_out():
    found = find_unembedding("m", randomised("llama"), Vocabulary())
    promoted, suppressed = found.extremes(directions(3, 32), VOCABULARY)
    for extremes in (promoted, suppressed):
        assert extremes.tokens.shape == (3, VOCABULARY - PADDED)
        assert extremes.tokens.max() < VOCABULARY - PADDED


@pytest.mark.parametrize("family", CAUSAL)
def test_inputs_and_outputs_of_layers_are_on_the_residual_stream_and_nothing_inside_them(family):
    shape = FAMILIES[family]
    residual = find_unembedding("m", randomised(family), Vocabulary()).residual
    assert residual[:2] == tuple(f"m.{shape.layers}.0.{site}" for site in ("in", "out"))
    kinds = {kind.split(".")[0]: place for kind, place in shape.kinds(1).items()}
    on = {f"m.{path}.{site}" for path, site in (kinds["resid_pre"], kinds["resid_post"])}
    assert on <= set(residual)
    inside = {f"m.{path}.{site}" for kind, (path, site) in kinds.items() if "resid" not in kind}
    assert not inside & set(residual)
    assert len(residual) == 2 * LAYERS + 1  # what the final norm is given, too


def test_a_model_in_bfloat16_keeps_its_head_as_it_is():
    model = randomised("llama").to(torch.bfloat16)
    found = find_unembedding("m", model, Vocabulary())
    assert found.head_VD.data_ptr() == model.lm_head.weight.data_ptr()
    wide = find_unembedding("m", model.float(), Vocabulary())
    torch.testing.assert_close(found.folded(directions(2, 32)), wide.folded(directions(2, 32)))


def test_an_encoder_without_an_output_head_is_told():
    with pytest.raises(ModelError, match=r"^models\.m: no logit lens: it has no output"):
        find_unembedding("m", FAMILIES["bert"].build(), Vocabulary())


def test_a_head_that_is_given_something_else_than_the_norms_output_is_told():
    model = randomised("llama")
    plain = model.lm_head.forward
    model.lm_head.forward = lambda x: plain(x)
    model.lm_head.register_forward_pre_hook(lambda _, args: (args[0].roll(1, dims=-1),))
    with pytest.raises(ModelError, match="is not given what its last norm gives"):
        find_unembedding("m", model, Vocabulary())


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("text", [" a man in want of a wife", "\tdef width(self)", "in fortune"])
def test_texts_of_tokens_join_to_the_text_spaces_and_all(model_pair, name, text):
    tokenizer = AutoTokenizer.from_pretrained(model_pair[name])
    ids = tokenizer("a" + text, add_special_tokens=False)["input_ids"]
    joined = "".join(token_texts(tokenizer, ids))
    assert joined.strip() == ("a" + text).strip()


def test_a_part_of_a_character_is_named_as_the_tokenizer_names_it(model_pair):
    tokenizer = AutoTokenizer.from_pretrained(model_pair["b"])
    parts = tokenizer("漢")["input_ids"]
    assert token_texts(tokenizer, parts) == tokenizer.convert_ids_to_tokens(parts)


def test_the_models_of_a_pair_have_lenses_over_their_own_vocabulary(model_pair):
    for name, path in model_pair.items():
        model = AutoModelForCausalLM.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
        found = find_unembedding(name, model, tokenizer)
        promoted, _ = found.extremes(torch.eye(found.width), 3)
        texts = token_texts(tokenizer, promoted.tokens.flatten().tolist())
        assert len(set(texts)) > 10
