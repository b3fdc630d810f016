"""What is said of a step: a line of metrics.jsonl, and a note beside the progress bar."""

from __future__ import annotations

from typing import Any

from train.dictionary.crosscoder import Crosscoder
from train.evaluate import Evaluation
from train.recipes.schedule import active_features, learning_rate
from train.step_metrics import StepMetrics
from train.track import Track, dead_fraction

FVE_IN_A_LINE = 4  # hookpoints


def metrics_line(
    track: Track, result: StepMetrics, step: int, rows_per_second: float
) -> dict[str, Any]:
    """One line of metrics.jsonl; the device is waited for here."""
    trainee, config = track.trainee, track.config
    written = [h.name for h in trainee.dictionary.hookpoints if h.writes]
    line = {
        "step": step + 1,
        "rows": (step + 1) * config.batch_rows,
        "loss": float(result.loss),
        **{name: float(term) for name, term in result.terms.items()},
        "gradient_norm": float(result.gradient_norm),
        "fve": dict(zip(written, result.fve.tolist(), strict=True)),
        "l0": float(result.l0),
        "dead_fraction": dead_fraction(trainee),
        "lr": learning_rate(step, config),
        "k": active_features(step, config),
        "threshold": _threshold(trainee.dictionary),
        "rows_per_second": round(rows_per_second, 1),
    }
    if config.skip_bad_batches:
        line["bad_batches"] = int(trainee.bad_batches)
    return line


def _threshold(dictionary: Crosscoder) -> float | list[float] | None:
    """The inference threshold, or those of BatchTopK's parts; JumpReLU's mean; None of others."""
    if dictionary.activation.kind not in ("batch_topk", "jump_relu"):
        return None
    if dictionary.activation.kind == "jump_relu":
        return float(dictionary.threshold.detach().mean())
    found: float | list[float] = dictionary.threshold.tolist()
    return found


def progress_note(track: Track, result: StepMetrics) -> str:
    """The last loss, FVE, L0 and dead fraction, for the progress bar; batches that were skipped.

    FVE is that of each hookpoint, or mean and minimum if they are too many for a line.
    """
    skipped = int(track.trainee.bad_batches)
    return (
        f"loss {float(result.loss):.4g} FVE {_fve(result.fve.tolist())} "
        f"L0 {float(result.l0):.0f} dead {dead_fraction(track.trainee):.1%}"
        + (f" bad batches {skipped}" if skipped else "")
    )


def validation_note(result: Evaluation) -> str:
    """The same of held-out rows, shorter; nothing without them."""
    values = [value for value in result.fve.values() if value is not None]
    return f" held-out FVE {_fve(values)}" if values else ""


def _fve(values: list[float]) -> str:
    if len(values) > FVE_IN_A_LINE:
        return f"{sum(values) / len(values):.3f} min {min(values):.3f}"
    return " ".join(f"{value:.3f}" for value in values)
