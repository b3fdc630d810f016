"""Figures of a harvest as its commands print them."""

from __future__ import annotations


def paired(fractions: dict[str, float]) -> str:
    """Share of each model's tokens that became rows."""
    return "tokens paired: " + ", ".join(f"{name} {share:.1%}" for name, share in fractions.items())


def left_out(counts: dict[str, int]) -> str:
    """What was left out, and how much of it."""
    return "left out: " + ", ".join(f"{count:,} {reason}" for reason, count in counts.items())


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def size(count: float) -> str:
    """Bytes in decimal units, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.95:
            return f"{count:,.0f} B" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
