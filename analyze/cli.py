"""The commands of `analyze`, each in a file of its own; here they are given their names."""

from __future__ import annotations

from analyze.causal.fidelity_cli import fidelity
from analyze.causal.replace_cli import replace
from analyze.causal.steer_cli import steer
from analyze.compare.cli import compare
from analyze.config import AnalyzeConfig
from analyze.export.cli import explain, export
from analyze.features.cli import features
from analyze.features.feature_cli import feature
from analyze.norms_cli import norms
from analyze.report_cli import report
from analyze.scaling_cli import scaling
from analyze.status_cli import status
from analyze.sweep_cli import sweep
from analyze.transfer.cli import transfer
from analyze.verdict.cli import exclusivity
from pipeline.command import make_app, run
from pipeline.config import describe

app = make_app("Find out what is exclusive to which model, and show it.")
COMMANDS = (
    *(report, exclusivity, norms, features, feature, scaling, transfer),
    *(fidelity, steer, replace, compare, sweep, export, explain, status),
)
for command in COMMANDS:
    app.command(epilog=describe(AnalyzeConfig, "analyze"))(command)


def main() -> None:
    """Console entry point."""
    run(app)
