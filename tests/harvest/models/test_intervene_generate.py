"""Text written on with edits, against a loop that reads everything again for one prompt."""

import numpy as np
import pytest
import torch

from harvest.models.generate import generate, pick
from harvest.models.hooked import HookedModel
from pipeline.errors import ModelError
from pipeline.specs import ModelSpec

from . import naive
from .architectures import FAMILIES

CAUSAL = [name for name, family in FAMILIES.items() if not family.bidirectional]
PROMPTS = [[5, 17, 210, 33], [9], [301, 44, 8, 120, 7, 66, 250]]
NEW = 9


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {name: FAMILIES[name].save(root / name) for name in CAUSAL}


def hooked(folders, family: str, *hookpoints: str) -> HookedModel:
    given = {"path": str(folders[family]), "hookpoint": hookpoints, "dtype": "float32"}
    model = HookedModel("m", ModelSpec.model_validate({**given, "device": "cpu"}))
    model.module.generation_config.eos_token_id = []  # random weights end a text anywhere
    return model


def padded(prompts: list[list[int]], left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, prompts))
    lines = [(p, [0] * (longest - len(p))) for p in prompts]
    ids = [[*pad, *p] if left else [*p, *pad] for p, pad in lines]
    mask = [[*pad, *[1] * len(p)] if left else [*[1] * len(p), *pad] for p, pad in lines]
    return torch.tensor(ids), torch.tensor(mask)


def pushed(x):
    """An edit that acts alike on every position, and not on every value."""
    return x + 30 * torch.linspace(-1, 1, x.shape[-1]) * (x[..., :1] > 0)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("family", CAUSAL)
def test_text_with_edits_is_that_of_a_loop_that_reads_everything_again(folders, family, left):
    kinds = FAMILIES[family].kinds(1)
    model = hooked(folders, family, "resid_post.1", "heads.1")
    plain = FAMILIES[family].build()
    clean = [naive.continuation(plain, p, NEW, greedy) for p in PROMPTS]
    for kind in ("resid_post.1", "heads.1"):
        naive.hook(plain, *kinds[kind], pushed)
    wanted = [naive.continuation(plain, p, NEW, greedy) for p in PROMPTS]
    edits = {hookpoint.name: pushed for hookpoint in model.hookpoints}
    found = generate(model, *padded(PROMPTS, left), edits, max_new_tokens=NEW)
    assert found.tolist() == wanted != clean
    found = generate(model, *padded(PROMPTS, left), max_new_tokens=NEW)
    assert found.tolist() == clean


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_drawn_tokens_are_those_of_the_loop_with_the_same_draws(folders, family):
    model = hooked(folders, family, "resid_post.1")
    plain = FAMILIES[family].build()
    generator = torch.Generator().manual_seed(7)
    draws = torch.rand(len(PROMPTS), NEW, generator=generator, dtype=torch.float64).numpy()

    def drawn(line):
        def choose(scores, step):
            p = np.exp((scores.double().numpy() - scores.max().item()) / 0.8)
            return int(np.searchsorted(np.cumsum(p) / p.sum(), draws[line, step], side="right"))

        return choose

    wanted = [naive.continuation(plain, p, NEW, drawn(n)) for n, p in enumerate(PROMPTS)]
    found = generate(model, *padded(PROMPTS), max_new_tokens=NEW, temperature=0.8, seed=7)
    assert found.tolist() == wanted
    other = generate(model, *padded(PROMPTS), max_new_tokens=NEW, temperature=0.8, seed=8)
    assert found.tolist() != other.tolist()


def greedy(scores, step):
    return int(scores.argmax())


def test_a_model_without_position_ids_reads_prompts_of_several_lengths(folders, monkeypatch):
    """Learned positions would be counted from the padding on."""
    model = hooked(folders, "gpt2", "resid_post.1")
    wanted = generate(model, *padded(PROMPTS), max_new_tokens=NEW)
    monkeypatch.setattr("harvest.models.generate.accepts", lambda model, argument: False)
    assert torch.equal(generate(model, *padded(PROMPTS), max_new_tokens=NEW), wanted)


def test_a_model_that_keeps_nothing_reads_everything_again(folders, monkeypatch):
    model = hooked(folders, "llama", "resid_post.1")
    edits = {model.hookpoints[0].name: pushed}
    wanted = generate(model, *padded(PROMPTS), edits, max_new_tokens=NEW)
    whole, lengths = model.module.forward, []

    def forgetful(*args, use_cache=None, logits_to_keep=0, **kwargs):
        lengths.append(kwargs["input_ids"].shape[1])
        return whole(*args, use_cache=False, **kwargs)

    monkeypatch.setattr(model.module, "forward", forgetful)
    prompts = padded(PROMPTS[2:])
    assert torch.equal(generate(model, *prompts, edits, max_new_tokens=NEW), wanted[2:])
    assert lengths == [*range(7, 7 + NEW)]


def test_behind_its_end_a_line_has_the_end_token_and_the_last_one_stops_all(folders):
    model = hooked(folders, "llama", "resid_post.1")
    free = generate(model, *padded(PROMPTS), max_new_tokens=NEW)
    end = int(free[0, 3])
    model.module.generation_config.eos_token_id = [end, 2]
    found = generate(model, *padded(PROMPTS[:1]), max_new_tokens=NEW)
    first = free[0].tolist().index(end)
    assert found.tolist() == [free[0, : first + 1].tolist()]
    both = generate(model, *padded(PROMPTS), max_new_tokens=NEW)
    assert both[0, first:].tolist() == [end] * (both.shape[1] - first)


def test_draws_come_as_often_as_softmax_says():
    generator = torch.Generator().manual_seed(0)
    scores = torch.tensor([0.3, -2.0, 1.5, -torch.inf, 0.0, -torch.inf])
    draws = torch.rand(40_000, generator=generator, dtype=torch.float64)
    found = pick(scores.expand(len(draws), -1), 0.5, draws)
    shares = torch.bincount(found, minlength=6) / len(draws)
    torch.testing.assert_close(shares, torch.softmax(scores / 0.5, 0), atol=0.01, rtol=0)
    assert shares[3] == shares[5] == 0


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_no_draw_hits_a_token_without_a_chance(draw):
    scores = torch.tensor([[-torch.inf, 1.0, 2.0, -torch.inf]])
    found = pick(scores, 1.0, torch.tensor([draw], dtype=torch.float64))
    assert found.item() in (1, 2)


def test_a_text_that_would_outgrow_the_context_is_refused(folders):
    model = hooked(folders, "llama", "resid_post.1")
    with pytest.raises(ModelError, match=r"prompt of 7 tokens and 58 new .* context of 64"):
        generate(model, *padded(PROMPTS), max_new_tokens=58)
