"""`analyze.batch_tokens` is how many tokens every command gives the models at a time."""

import pytest
import yaml
from typer.testing import CliRunner

from analyze.causal import agreement, fidelity, steer
from analyze.causal.fidelity_cli import fidelity as fidelity_command
from analyze.causal.steer_cli import steer as steer_command
from analyze.verdict.cli import exclusivity as exclusivity_command
from pipeline.command import make_app
from train.dictionary.partition import dedicated

from .directed import FEATURES, A, B, directed, saved, spied

COMMANDS = {
    "fidelity": (fidelity_command, fidelity, ["--documents", 4]),
    "steer": (steer_command, steer, ["--feature", 9, "--alphas", "1"]),
    "exclusivity": (exclusivity_command, agreement, ["--steer"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_keeps_to_it(harvested, tmp_path, monkeypatch, name):
    command, module, words = COMMANDS[name]
    config, store = harvested
    dictionary = directed(store, (A, B), dedicated(("a", "b"), FEATURES, {"a": 4, "b": 4}), 0.1)
    section = {"min_fires": 1, "counterpart": 1.0, "nulls": ["shared"], "fdr": 0.99}
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump({**config.raw, "analyze": section}))
    app = make_app("test")
    app.command(name)(command)
    app.callback()(lambda: None)
    asked = spied(monkeypatch, module)
    words = [name, "--config", file, "--dictionary", saved(dictionary, tmp_path / "d"), *words]
    words += ["--out", tmp_path / "tables", "--set", "analyze.batch_tokens=77"]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    assert asked == {77}
