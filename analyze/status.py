"""Whether the report of a run is there and still what its configuration asks for."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from analyze.command import SWEEP, Opened
from analyze.config import AnalyzeConfig
from pipeline.errors import StoreError
from store.files import read_json, write_json
from train.lock import is_locked

State = Literal["complete", "running", "stopped", "not begun", "outdated"]
MARKER, NULL, EXPLANATIONS = "report.json", "null", "explanations"
# Settings that change no figure: free to change without making the report outdated.
FREE_SETTINGS = {"batch_rows", "batch_tokens", "device", "incomplete_store"}


@dataclass(frozen=True)
class ReportStatus:
    """page: report.html; tables: made of this dictionary so far; reason: of an outdated one."""

    page: str
    state: State
    tables: list[str]
    reason: str | None


def note_report(opened: Opened, baselines: Sequence[str]) -> None:
    """Keeps beside the tables what the report was made from, once it is written."""
    write_json(opened.out / MARKER, _made_from(opened, baselines))


def discard(opened: Opened) -> None:
    """Removes what the report is made of: sums, nulls, tables of this dictionary; nothing else."""
    (opened.out / MARKER).unlink(missing_ok=True)
    for name in (SWEEP, NULL):
        if (opened.out / name).is_dir():
            shutil.rmtree(opened.out / name)
    for name in opened.tables.names:
        if name != EXPLANATIONS:  # a language model has been paid for them
            opened.tables.remove(name)


def status(opened: Opened, baselines: Sequence[str], page: Path) -> ReportStatus:
    """Compares what the report was made from with what there is now; baselines: their folders."""
    tables = opened.tables.names
    if is_locked(opened.out):
        return ReportStatus(str(page), "running", tables, None)
    made = _read(opened.out / MARKER)
    if made is None or not page.exists():
        return ReportStatus(str(page), "stopped" if tables else "not begun", tables, None)
    reason = _difference(made, _made_from(opened, baselines))
    return ReportStatus(str(page), "outdated" if reason else "complete", tables, reason)


def _made_from(opened: Opened, baselines: Sequence[str]) -> dict[str, Any]:
    others = [[Path(name).name, _hash_of(Path(name))] for name in baselines]
    return {
        "fingerprint": opened.subject.fingerprint,
        "baselines": others,
        "settings": opened.section.model_dump(mode="json", exclude=FREE_SETTINGS),
    }


def _hash_of(folder: Path) -> str:
    with open(folder / "config.json", "rb") as file:  # written last, it holds the final figures
        return hashlib.file_digest(file, "sha256").hexdigest()


def _difference(made: dict[str, Any], now: dict[str, Any]) -> str | None:
    if made.get("fingerprint") != now["fingerprint"]:
        return "the dictionary, or the rows of the store, are others than those it was made of"
    if made.get("baselines") != now["baselines"]:
        return "the dictionaries to compare with are others"
    had, have = made.get("settings", {}), now["settings"]
    for key in sorted(AnalyzeConfig.model_fields.keys() - FREE_SETTINGS):
        if had.get(key) != have[key]:
            return f"analyze.{key} was {had.get(key)!r}, now {have[key]!r}"
    return None


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return read_json(file)
    except StoreError:
        return None
