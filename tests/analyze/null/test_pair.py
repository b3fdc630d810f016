"""The null pair: everything that one of its models has, the other has in a direction of its own."""

import numpy as np
import pytest
import torch

from analyze.null.pair import base_model, null_pair
from analyze.pairing import hookpoint_pairs
from pipeline.errors import ConfigError
from store.loader import Batch
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import single_group


def dictionary(*widths: tuple[str, int]) -> Crosscoder:
    shapes = tuple(HookpointShape(f"{m}{n}", m, w) for n, (m, w) in enumerate(widths))
    return Crosscoder(shapes, single_group(("a", "b"), 4))


def batch(rows: int, seed: int = 0, first: int = 0, **widths: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    activations = {
        name: torch.randn(rows, width, generator=generator).bfloat16()
        for name, width in widths.items()
    }
    return Batch(activations, np.arange(first, first + rows))


def test_a_copy_keeps_lengths_and_angles_and_is_in_the_others_width():
    pair = null_pair(dictionary(("a", 5), ("b", 8)), 3, None)
    rows = batch(20, a0=5, b1=8)
    seen = pair.view(rows)
    assert seen["b1"].shape == (20, 8)
    assert seen["a0"] is rows.activations["a0"]
    x_BD = rows.activations["a0"].float()
    torch.testing.assert_close(seen["b1"] @ seen["b1"].T, x_BD @ x_BD.T, rtol=1e-4, atol=1e-4)


def test_the_narrower_model_is_the_base_and_the_first_of_equals():
    assert base_model(dictionary(("a", 8), ("b", 5))) == "b"
    assert base_model(dictionary(("a", 5), ("b", 5))) == "a"
    crossed = dictionary(("a", 8), ("a", 4), ("b", 5), ("b", 6))
    assert len(hookpoint_pairs(crossed)) == 2
    with pytest.raises(ConfigError, match="no null pair"):
        base_model(crossed)


def test_a_hookpoint_without_a_copy_is_refused():
    shapes = (
        HookpointShape("a0", "a", 4, writes=False),
        HookpointShape("a1", "a", 4, reads=False),
        HookpointShape("b0", "b", 4),
    )
    with pytest.raises(ConfigError, match="a0 is encoded but not reconstructed"):
        null_pair(Crosscoder(shapes, single_group(("a", "b"), 4)), 0, None)


def test_noise_has_the_covariance_that_was_asked_for_over_all_hookpoints():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(7, 7, generator=generator, dtype=torch.float64)
    shapes = dictionary(("a", 4), ("b", 4), ("a", 3), ("b", 5))
    pair = null_pair(shapes, 0, root)
    rows = batch(200_000, a0=4, b1=4, a2=3, b3=5)
    seen = pair.view(rows)
    noise = [
        seen[copy.other] @ copy.rotation.T - rows.activations[copy.base].float()
        for copy in pair.copies
    ]
    found = torch.cat(noise, dim=1)
    found = found.T @ found / len(found)
    torch.testing.assert_close(found, (root @ root.T).float(), rtol=0.05, atol=0.1)


def test_the_same_rows_have_the_same_copy_and_others_another_noise():
    pair = null_pair(dictionary(("a", 4), ("b", 4)), 0, torch.eye(4))
    first, again = pair.view(batch(9, a0=4, b1=4)), pair.view(batch(9, a0=4, b1=4))
    assert torch.equal(first["b1"], again["b1"])
    assert not torch.equal(first["b1"], pair.view(batch(9, first=100, a0=4, b1=4))["b1"])


def test_a_pair_is_named_by_its_content():
    shapes = dictionary(("a", 4), ("b", 4))
    assert null_pair(shapes, 0, None).name == null_pair(shapes, 0, None).name
    others = (null_pair(shapes, 1, None), null_pair(shapes, 0, torch.eye(4)))
    assert len({null_pair(shapes, 0, None).name, *(pair.name for pair in others)}) == 3
