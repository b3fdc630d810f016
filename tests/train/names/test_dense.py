"""The dense differentiable pass: against the core's sparse one, finite differences and formulas."""

import pytest
import torch
from torch.func import functional_call

from train.names import Dictionary, dense
from train.names.rows import flatten

from .randomised import CASES, DFC, ROWS, close, make, rows_of

EACH = pytest.mark.parametrize("case", CASES)


@EACH
def test_codes_and_reconstructions_are_those_of_the_core(case):
    core = make(case)
    rows = rows_of(core)
    sparse, codes = core.encode(rows), dense.encode(core, rows)
    wanted = sparse.dense()
    assert 0 < int((wanted > 0).sum()) < wanted.numel()
    close(codes if codes.dim() == 2 else codes.amax(dim=1), wanted)
    found = dense.decode(core, codes)
    for name, x_hat in core.decode(sparse).items():
        close(found[name], x_hat)


def test_decoupled_codes_may_be_on_for_one_hookpoint_only():
    core = make("decoupled")
    on = dense.encode(core, rows_of(core)) > 0
    shared = on[:, :, DFC[("a",)] : -DFC[("b",)]]
    assert on.shape == (ROWS, 2, 24)
    assert (shared[:, 0] != shared[:, 1]).any()
    assert not on[:, 0, -DFC[("b",)] :].any()


@EACH
def test_gradients_to_inputs_and_weights_are_those_of_finite_differences(case):
    core = make(case)
    dictionary = Dictionary(core)
    rows, _ = flatten(core, rows_of(core))
    inputs = {name: row[:3].requires_grad_() for name, row in rows.items()}
    # A JumpReLU threshold's gradient is an estimate on purpose; see the next test.
    skipped = {"core.threshold"}
    weights = {n: p for n, p in dictionary.named_parameters() if n not in skipped}

    def outputs(*values):
        x = dict(zip(inputs, values, strict=False))
        new = dict(zip(weights, values[len(inputs) :], strict=True))
        return tuple(functional_call(dictionary, new, (x,)).values())

    values = (*inputs.values(), *(p.detach().clone().requires_grad_() for p in weights.values()))
    assert torch.autograd.gradcheck(outputs, values)
    total = sum(part.square().sum() for part in outputs(*values))
    for name, gradient in zip(
        [*inputs, *weights], torch.autograd.grad(total, values, allow_unused=True), strict=True
    ):
        assert gradient is not None, name
        assert gradient.abs().max() > 0 or (name == "core.b_enc" and "gated" in case), name


def test_a_jump_relu_threshold_gets_its_straight_through_gradient():
    core = make("jump_relu")
    rows = rows_of(core)
    pre = dense.preactivations(core, rows).detach()
    with torch.no_grad():
        core.threshold.copy_(pre.abs()[0] + 1e-4)  # row 0 of positive features lies near by
    dense.encode(core, rows).sum().backward()
    near = ((pre - core.threshold.detach()).abs() < 5e-4) & (pre > 0)
    assert near.any()
    close(core.threshold.grad, -(core.threshold.detach() / 0.001) * near.sum(dim=0))


def scaled(core, x):
    mean = core.get_buffer("mean_0") if core.means else 0
    return (x - mean) * core.scale[0]


def formula(core, x, case):
    """f from the papers' formulas, with weights as plain tensors; x' in scaled units."""
    W_enc, W_dec, b_dec = core.W_enc["0"], core.W_dec["0"], core.b_dec["0"]
    x = scaled(core, x)
    if case == "relu":
        return torch.relu((x - b_dec) @ W_enc.T + core.b_enc)
    if case.startswith("gated"):
        x_e = (x - b_dec if core.center else x) @ W_enc.T
        gate = (x_e + core.b_enc > 0).double()
        return gate * torch.relu(core.r_mag.exp() * x_e + core.mag_bias)
    if case == "jump_relu":
        pre = x @ W_enc.T + core.b_enc
        return torch.relu(pre * (pre > core.threshold))
    f = torch.relu((x - b_dec) @ W_enc.T + core.b_enc)
    scores = f * W_dec.norm(dim=1)
    if case == "batch_topk":
        return f * (scores > core.threshold)
    fourth = scores.sort(dim=1, descending=True).values[:, 3:4]
    return f * (scores >= fourth)


@pytest.mark.parametrize(
    "case", ["relu", "gated", "gated with means", "jump_relu", "topk", "batch_topk"]
)
def test_one_model_dictionaries_are_their_formulas(case):
    core = make(case)
    x = rows_of(core)["x"]
    dictionary = Dictionary(core)
    wanted = formula(core, x, case)
    x_hat, f = dictionary(x, output_features=True)
    close(f, wanted)
    mean = core.get_buffer("mean_0") if core.means else 0
    close(x_hat, (wanted @ core.W_dec["0"] + core.b_dec["0"]) / core.scale[0] + mean)
