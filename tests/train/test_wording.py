"""What a run says of its hookpoints: the line of its progress, and the summary at its end."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from train.evaluate import Evaluation
from train.lines import progress_note
from train.loop import TrainedDictionary
from train.step_metrics import StepMetrics
from train.summary import summary


def note(fve: list[float], skipped: int = 0) -> str:
    trainee = SimpleNamespace(
        rows_since_fired=torch.tensor([0, 20, 20]),
        config=SimpleNamespace(dead_after_rows=10),
        bad_batches=torch.tensor(skipped),
    )
    metrics = StepMetrics(
        torch.tensor(1234.5), {}, torch.tensor(fve), torch.tensor(32.2), torch.tensor(0.5)
    )
    return progress_note(SimpleNamespace(trainee=trainee), metrics)


def trained(fve: dict[str, float | None]) -> TrainedDictionary:
    return TrainedDictionary("dfc", Path("run/sae"), Evaluation(fve, 31.96, 100), 0.25)


def test_few_hookpoints_are_each_in_the_progress():
    assert note([0.5, 0.25, 1.0, 0.75]) == "loss 1234 FVE 0.500 0.250 1.000 0.750 L0 32 dead 66.7%"


def test_of_many_hookpoints_the_progress_has_mean_and_minimum():
    assert note([0.5, 0.25, 1.0, 0.75, 0.5]) == "loss 1234 FVE 0.600 min 0.250 L0 32 dead 66.7%"


@pytest.mark.parametrize("count", [1, 4, 5, 60])
def test_the_note_is_no_longer_for_more_hookpoints(count):
    assert len(note([0.123456] * count)) <= len(note([0.123456] * 4))


def test_few_hookpoints_are_summed_up_in_one_line():
    assert summary(trained({"a.x": 0.5, "b.x": None})) == (
        "run/sae: dfc: held-out FVE a.x 0.500, b.x (no variance); L0 32.0; dead 25.0%"
    )


def test_many_hookpoints_are_summed_up_one_a_line():
    fve = {"a.1": 0.1, "a.2": None, "a.3": 0.3, "b.1": 0.4, "b.2": 0.5}
    assert summary(trained(fve)).splitlines() == [
        "run/sae: dfc: L0 32.0; dead 25.0%; held-out FVE:",
        *("  a.1 0.100", "  a.2 (no variance)", "  a.3 0.300", "  b.1 0.400", "  b.2 0.500"),
    ]
