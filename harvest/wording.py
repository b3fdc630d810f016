"""Figures of a harvest as its commands print them."""

from __future__ import annotations


def paired(fractions: dict[str, float]) -> str:
    """Share of each model's tokens that became rows."""
    return "tokens paired: " + ", ".join(f"{name} {share:.1%}" for name, share in fractions.items())


def left_out(counts: dict[str, int]) -> str:
    """What was left out, and how much of it."""
    return "left out: " + ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
