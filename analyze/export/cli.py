"""The commands of this package: `analyze export` and `analyze explain`."""

from __future__ import annotations

from analyze.export.explain_cli import explain
from analyze.export.export_cli import export

__all__ = ["explain", "export"]
