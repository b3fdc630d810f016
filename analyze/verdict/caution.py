"""Dictionaries whose verdicts are known to be worse than their false-discovery rate says."""

from __future__ import annotations

from train.dictionary.crosscoder import Crosscoder

RESIDUALS = (
    "the false-discovery rate of a dictionary of residuals is not calibrated: on toy models more "
    "of its calls are false than the rate says (benchmarks/RESULTS.md); analyze.null_runs of 3 or "
    "more brings it nearer"
)


def caution(dictionary: Crosscoder) -> str | None:
    """What to know before its verdicts are believed; None: nothing beyond the rate."""
    return None if dictionary.prediction is None else RESIDUALS
