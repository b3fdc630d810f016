"""Rows of a store found again in the tokens of its texts: what is there is what the store holds."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from analyze.causal.batches import padded_batches, put_rows, read_rows
from analyze.causal.models import open_models, refuse_other_weights
from analyze.causal.passages import (
    CHANGED,
    CHATS,
    documents_of,
    find_passages,
    find_rows,
    row_edges,
    sample_documents,
)
from harvest.models.texts import TextTokens
from harvest.run import harvest
from harvest.settings import Settings
from pipeline.config import Config
from pipeline.errors import ConfigError, ModelError, StoreError
from store.reader import Store
from tests.analyze.conftest import MAX_TOKENS


@pytest.fixture(scope="module")
def passages(harvested, models):
    _, store = harvested
    found = find_passages(store, models, np.arange(len(store.documents)))
    assert found.left_out == {}
    return found.found


def stored(store, name: str) -> torch.Tensor:
    return torch.cat([store.activations(name, chunk) for chunk in range(store.chunks)])


def test_tokens_are_those_that_transformers_gives_with_special_tokens(harvested, passages):
    config, store = harvested
    for name, spec in config.models.items():
        tokenizer = AutoTokenizer.from_pretrained(spec.path)
        for passage in passages:
            whole = tokenizer(store.documents.text(passage.document))["input_ids"]
            ids = passage.readings[name].ids.tolist()
            assert 0 < len(ids) <= MAX_TOKENS
            assert ids == whole[: len(ids)]


def test_at_every_place_a_plain_model_has_the_activation_of_the_stored_row(harvested, passages):
    config, store = harvested
    for name, layers in (("a", "model"), ("b", "gpt_neox")):
        plain = AutoModelForCausalLM.from_pretrained(config.models[name].path, dtype=torch.float32)
        rows = stored(store, f"{name}.{layers}.layers.1.out")
        for passage in passages:
            reading = passage.readings[name]
            with torch.no_grad():
                states = plain(torch.tensor(reading.ids)[None], output_hidden_states=True)
            found = states.hidden_states[2][0, torch.tensor(reading.positions)]
            wanted = rows[torch.tensor(passage.rows)].float()
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=2**-7)


def test_every_row_of_the_first_window_is_there_and_no_other(harvested, models, passages):
    _, store = harvested
    edges = row_edges(store)
    char_end = store.column("char_end")
    long = 0
    for passage in passages:
        start, stop = edges[passage.document], edges[passage.document + 1]
        assert passage.rows.tolist() == list(range(start, start + len(passage.rows)))
        if passage.rows[-1] + 1 == stop:
            continue
        long += 1
        text = store.documents.text(passage.document)
        outside = []
        for model in models.values():
            spans = model.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
            last = {end: place for place, (_, end) in enumerate(spans)}  # of a character's bytes
            outside.append(last[int(char_end[passage.rows[-1] + 1])] >= MAX_TOKENS)
        assert any(outside)
    assert long >= 10
    assert [passage.document for passage in passages] == np.flatnonzero(np.diff(edges)).tolist()


def test_the_token_behind_the_last_row_is_there_unless_the_window_ends(harvested, passages):
    """It is what the model should predict there."""
    for passage in passages:
        for reading in passage.readings.values():
            assert len(reading.ids) - reading.positions[-1] in (1, 2)
    assert any(len(p.readings["a"].ids) - p.readings["a"].positions[-1] == 2 for p in passages)


def test_models_of_one_tokenizer_find_every_byte_of_a_character(configure):
    config = configure(models=("b",))
    harvest(Settings.read(config))
    store = Store(config.store_path)
    models = open_models(store, config.models)
    found = find_passages(store, models, np.arange(len(store.documents)))
    assert found.left_out == {}
    for passage in found.found:
        places = passage.readings["b"].positions
        assert places.tolist() == list(range(len(places)))


@pytest.mark.parametrize("keys", [{"skip_first": 3}, {"skip_special": True, "outlier_norm": 1.2}])
def test_rows_that_the_harvest_left_out_are_no_places(configure, keys):
    config = configure(**keys)
    harvest(Settings.read(config))
    store = Store(config.store_path)
    models = open_models(store, config.models)
    found = find_passages(store, models, np.arange(len(store.documents)))
    assert found.left_out == {}
    refuse_other_weights(store, models, found.found)
    for passage in found.found:
        for name, reading in passage.readings.items():
            tokens = store.column(f"token_{name}")[passage.rows]
            assert reading.ids[reading.positions].tolist() == tokens.tolist()
            assert reading.positions[0] >= keys.get("skip_first", 0)


def test_chats_are_left_out_and_counted(configure, tmp_path, corpus_file):
    chat = [{"role": "user", "content": "It is a truth"}, {"role": "assistant", "content": "a man"}]
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps({"chat": chat}) + "\n" for _ in range(3)))
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}")
    texts = {"path": str(corpus_file), "limit": 8}
    sources = {"texts": texts, "chats": {"path": str(file), "chat_column": "chat"}}
    config = configure(corpus={"sources": sources}, template_tokens="drop")
    for spec in config.raw["models"].values():
        spec["chat_template"] = str(template)
    harvest(Settings.read(config))
    store = Store(config.store_path)
    models = open_models(store, config.models)
    found = find_passages(store, models, np.arange(len(store.documents)))
    assert found.left_out == {CHATS: 3}
    assert len(found.found) > 3


def test_a_tokenizer_that_has_changed_leaves_documents_out(harvested, models, monkeypatch):
    _, store = harvested
    documents = np.flatnonzero(np.diff(row_edges(store)))
    changed = {"a": models["b"], "b": models["b"]}
    found = find_passages(store, changed, documents)
    assert (len(found.found), found.left_out) == (0, {CHANGED: len(documents)})


def test_means_over_stretches_are_refused(configure):
    config = configure(pair="mean")
    harvest(Settings.read(config))
    store = Store(config.store_path)
    with pytest.raises(StoreError, match=r"means over stretches .*pair: last"):
        find_passages(store, open_models(store, config.models), np.arange(3))


@st.composite
def token_rows(draw):
    """Tokens whose ends never fall, and for some of the ends the last token that ends there."""
    ends = np.cumsum(draw(st.lists(st.integers(0, 2), min_size=1, max_size=30)))
    ids = draw(st.lists(st.integers(0, 3), min_size=len(ends), max_size=len(ends)))
    last = np.flatnonzero(np.append(np.diff(ends) > 0, True))
    picked = draw(st.lists(st.booleans(), min_size=len(last), max_size=len(last)))
    return ends.astype(np.int32), np.array(ids, np.int32), last[np.array(picked)]


@given(token_rows())
def test_rows_are_of_the_last_tokens_that_end_where_they_do(case):
    ends, ids, rows = case
    found = find_rows(TextTokens(ids, ends), ends[rows], ids[rows])
    assert found.tolist() == rows.tolist()
    every = find_rows(TextTokens(ids, ends), ends, ids)
    assert every.tolist() == list(range(len(ids)))


@given(token_rows(), st.sampled_from([(0, 9), (100, 0)]))
def test_a_row_that_is_not_there_is_not_found(case, other):
    ends, ids, rows = case
    row_ends, row_ids = ends[rows].copy(), ids[rows].copy()
    row_ends, row_ids = np.append(row_ends, ends[-1] + other[0]), np.append(row_ids, other[1])
    found = find_rows(TextTokens(ids, ends), row_ends, row_ids)
    assert found is None


def test_a_sample_takes_as_many_documents_of_every_label_as_can_be(harvested):
    _, store = harvested
    labels, names = store.documents.labels, store.documents.label_names
    edges = row_edges(store)

    def counts(sample):
        return Counter(names[label] for label in labels[sample])

    sample = sample_documents(store, 12)
    assert counts(sample) == {"awkward": 4, "prose": 4, "code": 4}
    assert (np.diff(edges)[sample] > 0).all()
    assert (np.diff(sample) > 0).all()
    assert sample_documents(store, 12).tolist() == sample.tolist()
    assert set(sample) <= set(sample_documents(store, 20))
    everything = sample_documents(store, 1000)
    assert everything.tolist() == np.flatnonzero(np.diff(edges)).tolist()
    held_out = store.documents.validation_mask(0.5)
    some = sample_documents(store, 1000, held_out)
    assert some.tolist() == [d for d in everything if held_out[d]]


def test_documents_of_rows_are_those_of_the_column(harvested):
    _, store = harvested
    of_row = store.column("document")
    rows = np.array([0, 3, 5, store.rows - 1, 200])
    assert documents_of(store, rows).tolist() == sorted(set(of_row[rows].tolist()))
    edges = row_edges(store)
    assert of_row.tolist() == np.repeat(np.arange(len(edges) - 1), np.diff(edges)).tolist()


@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
def test_batches_hold_every_passage_once_with_its_rows(models, passages, batch_tokens):
    readings = [passage.readings["b"] for passage in passages]
    batches = padded_batches(readings, batch_tokens)
    seen = torch.cat([batch.readings for batch in batches])
    assert sorted(seen.tolist()) == list(range(len(readings)))
    rows = torch.cat([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == list(range(sum(len(p.rows) for p in passages)))
    tokens = np.concatenate([reading.ids[reading.positions] for reading in readings])
    for batch in batches:
        assert batch.input_ids.numel() <= batch_tokens or len(batch.input_ids) == 1
        lengths = [len(readings[number].ids) for number in batch.readings]
        assert batch.attention_mask.sum(dim=1).tolist() == lengths
        assert (
            batch.input_ids.flatten()[batch.places].tolist() == tokens[batch.rows.numpy()].tolist()
        )


def test_rows_read_in_batches_are_those_of_the_store(harvested, models, passages):
    _, store = harvested
    numbers = torch.tensor(np.concatenate([passage.rows for passage in passages]))
    for name, model in models.items():
        batches = padded_batches([p.readings[name] for p in passages], 150)
        found = read_rows(model, batches, len(numbers))
        for hookpoint in model.hookpoints:
            wanted = stored(store, hookpoint.name)[numbers].float()
            torch.testing.assert_close(found[hookpoint.name], wanted, atol=1e-5, rtol=2**-7)


def test_putting_rows_changes_their_places_and_no_other(passages):
    (batch,) = padded_batches([p.readings["a"] for p in passages[:3]], 10_000)
    values = torch.randn(len(batch.rows), 5, dtype=torch.float64)
    before = torch.randn(*batch.input_ids.shape, 5)
    kept = before.clone()
    after = put_rows(batch, values)(before)
    assert torch.equal(before, kept)
    flat = kept.flatten(0, 1)
    for row, place in enumerate(batch.places.tolist()):
        flat[place] = values[row].float()
    assert torch.equal(after, kept)
    one = put_rows(batch, values[:1])(before).flatten(0, 1)[batch.places]
    assert torch.equal(one, values[:1].float().expand_as(one))


def changed_model(config: Config, **keys) -> dict:
    raw = json.loads(json.dumps(config.raw))
    raw["models"]["a"].update(keys)
    return Config("test.yaml", raw).models


def test_a_model_that_is_told_of_otherwise_than_the_harvest_is_refused(harvested):
    config, store = harvested
    with pytest.raises(ConfigError, match=r"models\.a\.dtype: given 'bfloat16', .* 'float32'"):
        open_models(store, changed_model(config, dtype="bfloat16"))
    with pytest.raises(ModelError, match=r"models\.a: .*a\.model\.layers\.1\.out of width 32"):
        open_models(store, changed_model(config, hookpoint="model.layers.0"))
    with pytest.raises(ConfigError, match=r"a model b, the configuration has a;"):
        open_models(store, {"a": config.models["a"]})


def test_other_weights_are_refused(harvested, passages, tmp_path):
    config, store = harvested
    plain = AutoModelForCausalLM.from_pretrained(config.models["a"].path, dtype=torch.float32)
    with torch.no_grad():
        plain.model.layers[0].mlp.down_proj.weight.mul_(-30)
    plain.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(config.models["a"].path).save_pretrained(tmp_path)
    right = open_models(store, config.models)
    refuse_other_weights(store, right, passages)
    other = open_models(store, changed_model(config, path=str(tmp_path)))
    with pytest.raises(ModelError, match=r"models\.a\.path: .*layers\.1\.out are not those of"):
        refuse_other_weights(store, other, passages)
