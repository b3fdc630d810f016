"""The noise of a copy beside errors of maps that are fitted in plain float64 on the stored rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analyze.null.noise import LEAST_TOLD, blurring, root_of_noise
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
from train.dictionary.fold import fold
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


def errors_of_explicit_maps(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Second moments of those of the map of RIDGES that is best on held-out rows, there, and the
    covariance of what it is to predict; hookpoints in scaled units.
    """
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
    return min(found, key=np.trace), np.cov(base[held_out].T, bias=True)


def as_predicted(error: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """What is left of x to a linear reader of its copy, with at least half of all directions told.

    By the eigenvectors of S x = s C x, scaled so that C is the identity there.
    """
    values, vectors = map(np.real, np.linalg.eig(np.linalg.solve(covariance, error)))
    vectors /= np.sqrt(np.einsum("wi,wv,vi->i", vectors, covariance, vectors))
    back = np.linalg.inv(vectors)
    return back.T @ np.diag(values.clip(0, 0.5)) @ back


@pytest.mark.parametrize("folded", [False, True])
def test_a_copy_leaves_the_errors_of_one_map_between_all_hookpoints(subject, folded):
    if folded:
        subject = replace(subject, dictionary=fold(subject.dictionary)[0])
    expected, covariance = errors_of_explicit_maps(subject)
    scale = np.repeat([SCALES["a0"], SCALES["a1"]], [WIDTHS["a0"], WIDTHS["a1"]])
    root = blurring(subject, filled(subject)).numpy() * scale[:, None]
    error = np.linalg.inv(np.linalg.inv(covariance) + np.linalg.inv(root @ root.T))
    np.testing.assert_allclose(error, as_predicted(expected, covariance), rtol=2e-3, atol=2e-3)


def test_copies_of_several_layers_say_as_little_of_what_they_lack_as_one_does(subject):
    """Were the noise of each layer its own, two of them would average it out."""
    pair = null_pair(subject.dictionary, 0, blurring(subject, filled(subject)))
    rows = activations(DOCUMENTS * ROWS)
    seen = pair.view(Batch(rows, np.arange(DOCUMENTS * ROWS)))
    copies = (seen["b0"], seen["b1"], torch.cat([seen["b0"], seen["b1"]], dim=1))
    lacking = only_a(DOCUMENTS * ROWS)[:, 0].double()
    shares = [share_explained(lacking, copy) for copy in copies]
    assert shares == pytest.approx([0.5] * 3, abs=0.06)


def test_a_copy_is_read_as_well_as_the_other_model_where_that_tells_more_than_half():
    """Of x = y + noise, three ways: what the other model has, in closed form, and in draws."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200_000, 3, generator=generator, dtype=torch.float64)
    told = torch.tensor([0.9, 0.6, 0.2], dtype=torch.float64)
    root = root_of_noise(torch.diag(1 - told), torch.eye(3, dtype=torch.float64))
    copy = x + torch.randn(x.shape, generator=generator, dtype=torch.float64) @ root.T
    shares = [share_explained(column, copy) for column in x.T]
    assert shares == pytest.approx([0.9, 0.6, LEAST_TOLD], abs=0.01)


def test_the_narrower_model_is_the_base_whichever_comes_first(subject):
    swapped = {name: ("b" if name[0] == "a" else "a") for name in WIDTHS}
    shapes = tuple(HookpointShape(name, swapped[name], width) for name, width in WIDTHS.items())
    dictionary = Crosscoder(shapes[::-1], single_group(("a", "b"), 4))
    dictionary.scale.copy_(torch.tensor(list(SCALES.values())[::-1]))
    turned = replace(subject, dictionary=dictionary)
    root, other = (blurring(one, filled(one)) for one in (subject, turned))
    order = torch.tensor([3, 4, 5, 6, 0, 1, 2])  # a1 before a0
    expected = root @ root.T
    torch.testing.assert_close(other @ other.T, expected[order][:, order], rtol=1e-4, atol=1e-6)


def share_explained(y: torch.Tensor, x: torch.Tensor) -> float:
    """R^2 of ordinary least squares with intercept."""
    design = torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    error = y - design @ torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
    return 1 - float(error.var() / y.var())
