"""`train run --live`: two tiny models, a corpus and no store."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

import train.track
from harvest.live.pace import Pace
from pipeline.config import Config
from pipeline.errors import ConfigError
from store.reader import Store
from train import live_cli
from train.cli import main
from train.config import TrainConfig
from train.loop import train_on
from train.source import RowSource

from .conftest import tiny

LIVE = {
    "steps": 12,
    "decay_start": 10,
    "threshold_start": 1,
    "validate_every": 6,
    "checkpoint_every": 5,
    "k_anneal_steps": 4,
    "live_buffer_rows": 400,
}
Settings = Callable[..., Path]


@pytest.fixture
def settings(monkeypatch, model_pair, corpus_file, tmp_path) -> Settings:
    """Writes a configuration into an empty folder, which is then the current one."""
    monkeypatch.chdir(tmp_path)

    def write(hookpoints: dict[str, object] | None = None, **changes: object) -> Path:
        places = {"a": "model.layers.1", "b": "gpt_neox.layers.1", **(hookpoints or {})}
        section = tiny(**{**LIVE, **changes}).model_dump(mode="json")
        content = {
            "run_dir": "run",
            "models": {
                name: {"path": str(folder), "hookpoint": places[name], "dtype": "float32"}
                for name, folder in model_pair.items()
            },
            "corpus": {"path": str(corpus_file), "label_column": "domain"},
            "harvest": {"block_documents": 3, "max_tokens": 128},
            "train": section,
        }
        file = tmp_path / "live.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    return write


@pytest.fixture
def run(monkeypatch, capsys):
    """Types `train run ...`; returns exit code, stdout and stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["train", "run", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


def weights(folder: str) -> bytes:
    return Path(folder, "model.safetensors").read_bytes()


def train_live(file: Path, folder: Path, on_step: Callable[[int, str], None]) -> None:
    raw = yaml.safe_load(file.read_text())
    config = Config(str(file), raw)
    section = config.section("train", TrainConfig)
    with live_cli.rows(config, section) as source:
        train_on(source, section, folder, on_step)


class KilledError(Exception):
    pass


def kill_at(step: int) -> Callable[[int, str], None]:
    def on_step(done: int, note: str) -> None:
        if done == step:
            raise KilledError

    return on_step


def test_two_live_runs_end_with_equal_weights_and_say_where_rows_came_from(run, settings):
    file = settings()
    code, out, err = run("--config", file, "--live")
    assert code == 0, err
    assert out.startswith("run/dictionary: dfc: held-out FVE a.model.layers.1.out ")
    assert run("--config", file, "--live", "--out", "again")[0] == 0
    assert weights("run/dictionary") == weights("again")
    said = json.loads(Path("run/dictionary/config.json").read_text())
    assert "store" not in said
    assert set(said["live"]["fingerprints"]) == {"corpus", "models.a", "models.b"}
    assert said["live"]["buffer_rows"] == 400
    assert said["live"]["models"]["b"]["hookpoint"] == ["gpt_neox.layers.1"]
    assert not Path("run/store.zarr").exists()


def test_what_comes_next_needs_a_store_and_its_commands_work(run, settings, monkeypatch):
    from analyze.cli import main as analyze
    from harvest.cli import main as harvest

    _, out, _ = run("--config", settings(), "--live", "--out", "my run/sae")
    first, *commands = out.splitlines()[1:]
    assert first == (
        "next: analysis reads a store, for which a part of the corpus is enough, here at most "
        "1,000,000 rows:"
    )
    assert "--set harvest.rows=1000000" in commands[0]
    for command, program in zip(commands, (harvest, analyze), strict=True):
        words = shlex.split(command)
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as stop:
            program()
        assert not stop.value.code, command
    assert Store(Path("run/store.zarr")).rows > 0
    assert Path("my run/report.html").exists()


def test_a_killed_live_run_goes_on_behind_what_it_read_and_says_so(settings, tmp_path, capsys):
    file = settings()
    ends = []
    for name in ("one", "two"):
        with pytest.raises(KilledError):
            train_live(file, tmp_path / name, kill_at(8))
        capsys.readouterr()
        steps: list[int] = []
        train_live(file, tmp_path / name, lambda done, note, to=steps: to.append(done))
        assert steps == list(range(7, 13))  # the best checkpoint is that of step 6
        assert "a live run cannot go on in mid-buffer" in capsys.readouterr().err
        ends.append(weights(name))
    assert ends[0] == ends[1]


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("fraction", [0.2, 0])
def test_a_finished_live_run_says_the_same_again_without_a_model(
    run, settings, monkeypatch, fraction
):
    file = settings(recipes=["dfc", "batch_topk_crosscoder"], validation_fraction=fraction)
    arguments = ("--config", file, "--live")
    _, first, _ = run(*arguments)
    before = contents(Path("run"))
    monkeypatch.setattr("harvest.live.corpus.load_models", lambda settings: pytest.fail("loaded"))
    code, out, err = run(*arguments)
    assert (code, out) == (0, first)
    assert err == "note: run/dictionary is complete; delete it to train anew\n"
    assert contents(Path("run")) == before
    assert len(json.loads(run(*arguments, "--json")[1])) == 2


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "metrics.jsonl"])
def test_what_a_finished_live_run_has_lost_is_made_again(run, settings, lost):
    file = settings()
    run("--config", file, "--live")
    before = weights("run/dictionary")
    Path("run/dictionary", lost).unlink()
    code, _, err = run("--config", file, "--live")
    assert code == 0
    assert "is complete" not in err
    assert Path("run/dictionary", lost).exists()
    assert weights("run/dictionary") == before


def test_a_finished_live_run_is_validated_anew_on_other_rows(run, settings):
    file = settings()
    run("--config", file, "--live")
    code, _, err = run("--config", file, "--live", "--set", "train.validation_rows=100")
    assert code == 0
    assert "is complete" not in err
    (line,) = Path("run/dictionary/metrics.jsonl").read_text().splitlines()[-1:]
    assert json.loads(line)["validation"]["rows"] == 100


def test_held_out_documents_are_never_trained_on(settings, tmp_path, monkeypatch):
    """No row of the validation set has the values of any row of a batch."""
    trained: set[bytes] = set()
    held_out: set[bytes] = set()
    step, evaluate = train.trainee.Trainee.step, train.track.evaluate

    def rows_of(activations) -> list[bytes]:
        both = np.concatenate([x.float().numpy() for x in activations.values()], 1)
        return [row.tobytes() for row in both]

    def spy(self, activations, number):
        trained.update(rows_of(activations))
        return step(self, activations, number)

    def watch(dictionary, batches):
        batches = list(batches)
        held_out.update(row for batch in batches for row in rows_of(batch.activations))
        return evaluate(dictionary, batches)

    monkeypatch.setattr(train.trainee.Trainee, "step", spy)
    monkeypatch.setattr(train.track, "evaluate", watch)
    train_live(settings(steps=40, decay_start=30), tmp_path / "sae", lambda done, note: None)
    assert len(held_out) > 100
    assert len(trained) > 1000
    assert not trained & held_out


def test_several_hookpoints_of_a_model_are_trained_together(run, settings):
    places = {"a": ["mlp_in.1", "mlp_out.1"], "b": ["heads.1", "gpt_neox.layers.2:in"]}
    code, _, err = run("--config", settings(places), "--live")
    assert code == 0, err
    found = json.loads(Path("run/dictionary/config.json").read_text())["hookpoints"]
    assert [(h["model"], h["width"]) for h in found] == [("a", 32)] * 2 + [("b", 48)] * 2
    (line,) = Path("run/dictionary/metrics.jsonl").read_text().splitlines()[-1:]
    assert len(json.loads(line)["validation"]["fve"]) == 4


def test_a_dry_run_says_rows_memory_and_time_and_writes_nothing(run, settings, tmp_path):
    arguments = ("--config", settings(), "--live", "--dry-run")
    code, out, _ = run(*arguments)
    assert code == 0
    assert "12 steps of 64 rows = 768 rows\n" in out
    assert "minutes here" in out
    assert [file.name for file in tmp_path.iterdir()] == ["live.yaml"]
    expected = json.loads(run(*arguments, "--json")[1])
    assert expected["rows_per_epoch"] is None
    assert expected["shuffle_bytes"] == (400 + 300) * (16 + 2 * (32 + 48))
    assert expected["seconds"] > 0


def test_a_dry_run_counts_the_harvest_and_the_first_fill(run, settings, monkeypatch):
    """Of 30 rows a second, whatever this machine does."""
    monkeypatch.setattr("harvest.live.source.measure_pace", lambda read: Pace(30, 1e6))
    arguments = ("--config", settings(validation_fraction=0.5), "--live", "--dry-run")
    rows = 2 * (400 + 3 * 192)  # 12 batches of 64, 3 of them between two shuffles
    expected = json.loads(run(*arguments, "--json")[1])
    assert expected["harvest_rows"] == rows
    assert expected["harvest_seconds"] == pytest.approx(rows / 30)
    assert expected["seconds"] > expected["harvest_seconds"]
    said = f"minutes here, {rows / 30 / 60:.1f} of them to harvest {rows:,} rows\n"
    assert said in run(*arguments)[1]


def test_a_dry_run_fills_no_buffer_beyond_the_corpus(run, settings):
    """The whole corpus is in the block that is timed, so its rows are known."""
    file = settings(steps=3, decay_start=2, live_buffer_rows=10**5, validation_fraction=0)
    expected = json.loads(run("--config", file, "--live", "--dry-run", "--json")[1])
    _, _, err = run("--config", file, "--live")
    assert f"to its end, {expected['harvest_rows']:,} rows of training documents" in err


def test_checking_looks_for_models_and_corpus_and_says_nothing(run, settings):
    file = settings()
    assert run("--config", file, "--live", "--check") == (0, "", "")
    code, _, err = run("--config", file, "--live", "--check", "--set", "corpus.path=no.parquet")
    assert code == 1
    assert "no.parquet: no such file" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--store", "x.zarr"], "--live: trains without a store, but --store names x.zarr"),
        (["--set", "train.live_buffer_rows=100"], "train.live_buffer_rows: given 100; a buffer ho"),
        (["--set", "train.live_buffer_rows=9000000000"], "lower it"),
        (["--set", "corpus={path: '-'}"], "corpus: reads standard input"),
        (["--set", "models="], "models: missing"),
        (["--set", "train.exclusive={z: 0.1}"], "train.exclusive: unknown model 'z'"),
        (["--set", "train.recipes=[dfc, residual_dfc]"], "residual_dfc is of residuals, "),
    ],
)
def test_a_mistake_is_explained_in_one_line(run, settings, arguments, message):
    code, out, err = run("--config", settings(), "--live", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_live_run_does_not_go_on_from_a_store_nor_from_other_text(run, settings):
    file = settings()
    assert run("--config", file, "--live")[0] == 0
    code, _, err = run("--config", file, "--live", "--set", "corpus.limit=20")
    assert code == 1
    assert "was written with live_corpus" in err
    code, _, err = run("--config", file, "--live", "--set", "train.live_buffer_rows=500")
    assert "was written with live_buffer_rows 400, now 500" in err


def test_a_live_source_is_a_source_of_rows(settings):
    config = Config("live.yaml", yaml.safe_load(settings().read_text()))
    with live_cli.rows(config, config.section("train", TrainConfig)) as source:
        assert isinstance(source, RowSource)
        with pytest.raises(ConfigError, match="run `harvest run` first and train on its store"):
            source.sample(100)
