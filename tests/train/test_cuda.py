"""What only a CUDA device can show; left out where there is none.

`python -m pytest tests/train/test_cuda.py` on a machine that has one.
"""

import warnings

import pytest
import torch

from store.reader import Store
from train import graphed
from train.dictionary.block_topk import largest_of_blocks
from train.dictionary.codes import Pattern
from train.dictionary.sparse_products import gather_sum
from train.loop import train
from train.recipes.presets import planned
from train.recipes.recipe import build_trainee
from train.source import StoreRows
from train.trainee import Trainee

from .conftest import tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
ALL = [
    *("dfc", "batch_topk_crosscoder", "crosscoder", "standard", "gated", "topk", "batch_topk"),
    *("residual_dfc", "jump_relu", "p_anneal", "gated_anneal", "matryoshka"),
]
PIECES: dict[str, dict[str, object]] = {
    "decoupled": {"code_normalization": "decoupled", "sparsity": "none"},
    "nested": {"matryoshka": [0.25, 1.0]},
    "ghost": {"ghost_grads": True},
    "entropy": {"sparsity": "entropy"},
}
COMBINED = ["batch_topk_crosscoder decoupled", "dfc nested", "standard ghost", "standard entropy"]
STEPS = 24


def trainee_on(store: Store, device: str, recipe: str, **settings: object) -> Trainee:
    chosen = {"sparsity_weight": 0.1, "threshold_start": 2, "auxk": 4, "dead_after_rows": 128}
    chosen |= {"p_updates": 2, "k_anneal_steps": 0, "cuda_graphs": True}
    if " " in recipe:  # a recipe and what it is combined with
        recipe, piece = recipe.split()
        chosen |= PIECES[piece]
    config = tiny(recipes=[recipe], steps=STEPS, decay_start=None, **{**chosen, **settings})
    source = StoreRows(store, config)
    return build_trainee(planned(config)[0], source, source.first_batch(), torch.device(device))


def batches(store: Store, device: str) -> list[dict[str, torch.Tensor]]:
    config = tiny()
    source = StoreRows(store, config)
    found = [batch.activations for batch, _ in zip(source, range(STEPS), strict=False)]
    return [{name: x.to(device) for name, x in batch.items()} for batch in found]


@pytest.mark.parametrize("recipe", [*ALL, *COMBINED])
def test_a_cuda_device_trains_as_a_cpu_does(store, recipe):
    losses = {}
    for device in ("cpu", "cuda"):
        trainee = trainee_on(store, device, recipe)
        rows = batches(store, device)
        losses[device] = [float(trainee.step(x, n).loss) for n, x in enumerate(rows)]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)


@pytest.mark.parametrize("recipe", [*ALL, *COMBINED[1:]])
def test_a_step_does_not_wait_for_the_device(store, recipe):
    trainee = trainee_on(store, "cuda", recipe)
    rows = batches(store, "cuda")
    trainee.step(rows[0], 0)  # kernels are compiled, lists of dead features made
    try:
        with warnings.catch_warnings():  # that the mode is a prototype
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("error")
        for number in range(1, 16):  # then dead features are looked up
            trainee.step(rows[number], number)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("recipe", [*(one for one in ALL if "anneal" not in one), *COMBINED[1:]])
def test_a_recorded_step_has_the_bits_of_one_that_is_launched(store, recipe, monkeypatch):
    ends = []
    for steady in (3, 10**6):
        monkeypatch.setattr(graphed, "STEADY", steady)
        trainee = trainee_on(store, "cuda", recipe)
        steps = [trainee.step(x, n) for n, x in enumerate(batches(store, "cuda"))]
        recorded = trainee._graphed is not None and trainee._graphed.recording is not None
        assert recorded == (steady == 3)
        named = {f"loss {n}": one.loss for n, one in enumerate(steps)}
        named |= {f"fve {n}": one.fve for n, one in enumerate(steps)}
        ends.append({**trainee.dictionary.state_dict(), **named, "f": trainee.rows_since_fired})
    assert [name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])] == []


@pytest.mark.parametrize("recipe", ["dfc", "jump_relu", "p_anneal", "matryoshka"])
def test_two_runs_end_with_the_same_bits(store, recipe):
    ends = []
    for _ in range(2):
        trainee = trainee_on(store, "cuda", recipe)
        for number, x in enumerate(batches(store, "cuda")):
            trainee.step(x, number)
        ends.append(trainee.dictionary.state_dict())
    assert [name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])] == []


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_narrow_products_change_the_loss_a_little(store, precision):
    losses = {}
    for kind in ("float32", precision):
        trainee = trainee_on(store, "cuda", "dfc", precision=kind)
        rows = batches(store, "cuda")
        losses[kind] = [float(trainee.step(x, n).loss) for n, x in enumerate(rows)]
    assert losses[precision] != losses["float32"]
    assert losses[precision] == pytest.approx(losses["float32"], rel=0.05)


def test_steps_are_recorded_anew_more_often_than_torch_has_streams(store, tmp_path, monkeypatch):
    monkeypatch.setattr(graphed, "STEADY", 1)
    config = tiny(device="cuda", steps=200, k_start=40, k=4, k_anneal_steps=160, decay_start=None)
    config = config.model_copy(update={"cuda_graphs": True})
    (trained,) = train(store, config, tmp_path / "many")
    assert trained.validation.rows > 0


def test_memory_does_not_grow_with_recordings(store, monkeypatch):
    monkeypatch.setattr(graphed, "STEADY", 1)
    trainee, reserved = trainee_on(store, "cuda", "batch_topk_crosscoder", features=8192), []
    rows = batches(store, "cuda")
    for number in range(60):
        trainee._dead_changes = number // 3  # another recording every third step
        trainee.step(rows[number % 16], number % 16 + 1)
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[-1] <= 1.2 * max(reserved[6:12])


def test_a_run_from_a_store_resumes_with_the_same_bits(store, tmp_path):
    whole = train(store, tiny(device="cuda"), tmp_path / "whole")
    stop = {"at": 35}

    def halt(done: int, note: str) -> None:
        if done == stop["at"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(store, tiny(device="cuda"), tmp_path / "cut", halt)
    stop["at"] = -1
    again = train(store, tiny(device="cuda"), tmp_path / "cut", halt)
    files = [run[0].folder / "model.safetensors" for run in (whole, again)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert whole[0].validation == again[0].validation


@pytest.mark.parametrize(
    ("rows", "features", "k"), [(512, 4096, 32), (64, 32 * 100, 900), (9, 50, 3)]
)
def test_selection_is_that_of_a_sort(rows, features, k):
    torch.manual_seed(0)
    pre = torch.randn(rows, features, device="cuda")
    scale = torch.rand(features, device="cuda") + 0.1
    flat, scores, smallest = largest_of_blocks(pre, scale, k * rows)
    written = (pre * scale).relu().view(-1)
    wanted = written.sort(descending=True).values[: k * rows]
    assert (flat.diff() > 0).all()
    assert torch.equal(scores, written[flat])
    assert torch.equal(scores.sort(descending=True).values, wanted)
    assert smallest == wanted[-1]


@pytest.mark.parametrize(("rows", "features", "width", "k"), [(64, 512, 2304, 20), (33, 70, 24, 5)])
def test_sparse_products_are_the_dense_ones(rows, features, width, k):
    torch.manual_seed(0)
    size = rows * features
    pattern = Pattern(torch.randperm(size, device="cuda")[: rows * k].sort().values, rows, features)
    values = torch.randn(rows * k, device="cuda")
    weights = torch.randn(features, width, device="cuda")
    grad = torch.randn(rows, width, device="cuda")
    dense = torch.zeros(size, device="cuda").index_put((pattern.flat,), values).view(rows, -1)

    def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-3)

    dense, wide, steep = dense.double(), weights.double(), grad.double()
    decoded = gather_sum(pattern.row_starts, pattern.columns, values, weights)
    same(decoded, dense @ wide)
    grad_values, grad_weights = pattern.decode_gradients(
        values, grad, weights, [slice(0, features)]
    )
    same(grad_weights, dense.T @ steep)
    same(grad_values, (steep @ wide.T).view(-1)[pattern.flat])
