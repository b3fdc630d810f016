"""What takes the place of activations where a dictionary is of their residuals."""

import numpy as np
import pytest
import torch

from analyze.causal.rebuild import Rebuilt
from analyze.subject import open_subject
from train.dictionary.artifact import save_dictionary
from train.dictionary.crosscoder import Crosscoder

from ..conftest import A, B


@pytest.fixture
def subject(known_store, dfc_folder, tmp_path):
    """The known dictionary on residuals of maps without meaning."""
    plain = open_subject(known_store, dfc_folder, "cpu").dictionary
    core = Crosscoder(plain.hookpoints, plain.partition, residual=True)
    core.load_state_dict({**core.state_dict(), **plain.state_dict()})
    generator = torch.Generator().manual_seed(0)
    for name, buffer in core.prediction.named_buffers():
        if name != "r2":
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
    save_dictionary(tmp_path, core, {})
    return open_subject(known_store, tmp_path, "cpu")


def test_it_is_what_is_predicted_and_the_residuals_reconstruction(subject):
    rebuilt, core = Rebuilt(subject), subject.dictionary
    store, count = subject.store, 40
    rows = {name: store.activations(name, 0, 0, count) for name in (A, B)}
    found = rebuilt.take(rows, np.zeros(count, np.int64), batch_rows=16)
    p, x = core.prediction, {name: row.float() for name, row in rows.items()}
    predicted = {A: x[B] @ p.weight_0.T + p.bias_0, B: x[A] @ p.weight_1.T + p.bias_1}
    decoded = core.decode(core.encode(rows))
    for name, model in ((A, "a"), (B, "b")):
        wanted = predicted[name] + decoded[name]
        torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-5)
        error = float((x[name] - wanted).double().square().sum())
        mean = torch.from_numpy(store.statistics(name).mean)
        spread = float((x[name].double() - mean).square().sum())
        assert error > 0
        assert rebuilt.fve(model, [0]) == pytest.approx(1 - error / spread, rel=1e-4)
