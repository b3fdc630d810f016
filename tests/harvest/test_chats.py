"""Chats from their file to the store, through two templates: ChatML's and Llama 3's shapes."""

import json
import signal
from contextlib import nullcontext
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harvest.progress import read_progress
from harvest.run import harvest
from harvest.settings import Settings
from harvest.stopping import Stopped
from pipeline.config import Config
from store.reader import Store
from store.verify import verify

from ..conftest import CODE, PROSE
from .text.tokenizers import (
    CHATML,
    CHATML_TOKENS,
    GEMMA,
    GEMMA_TOKENS,
    LLAMA3,
    LLAMA3_TOKENS,
    train,
    with_template,
)

CHATS = [
    [("user", "It is a truth, is it not?"), ("assistant", "  Universally acknowledged.\n")],
    [
        ("system", "Be brief."),
        ("user", "漢字 👩‍👩‍👧‍👦?"),
        ("assistant", ""),
        ("user", "for row in self"),
    ],
    [("user", "a single man in possession of a good fortune")],
]
MARKS = {
    "a": ("<|im_start|>", "<|im_end|>"),
    "b": ("<|start_header_id|>", "<|eot_id|>"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of two small models with a chat template each, and of one without."""
    root = tmp_path_factory.mktemp("chat_models")
    texts = [PROSE, CODE, "user assistant system"] * 3
    tokenizers = {
        "a": with_template(train("byte_level", texts), CHATML, CHATML_TOKENS),
        "b": with_template(train("metaspace", texts), LLAMA3, LLAMA3_TOKENS),
        "gemma": with_template(train("metaspace", texts), GEMMA, GEMMA_TOKENS),
        "base": train("byte_level_prefix", texts),
    }
    torch.manual_seed(0)
    for name, tokenizer in tokenizers.items():
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=512,
        )
        LlamaForCausalLM(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {name: (root / name, tokenizer) for name, tokenizer in tokenizers.items()}


@pytest.fixture
def settings_of(models, tmp_path):
    """Settings for some of the models and chats."""

    def make(names="ab", chats=CHATS, template_of=None, folder="run", deduplicate=False, **config):
        file = tmp_path / "chats.jsonl"
        turns = [[{"role": role, "content": text} for role, text in chat] for chat in chats]
        file.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in turns))
        raw = {
            "run_dir": str(tmp_path / folder / "-".join([*names, *config])),
            "models": {
                name: {
                    "path": str(models[name][0]),
                    "hookpoint": "resid_post.0",
                    "dtype": "float32",
                    "device": "cpu",
                    "chat_template": (template_of or {}).get(name),
                }
                for name in names
            },
            "corpus": {
                "path": str(file),
                "chat_column": "messages",
                "deduplicate": deduplicate,
            },
            "harvest": config,
        }
        return Settings.read(Config("test.yaml", raw))

    return make


@pytest.fixture
def run(settings_of):
    """Harvests the chats with some of the models."""

    def harvested(*arguments, **options):
        settings = settings_of(*arguments, **options)
        summary = harvest(settings)
        assert verify(settings.path).problems == []
        return summary, Store(settings.path)

    return harvested


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a store."""
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def shown(store: Store) -> list[tuple[str, str]]:
    """For each row the transcript up to its end, and the piece of it that the row stands for."""
    columns = [store.column(name) for name in ("document", "char_start", "char_end")]
    return [
        (store.documents.text(int(d))[:end], store.documents.text(int(d))[start:end])
        for d, start, end in zip(*columns, strict=True)
    ]


def test_template_tokens_pair_by_their_place_and_contents_by_their_characters(run, models):
    _, store = run()
    turns = sum(len(chat) for chat in CHATS)
    rows = shown(store)
    for place in ("<", ">\n"):
        assert sum(piece == place for _, piece in rows) == turns
    assert store.documents.text(0) == (
        "<user>\nIt is a truth, is it not?\n<assistant>\n  Universally acknowledged.\n\n"
    )
    for name, (start, end) in MARKS.items():
        tokenizer = models[name][1]
        ids = store.column(f"token_{name}").tolist()
        tokens = tokenizer.convert_ids_to_tokens(ids)
        assert [token == start for token in tokens] == [piece == "<" for _, piece in rows]
        assert tokens.count(end) == turns
    roles = [piece for text, piece in rows if text.endswith(f"<{piece}") and piece != "<"]
    assert roles == [role for chat in CHATS for role, _ in chat]


def test_rows_are_what_each_model_says_in_its_own_rendering(run, models):
    """Every row in turn is found behind the one before, in one pass over the whole chat."""
    _, store = run()
    documents = store.column("document")
    for name in "ab":
        folder, tokenizer = models[name]
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        stored = store.activations(f"{name}.model.layers.0.out", 0).float()
        tokens = store.column(f"token_{name}")
        for number, chat in enumerate(CHATS):
            turns = [{"role": role, "content": text} for role, text in chat]
            text = tokenizer.apply_chat_template(turns, tokenize=False)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0]
            at = 0
            for row in (documents == number).nonzero()[0]:
                while not (
                    ids[at] == tokens[row]
                    and torch.allclose(hidden[at], stored[row], rtol=2**-7, atol=1e-5)
                ):
                    at += 1
                at += 1


def test_without_template_tokens_only_contents_are_left(run):
    summary, store = run(template_tokens="drop")
    kept, with_template_tokens = run()
    assert summary.rows < kept.rows
    places = {"<", ">\n", "user", "assistant", "system"}
    assert not {piece for text, piece in shown(store) if text.endswith(("<", ">\n"))} & places
    contents = [text for chat in CHATS for _, text in chat if text.strip()]
    ends = {text for text, _ in shown(store)}
    for content in contents:
        assert any(end.endswith(content.strip()) for end in ends)
    assert with_template_tokens.rows - store.rows >= 3 * sum(len(chat) for chat in CHATS)


def test_a_base_model_reads_what_the_chat_model_reads(run):
    summary, store = run(["a", "base"], template_of={"base": "a"})
    assert summary.left_out == {}
    assert summary.paired_fraction["a"] > 0.5
    ends = [text for text, _ in shown(store)]
    assert any(end.endswith("good fortune") for end in ends)


def test_a_chat_that_a_template_refuses_is_left_out_and_counted(run):
    """Gemma's shape knows no system role, which the second chat begins with."""
    summary, store = run(["a", "gemma"])
    assert len(store.documents) == len(CHATS)
    assert sorted(set(store.column("document").tolist())) == [0, 2]
    assert summary.left_out == {"chats that gemma's template refuses": 1}


class Alarm:
    """A stop signal that comes when it has been asked for so many times."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def raise_if_set(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stopped(signal.SIGTERM)


@pytest.mark.parametrize("calls", [[10, 2], [13, 1, 10], [1000]])
def test_stopped_again_and_again_a_deduplicated_harvest_ends_with_the_same_bytes(
    calls, run, settings_of, monkeypatch
):
    """Refused chats among them, twice each: of those too it must be known that they were there."""
    system, first, last = CHATS[1], CHATS[0], CHATS[2]
    chats = [first, system, last, system, first, last, system, [("user", "new")]] * 2
    options = {"deduplicate": True, "names": ["a", "gemma"], "block_documents": 2}
    wanted, store = run(chats=chats, **options)
    assert wanted.left_out["duplicate documents"] == len(chats) - 4
    settings = settings_of(chats=chats, folder="stopped", **options)
    stops = 0
    for most in islice(cycle(calls), 40):
        alarm = Alarm(most)
        monkeypatch.setattr("harvest.run.stop_signal", lambda alarm=alarm: nullcontext(alarm))
        try:
            summary = harvest(settings)
            break
        except Stopped:
            stops += 1
            said = read_progress(settings.path, 0)
            assert said.stopped
            assert said.cursor == 0 or said.state is not None
    assert stops >= len(calls) - 1
    assert summary.left_out == wanted.left_out
    assert files(settings.path) == files(store.path)


def test_a_signal_behind_the_last_document_stops_the_harvest_before_it_is_called_complete(
    settings_of, monkeypatch
):
    """So ends a pipe whose writer the same Ctrl-C has killed."""
    calls = Alarm(10**6)
    settings = settings_of(folder="counted")
    monkeypatch.setattr("harvest.run.stop_signal", lambda: nullcontext(calls))
    harvest(settings)
    asked = 10**6 - calls.left
    cut = settings_of(folder="cut")
    monkeypatch.setattr("harvest.run.stop_signal", lambda: nullcontext(Alarm(asked - 1)))
    with pytest.raises(Stopped):
        harvest(cut)
    assert not Store(cut.path).complete
