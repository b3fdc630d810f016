"""When a step's work is recorded, and what is replayed; test_cuda.py has real recordings."""

import torch
from torch import Tensor

from train.graphed import STEADY, Graphed, Recording, Work
from train.step_metrics import StepMetrics, pack, unpack


class Recorder:
    """Does work on what it was recorded on, as a graph does."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def __call__(self, work: Work, inputs: list[Tensor]) -> Recording:
        self.recorded += 1
        result = torch.zeros(())

        def replay() -> None:
            self.replayed += 1
            result.copy_(work(inputs))

        return replay, result


def total(x: list[Tensor]) -> Tensor:
    return torch.stack([one.sum() for one in x]).sum()


def batch(number: int, rows: int = 2) -> list[Tensor]:
    return [torch.full((rows, 3), float(number)), torch.full((rows, 1), 10.0)]


def test_steps_that_are_alike_are_recorded_and_each_has_its_own_result():
    recorder = Recorder()
    graphed = Graphed(total, recorder)
    results = [graphed(batch(n), "alike") for n in range(STEADY + 4)]
    assert [float(one) for one in results] == [6 * n + 20 for n in range(STEADY + 4)]
    assert (recorder.recorded, recorder.replayed) == (1, 4)


def test_steps_that_differ_are_done_and_never_replayed():
    recorder = Recorder()
    graphed = Graphed(total, recorder)
    for n in range(20):
        assert float(graphed(batch(n), alike=n // STEADY)) == 6 * n + 20
    assert recorder.recorded == 0


def test_another_number_of_rows_is_another_recording():
    recorder = Recorder()
    graphed = Graphed(total, recorder)
    for rows in (2, 5):
        for n in range(STEADY + 2):
            assert float(graphed(batch(n, rows), "alike")) == rows * (3 * n + 10)
    assert recorder.recorded == 2


def test_metrics_come_out_of_one_tensor_as_they_went_in():
    one, two, three, *terms = torch.arange(5.0).unbind()
    metrics = StepMetrics(
        one, {"reconstruction": terms[0], "auxk": terms[1]}, torch.ones(3), two, three
    )
    found = unpack(pack(metrics), ["reconstruction", "auxk"])
    assert (found.loss, found.l0, found.gradient_norm) == (one, two, three)
    assert found.terms == metrics.terms
    assert torch.equal(found.fve, metrics.fve)
