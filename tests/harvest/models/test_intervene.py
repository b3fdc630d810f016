"""Edits at hookpoints, against torch hooks on a plain transformers model."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from harvest.models.hooked import HookedModel
from harvest.models.intervene import edited, logits
from pipeline.errors import ModelError
from pipeline.specs import ModelSpec

from . import naive
from .architectures import FAMILIES, VOCABULARY

INPUT_IDS = torch.arange(36).reshape(3, 12) * 7 % VOCABULARY
MASK = torch.ones_like(INPUT_IDS)
MASK[1, 7:] = 0
MASK[2, 10:] = 0
CAUSAL = [name for name, family in FAMILIES.items() if not family.bidirectional]
ENCODERS = [name for name, family in FAMILIES.items() if family.bidirectional]


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {name: family.save(root / name) for name, family in FAMILIES.items()}


def hooked(folders, family: str, *hookpoints: str, dtype: str = "float32") -> HookedModel:
    path = str(folders[family])
    given = {"path": path, "hookpoint": hookpoints, "dtype": dtype, "device": "cpu"}
    return HookedModel("m", ModelSpec.model_validate(given))


def halved_and_shifted(x):
    """Depends on the place, the channel and the value, and is not linear."""
    return 0.5 * x.roll(1, dims=-1) + torch.tanh(x)


def all_hooks(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules())


@pytest.mark.parametrize("family", CAUSAL)
def test_an_edit_of_every_kind_gives_the_logits_of_a_plain_hook(folders, family):
    kinds = FAMILIES[family].kinds(1)
    model = hooked(folders, family, *kinds)
    plain = FAMILIES[family].build()
    clean = naive.logits(plain, INPUT_IDS, MASK)
    for hookpoint, (path, site) in zip(model.hookpoints, kinds.values(), strict=True):
        handle = naive.hook(plain, path, site, halved_and_shifted)
        wanted = naive.logits(plain, INPUT_IDS, MASK)
        handle.remove()
        found = logits(model, INPUT_IDS, MASK, {hookpoint.name: halved_and_shifted})
        assert torch.equal(found, wanted), hookpoint.name
        assert not torch.equal(found, clean), hookpoint.name


@pytest.mark.parametrize("family", CAUSAL)
def test_edits_of_several_hookpoints_act_together(folders, family):
    kinds = FAMILIES[family].kinds(0) | FAMILIES[family].kinds(2)
    model = hooked(folders, family, *kinds)
    plain = FAMILIES[family].build()
    for path, site in kinds.values():
        naive.hook(plain, path, site, halved_and_shifted)
    edits = {hookpoint.name: halved_and_shifted for hookpoint in model.hookpoints}
    wanted = naive.logits(plain, INPUT_IDS, MASK)
    assert torch.equal(logits(model, INPUT_IDS, MASK, edits), wanted)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", CAUSAL)
def test_edits_that_change_nothing_change_no_bit(folders, family, dtype):
    model = hooked(folders, family, *FAMILIES[family].kinds(1), "each_head.0", dtype=dtype)
    plain = AutoModelForCausalLM.from_pretrained(folders[family], dtype=getattr(torch, dtype))
    wanted = naive.logits(plain, INPUT_IDS, MASK)
    assert wanted.dtype == getattr(torch, dtype)
    for edit in (lambda x: x, torch.clone):
        edits = {hookpoint.name: edit for hookpoint in model.hookpoints}
        assert torch.equal(logits(model, INPUT_IDS, MASK, edits), wanted)
    assert torch.equal(logits(model, INPUT_IDS, MASK), wanted)


@pytest.mark.parametrize("family", CAUSAL)
def test_a_head_is_edited_and_its_neighbours_are_not(folders, family):
    shape = FAMILIES[family]
    model = hooked(folders, family, "head.1.2", "head.1.0")
    plain = shape.build()
    width = shape.heads_width // shape.heads
    path = f"{shape.layers}.1.{shape.projection}"
    naive.hook(plain, path, "in", torch.zeros_like, slice(2 * width, 3 * width))
    edits = {model.hookpoints[0].name: torch.zeros_like}
    wanted = naive.logits(plain, INPUT_IDS, MASK)
    assert torch.equal(logits(model, INPUT_IDS, MASK, edits), wanted)
    naive.hook(plain, path, "in", halved_and_shifted, slice(0, width))
    edits[model.hookpoints[1].name] = halved_and_shifted
    wanted = naive.logits(plain, INPUT_IDS, MASK)
    assert torch.equal(logits(model, INPUT_IDS, MASK, edits), wanted)


def test_an_edit_gets_the_activations_that_the_model_reads(folders):
    model = hooked(folders, "llama", "resid_post.1", "heads.2", "head.2.1")
    wanted, seen = model.activations(INPUT_IDS, MASK), {}
    edits = {name: lambda x, name=name: seen.setdefault(name, x.clone()) for name in wanted}
    logits(model, INPUT_IDS, MASK, edits)
    for name in wanted:
        assert torch.equal(seen[name], wanted[name])


def test_what_an_edit_gives_in_another_dtype_is_taken_in_the_models_own(folders):
    model = hooked(folders, "llama", "resid_post.1", dtype="bfloat16")
    (name,) = model.activations(INPUT_IDS, MASK)
    found = logits(model, INPUT_IDS, MASK, {name: lambda x: x.double() * 3})
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, logits(model, INPUT_IDS, MASK, {name: lambda x: x * 3}))


def test_passes_within_edited_are_edited_and_those_behind_it_are_not(folders):
    model = hooked(folders, "gpt_neox", "resid_post.1", "mlp_out.2")
    before, clean = all_hooks(model), logits(model, INPUT_IDS, MASK)
    zero = {model.hookpoints[0].name: torch.zeros_like}
    with edited(model, zero):
        assert not torch.equal(logits(model, INPUT_IDS, MASK), clean)
    assert torch.equal(logits(model, INPUT_IDS, MASK), clean)
    assert all_hooks(model) == before


def test_an_edit_that_fails_leaves_no_hook_behind(folders):
    model = hooked(folders, "gpt_neox", "resid_pre.1", "resid_post.1")
    before, clean = all_hooks(model), logits(model, INPUT_IDS, MASK)

    def fails(x):
        raise ZeroDivisionError

    for hookpoint in model.hookpoints:
        edits = {model.hookpoints[0].name: torch.zeros_like, hookpoint.name: fails}
        with pytest.raises(ZeroDivisionError):
            logits(model, INPUT_IDS, MASK, edits)
        assert all_hooks(model) == before
    assert torch.equal(logits(model, INPUT_IDS, MASK), clean)


def test_reading_goes_on_as_before_behind_an_edited_pass(folders):
    model = hooked(folders, "llama", "resid_post.1", "heads.1")
    wanted = model.activations(INPUT_IDS, MASK)
    logits(model, INPUT_IDS, MASK, dict.fromkeys(wanted, torch.zeros_like))
    found = model.activations(INPUT_IDS, MASK)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("edit", [lambda x: x[:, :-1], lambda x: x[..., :-1], lambda x: None])
def test_an_edit_that_changes_the_shape_is_named(folders, edit):
    model = hooked(folders, "llama", "resid_post.1")
    before = all_hooks(model)
    with pytest.raises(
        ModelError, match=r"^m\.model\.layers\.1\.out: its edit gives .*, not \(3, 12, 32\)"
    ):
        logits(model, INPUT_IDS, MASK, {"m.model.layers.1.out": edit})
    assert all_hooks(model) == before


def test_an_edit_may_not_write_over_what_it_was_given(folders):
    """The tensor may be read by other modules as well."""
    model = hooked(folders, "llama", "resid_post.1")
    with pytest.raises(AssertionError, match="wrote over"):
        logits(model, INPUT_IDS, MASK, {"m.model.layers.1.out": lambda x: x.mul_(2)})


def test_a_hookpoint_that_the_model_does_not_have_is_named_beside_those_it_has(folders):
    model = hooked(folders, "llama", "resid_post.1")
    with pytest.raises(ModelError, match=r"no hookpoint 'm\.x' .*has m\.model\.layers\.1\.out"):
        logits(model, INPUT_IDS, MASK, {"m.x": torch.zeros_like})


@pytest.mark.parametrize("family", ENCODERS)
def test_a_model_that_predicts_no_next_token_is_refused(folders, family):
    model = hooked(folders, family, "resid_post.1")
    with pytest.raises(ModelError, match=r"^models\.m\.path: .*predicts no next token"):
        logits(model, INPUT_IDS, MASK)
