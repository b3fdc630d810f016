"""The noise of a copy beside errors of maps that are fitted in plain float64 on the stored rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from analyze.null.noise import unpredicted
from analyze.null.pair import null_pair
from analyze.statistics.moments import Moments
from analyze.subject import Subject
from analyze.sweep.gather import gather
from store.block import Block
from store.loader import Batch
from store.reader import Store
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import single_group
from train.linear_map import RIDGES

WIDTHS = {"a0": 3, "b0": 4, "a1": 4, "b1": 5}
SCALES = {"a0": 0.5, "b0": 2.0, "a1": 3.0, "b1": 1.0}
DOCUMENTS, ROWS = 40, 100  # of a document


def only_a(rows: int) -> torch.Tensor:
    """What a alone has, the same in both of its layers."""
    return torch.randn(rows, 1, generator=torch.Generator().manual_seed(1))


def activations(rows: int) -> dict[str, torch.Tensor]:
    """Linear in two numbers a row that both models have, and in what a alone has."""
    random = torch.Generator().manual_seed(0)
    both = torch.randn(rows, 2, generator=random)
    out = {}
    for name, width in WIDTHS.items():
        weight = torch.randn(2, width, generator=random)
        own = torch.randn(1, width, generator=random) if name.startswith("a") else 0.0
        small = 0.1 * torch.randn(rows, width, generator=random)
        out[name] = (both @ weight + only_a(rows) * own + small + 1).bfloat16()
    return out


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    hookpoints = tuple(Hookpoint(name, name[0], width) for name, width in WIDTHS.items())
    path = tmp_path_factory.mktemp("layers") / "store.zarr"
    rows = DOCUMENTS * ROWS
    within = np.tile(np.arange(ROWS, dtype=np.int32), DOCUMENTS)
    block = Block(
        texts=[f"document {number}" for number in range(DOCUMENTS)],
        labels=["synthetic"] * DOCUMENTS,
        sources=["corpus"] * DOCUMENTS,
        activations=activations(rows),
        document=np.repeat(np.arange(DOCUMENTS, dtype=np.int32), ROWS),
        char_start=within,
        char_end=within + 1,
        tokens=dict.fromkeys("ab", within),
        tokens_read={"a": rows, "b": rows},
        tokens_paired={"a": rows, "b": rows},
    )
    with PartWriter(path, StoreSchema(hookpoints, 256, {"corpus": "0"}, {})) as writer:
        writer.append(block, 1)
        writer.finish()
    shapes = tuple(HookpointShape(name, name[0], width) for name, width in WIDTHS.items())
    dictionary = Crosscoder(shapes, single_group(("a", "b"), 4))
    dictionary.scale.copy_(torch.tensor(list(SCALES.values())))
    return Subject(Store(path), dictionary, Path(), {"train": {"validation_fraction": 0.25}})


def filled(subject: Subject) -> Moments:
    moments = Moments(subject)
    gather(subject, [moments], 256)
    return moments


def errors_of_explicit_maps(subject: Subject) -> np.ndarray:
    """Of the map of RIDGES that is best on held-out rows, there; hookpoints in scaled units."""
    z = {n: x.double().numpy() * SCALES[n] for n, x in activations(DOCUMENTS * ROWS).items()}
    base, other = (np.hstack([z[f"{model}{n}"] for n in range(2)]) for model in "ab")
    held_out = subject.held_out[np.repeat(np.arange(DOCUMENTS), ROWS)]
    assert 0 < held_out.sum() < len(held_out)
    x, y = other[~held_out], base[~held_out]
    centred = x - x.mean(0)
    gram = centred.T @ centred / len(x)
    found = []
    for ridge in RIDGES:
        strength = ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
        weight = np.linalg.solve(gram + strength, centred.T @ (y - y.mean(0)) / len(x))
        error = base[held_out] - (other[held_out] - x.mean(0)) @ weight - y.mean(0)
        found.append(error.T @ error / len(error))
    return min(found, key=np.trace)


def test_it_is_the_covariance_of_the_errors_of_one_map_between_all_hookpoints(subject):
    expected = errors_of_explicit_maps(subject)
    scale = np.repeat([SCALES["a0"], SCALES["a1"]], [WIDTHS["a0"], WIDTHS["a1"]])
    found = unpredicted(subject, filled(subject)).numpy()
    np.testing.assert_allclose(found, expected / np.outer(scale, scale), rtol=1e-3, atol=1e-4)


def test_copies_of_several_layers_say_no_more_of_what_they_lack_than_one_does(subject):
    """Were the noise of each layer its own, two of them would average it out."""
    noise = unpredicted(subject, filled(subject))
    pair = null_pair(subject.dictionary, 0, noise)
    rows = activations(DOCUMENTS * ROWS)
    seen = pair.view(Batch(rows, np.arange(DOCUMENTS * ROWS)))
    copies = (seen["b0"], seen["b1"], torch.cat([seen["b0"], seen["b1"]], dim=1))
    lacking = only_a(DOCUMENTS * ROWS)[:, 0].double()
    shares = [share_explained(lacking, copy) for copy in copies]
    # As much noise as there is of what b lacks: half is left of it, in one layer as in both.
    assert shares == pytest.approx([0.5] * 3, abs=0.05)


def share_explained(y: torch.Tensor, x: torch.Tensor) -> float:
    """R^2 of ordinary least squares with intercept."""
    design = torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    error = y - design @ torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
    return 1 - float(error.var() / y.var())
