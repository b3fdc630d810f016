"""`harvest align`: what it prints is the text, and what it counts is there."""

import json
import re
import shutil

import polars as pl
import pytest
import yaml
from transformers import AutoTokenizer
from typer.testing import CliRunner

from harvest.align_cli import align
from harvest.align_sample import Tally
from harvest.align_view import console, tally_table, visible
from pipeline.command import make_app
from pipeline.errors import ConfigError, CorpusError, ModelError

from ..conftest import PROSE
from .text.tokenizers import CHATML, CHATML_TOKENS, GEMMA, GEMMA_TOKENS, with_template

app = make_app("test")
app.command("align")(align)


@pytest.fixture(scope="module")
def folder(model_pair, corpus_file, tmp_path_factory):
    """Tokenizers without weights, a corpus, a configuration."""
    root = tmp_path_factory.mktemp("align")
    for name, source in model_pair.items():
        without = shutil.ignore_patterns("*.safetensors")
        shutil.copytree(source, root / name, ignore=without)
    config = {
        "models": {
            name: {"path": str(root / name), "hookpoint": "layers.0"} for name in model_pair
        },
        "corpus": {"path": str(corpus_file), "label_column": "domain"},
    }
    (root / "pipeline.yaml").write_text(yaml.safe_dump(config))
    return root


def run(folder, *arguments: str, columns: int = 80) -> str:
    result = CliRunner().invoke(
        app,
        [*arguments, "--config", str(folder / "pipeline.yaml")],
        env={"COLUMNS": str(columns), "NO_COLOR": "1"},
    )
    if result.exception is not None:
        raise result.exception
    return result.stdout


def shown_text(output: str, model: str) -> str:
    """A model's tokens in their order, all signs of the alignment taken away."""
    lines = re.findall(rf"^{model} (.*)$", output, re.MULTILINE)
    return re.sub(r"[\[\]¦ ▯]", "", "".join(lines))


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_every_token_of_a_text_is_shown_under_the_other_model_s(folder, columns):
    text = PROSE + "déjà vu 👩‍👧, 漢字\r\n\tx"
    output = run(folder, "--text", text, columns=columns)
    assert max(map(len, output.splitlines())) <= columns
    for model in "ab":
        assert shown_text(output, model) == visible(text)


def test_brackets_stand_around_what_pairs(folder):
    text = "the man, déjà 漢"
    found = json.loads(run(folder, "--text", text, "--json"))["shown"][0]
    output = run(folder, "--text", text, columns=400)
    for model in "ab":
        (line,) = re.findall(rf"^{model} (.*)$", output, re.MULTILINE)
        expected = []
        for row in found["rows"]:
            _, start, end = found["tokens"][model][row[model]]
            expected.append(text[start:end].replace(" ", "·"))
        assert re.findall(r"\[(.*?)\]", line) == expected
        signs = len(re.findall(r"¦|\[", line))
        assert signs == len(found["tokens"][model])


def test_a_corpus_sample_is_counted_by_label(folder, corpus_file, model_pair):
    counts = json.loads(run(folder, "--json", "--documents", "20"))["counts"]
    sample = pl.read_parquet(corpus_file).head(20)
    by_label = dict(sample.group_by("domain").len().iter_rows())
    assert {one["label"]: one["documents"] for one in counts[:-1]} == by_label
    total = counts[-1]
    assert (total["source"], total["documents"]) == ("all", 20)
    for name, path in model_pair.items():
        tokenizer = AutoTokenizer.from_pretrained(path)
        ids = tokenizer(sample["text"].to_list(), add_special_tokens=False)["input_ids"]
        assert total["tokens"][name] == sum(map(len, ids))
        assert total["paired_fraction"][name] == total["rows"] / total["tokens"][name]


def test_the_table_has_a_line_per_source_and_label(folder):
    output = run(folder, "--documents", "25")
    table = [line.split() for line in output[output.index("source ") :].splitlines()]
    assert table[0] == ["source", "label", "docs", "rows", "model", "tokens", "paired"]
    assert [line[:-4] for line in table[1::2]] == [
        ["corpus", "awkward", "9"],
        ["corpus", "code", "4"],
        ["corpus", "prose", "12"],
        ["all", "25"],
    ]
    counts = json.loads(run(folder, "--documents", "25", "--json"))["counts"]
    assert [line[-4] for line in table[1::2]] == [f"{one['rows']:,}" for one in counts]
    for model, lines in {"a": table[1::2], "b": table[2::2]}.items():
        assert [line[-3:] for line in lines] == [
            [model, f"{one['tokens'][model]:,}", f"{one['paired_fraction'][model]:.1%}"]
            for one in counts
        ]


def test_a_table_of_many_models_fits_the_terminal_without_broken_words():
    names = [f"model_number_{number}" for number in range(5)]
    tokens = tuple(range(1_000_000, 1_000_005))
    words = ["wikipedia_en", "a_domain", "12,345", "998,877", *names, *map("{:,}".format, tokens)]
    out = console(80)
    with out.capture() as printed:
        out.print(tally_table([Tally(*words[:2], 12_345, tokens, 998_877)], names))
    lines = printed.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert set(words) <= set(" ".join(lines).split())


def test_an_empty_text_is_an_error(folder):
    with pytest.raises(ConfigError, match=r"--text: .*give some text"):
        run(folder, "--text", "")


@pytest.fixture
def chats(folder, tmp_path):
    """Chats of three kinds for a ChatML model, and a Gemma-like one that knows no system."""
    copy = tmp_path / "chats"
    shutil.copytree(folder, copy)
    shapes = {"a": (GEMMA, GEMMA_TOKENS), "b": (CHATML, CHATML_TOKENS)}
    for name, (template, tokens) in shapes.items():
        tokenizer = AutoTokenizer.from_pretrained(copy / name)
        with_template(tokenizer, template, tokens).save_pretrained(copy / name)
    chat = [{"role": "user", "content": "the man"}, {"role": "assistant", "content": " yes"}]
    system = [{"role": "system", "content": "be kind"}, *chat]
    lines = [json.dumps({"chat": turns}) for turns in (chat, system, chat)]
    (copy / "chats.jsonl").write_text("\n".join(lines))
    config = {
        "models": {name: {"path": str(copy / name), "hookpoint": "layers.0"} for name in "ab"},
        "corpus": {"path": str(copy / "chats.jsonl"), "chat_column": "chat"},
    }
    (copy / "pipeline.yaml").write_text(yaml.safe_dump(config))
    return copy


def test_a_chat_shows_each_model_s_own_template(chats):
    output = run(chats, columns=300)
    assert "left out: 1 chats that a's template refuses" in output
    (a,) = re.findall(r"^a (.*)$", output, re.MULTILINE)
    (b,) = re.findall(r"^b (.*)$", output, re.MULTILINE)
    assert "[<start_of_turn>]" in a
    assert "[<end_of_turn>]" in a
    assert a.index("[<end_of_turn>]") == b.index("[<|im_end|>]", b.index("[·man]"))


def test_dropped_template_tokens_are_struck_out(chats):
    output = run(chats, "--set", "harvest.template_tokens=drop", columns=300)
    assert "[<start_of_turn>]" not in output
    assert "<start_of_turn>¦" in output


def test_a_tokenizer_that_is_not_there_is_named(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"^models\.b\.path: .*tokenizer cannot be loaded"):
        run(folder, "--text", "x", "--set", f"models.b.path={tmp_path / 'empty'}")


def test_a_corpus_without_documents_is_an_error(folder, tmp_path):
    empty = tmp_path / "empty.parquet"
    pl.DataFrame(
        {"text": [], "domain": []}, {"text": pl.String, "domain": pl.String}
    ).write_parquet(empty)
    with pytest.raises(CorpusError, match="no documents"):
        run(folder, "--set", f"corpus.path={empty}")
