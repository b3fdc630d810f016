"""The commands as a user runs them."""

import json
import re

import pandas as pd
import polars as pl
import pytest
from typer.testing import CliRunner

from analyze.export.cli import explain, export
from analyze.tables import Tables
from pipeline.command import make_app
from pipeline.errors import ConfigError

KEY = "sk-secret-456"


@pytest.fixture
def analyze(uneven_subject, tmp_path, monkeypatch):
    """Runs a command on the uneven store; gives what it printed, or raises its error."""
    monkeypatch.chdir(tmp_path)
    app = make_app("for tests")
    app.command()(export)
    app.command()(explain)
    subject = uneven_subject

    def run(command, *words):
        given = ["--store", subject.store.path, "--dictionary", subject.folder]
        done = CliRunner().invoke(app, [command, *map(str, [*words, *given])])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done

    return run


@pytest.fixture
def tables(uneven_subject, tmp_path):
    return Tables(tmp_path / "runs" / "default" / "analysis", uneven_subject.fingerprint)


@pytest.fixture
def contexts(tables):
    """Nine contexts of each of the features 1, 15 and 16."""
    lines = [
        {
            **{"feature": feature, "band": "top", "rank": n, "document": n, "label": "some"},
            **{"row": n, "activation": 1.0, "pieces": [f"w{n} ", f"hit{feature}"]},
            **{"strengths": [0.0, 1.0], "peak": 1, "text": f"w{n} hit{feature}"},
        }
        for feature in (1, 15, 16)
        for n in range(9)
    ]
    tables.write("contexts", pl.DataFrame(lines))
    return tables


@pytest.fixture
def server(serve, completion):
    """Explains by the marked word; takes texts with it for fitting."""

    def reply(body):
        text = body["messages"][1]["content"]
        if not text.startswith("Description: "):
            return 200, completion("EXPLANATION: " + re.search(r"<<(\w+)", text)[1])
        word = re.match(r"Description: (\w+)", text)[1]
        lines = re.findall(r"Excerpt (\d+): (.*)", text)
        return 200, completion(str([int(n) for n, line in lines if word in line]))

    return serve(reply)


def asked(server, *words):
    address = [
        "--endpoint",
        server.url,
        "--model-name",
        "tiny",
        "--retries",
        0,
        "--features",
        "all",
    ]
    return ["explain", *address, *words]


def test_a_delphi_cache_is_written_and_said(analyze, tmp_path):
    done = analyze("export", "--to", "delphi", "--out", "cache", "--ctx-len", 32)
    assert "5 features" in done.stdout
    assert "sequences of 32 tokens of model b" in done.stdout
    assert "of them fire on fewer than 200 tokens" in done.stdout
    said = " ".join(done.stderr.split())
    assert "nothing between documents" in said
    assert "tokens of model b that have no row are missing (the configuration does not" in said
    assert (tmp_path / "cache" / "b.mid.out" / "config.json").exists()


def test_the_tokenizer_of_the_configuration_gives_separator_and_name(analyze, tmp_path, model_pair):
    models = {
        name: {"path": str(folder), "hookpoint": "model.layers.1"}
        for name, folder in model_pair.items()
    }
    (tmp_path / "pipeline.yaml").write_text(json.dumps({"models": models}))
    words = ["--to", "delphi", "--model", "a", "--features", "all", "--ctx-len", 16, "--json"]
    value = json.loads(analyze("export", "--out", "cache", *words).stdout)
    assert value["separator"] == 2
    assert value["features"] == 20
    assert value["hookpoint"] == "a.mid.out"
    assert value["entries"] > 0
    assert value["documents_of_rows_only"] == 20  # the ids of this store are of no tokenizer
    assert value["sequences"] * 16 + value["positions_left_out"] == 516 + 19
    config = json.loads((tmp_path / "cache" / "a.mid.out" / "config.json").read_text())
    assert config["model_name"] == str(model_pair["a"])
    value = json.loads(analyze("export", "--out", "other", "--separator", -1, *words).stdout)
    assert value["separator"] is None


def test_a_notebook_file_has_its_contexts_beside_it(analyze, contexts, tmp_path):
    norms = pl.DataFrame({"feature": range(20), "fires": range(20)})
    contexts.write("norms", norms)
    done = analyze("export", "--to", "notebook", "--out", "all.parquet", "--features", "1,15,19")
    assert "written: all.parquet, all.contexts.parquet" in done.stdout
    assert pd.read_parquet(tmp_path / "all.parquet")["fires"].tolist() == [1, 15, 19]
    read = pd.read_parquet(tmp_path / "all.contexts.parquet")
    assert set(read["feature"]) == {1, 15}
    assert list(read["pieces"][0]) == ["w0 ", "hit1"]
    value = json.loads(
        analyze("export", "--to", "notebook", "--out", "all.parquet", "--json").stdout
    )
    assert value["columns"]["fires"] == "rows on which it fires"
    assert value["features"] == 20


def test_a_notebook_file_must_be_parquet(analyze):
    with pytest.raises(ConfigError, match=r"--out: given all.csv; name a file that ends in .parq"):
        analyze("export", "--to", "notebook", "--out", "all.csv")


def test_features_are_explained_and_kept(analyze, contexts, server, monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    done = analyze(*asked(server, "--key-variable", "MY_KEY"))
    assert "3 explained now, mean detection 1.00 (chance 0.5); 0 were known" in done.stdout
    assert "hit15" in done.stdout
    table = contexts.read("explanations")
    assert table["explanation"].to_list() == ["hit1", "hit15", "hit16"]
    assert {h["authorization"] for h in server.headers} == {f"Bearer {KEY}"}
    asked_before = len(server.bodies)
    done = analyze(*asked(server))
    assert "0 explained now; 3 were known" in done.stdout
    assert len(server.bodies) == asked_before
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert KEY.encode() not in written
    assert KEY not in done.output


def test_fresh_explains_again_and_keeps_what_was_not_asked_for(analyze, contexts, server):
    analyze(*asked(server))
    before = len(server.bodies)
    analyze(*asked(server, "--fresh", "--limit", 1, "--no-score"))
    assert len(server.bodies) == before + 1
    assert len(contexts.read("explanations")) == 3


def test_a_dry_run_sends_nothing_and_counts_what_would_be_sent(
    analyze, contexts, server, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "not\nneeded")
    done = analyze(*asked(server, "--dry-run"))
    assert "6 requests for 3 features to " + server.url in done.stdout
    value = json.loads(analyze(*asked(server, "--dry-run", "--json", "--no-score")).stdout)
    assert value["requests"] == value["features"] == 3
    assert value["prompt_tokens"] > 100
    assert not server.bodies


def test_what_was_explained_before_an_error_is_kept(analyze, contexts, serve, completion):
    def reply(body):
        text = body["messages"][1]["content"]
        return (403, b"no more") if "hit16" in text else (200, completion("EXPLANATION: it"))

    with pytest.raises(ConfigError, match="403"):
        analyze(*asked(serve(reply), "--parallel", 1, "--no-score"))
    assert contexts.read("explanations")["feature"].to_list() == [1, 15]


def test_nothing_explained_is_an_error(analyze, contexts, serve):
    with pytest.raises(ConfigError, match=r"nothing was explained; the last answer: .*JSON"):
        analyze(*asked(serve(lambda body: (200, b"hello"))))
    assert contexts.read("explanations")["explanation"].null_count() == 3


def test_without_contexts_it_is_said_how_to_make_them(analyze, server):
    with pytest.raises(ConfigError, match=r"no table contexts .* run `analyze features` first"):
        analyze(*asked(server))


@pytest.mark.parametrize("request_", ["[1]", "{", "3"])
def test_fields_of_the_request_must_be_an_object(analyze, contexts, server, request_):
    with pytest.raises(ConfigError, match=r"--request: given .* give a JSON object"):
        analyze(*asked(server, "--request", request_))


def test_the_help_says_what_is_written_and_where_the_key_goes(analyze):
    words = " ".join(analyze("explain", "--help").stdout.replace("│", " ").split())
    assert "written nowhere" in words
    assert "2410.13928" in words
    words = " ".join(analyze("export", "--help").stdout.replace("│", " ").split())
    assert "LatentDataset" in words
