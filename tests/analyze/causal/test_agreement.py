"""Signatures are those of a plain loop; a model and its twin agree."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from analyze.causal.agreement import Signature, agreement, signature
from analyze.causal.agreement_run import TABLE, Agreements
from analyze.causal.next_text import NONE, beginning, next_text
from analyze.causal.steer_mapped import Carrier
from analyze.causal.steer_scenes import find_scenes
from analyze.causal.steer_steps import own_steps
from analyze.command import Opened
from analyze.config import AnalyzeConfig
from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows
from analyze.statistics.moments import Moments
from analyze.subject import open_subject
from analyze.sweep.gather import gather
from harvest.run import harvest
from harvest.settings import Settings
from pipeline.config import Config
from pipeline.errors import StoreError
from store.reader import Store
from tests.harvest.models import naive
from train.dictionary.partition import dedicated

from .directed import directed, saved

A, B = "a.model.layers.1.out", "b.gpt_neox.layers.1.out"
ONLY_A, SHARED, ONLY_B = 1, 9, 22
CONTEXTS = 3
PATHS = {"a": "model.layers.1", "b": "gpt_neox.layers.1"}


def opened(store, folder, names=(A, B)):
    dictionary = directed(store, names, dedicated(("a", "b"), 24, {"a": 4, "b": 4}), 0.1)
    subject = open_subject(store, saved(dictionary, folder / "dictionary"), "cpu")
    return Opened(subject, AnalyzeConfig(contexts=CONTEXTS, batch_rows=64), folder / "tables")


@pytest.fixture(scope="module")
def two(harvested, tmp_path_factory):
    return opened(harvested[1], tmp_path_factory.mktemp("agreement"))


@pytest.fixture(scope="module")
def classes(models):
    return next_text({name: model.tokenizer for name, model in models.items()})


def probabilities(folder, path, readings, vector):
    """Next-token probabilities (rows, V), a text at a time, in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    handle = naive.hook(model, path, "out", lambda x: x + vector)
    found = []
    for reading in readings:
        ids = torch.tensor(reading.ids)[None]
        scores = naive.logits(model, ids, torch.ones_like(ids))[0]
        found.append(scores[torch.from_numpy(reading.positions)].double().softmax(1))
    handle.remove()
    return torch.cat(found)


@pytest.mark.parametrize("feature", [ONLY_A, SHARED])
def test_a_signature_is_that_of_a_plain_loop(harvested, two, models, classes, feature):
    subject = two.subject
    firing, top = Firing(24, subject.labels), KeptRows("top", 24, CONTEXTS)
    gather(subject, [firing, top], 64)
    (scene,) = find_scenes(subject, models, [feature], top, 64).of
    (step,) = own_steps(subject, feature, float(firing.largest[feature]), ["a"])
    readings = [one.reading("a") for one in scene.firing]
    found = signature(models["a"], readings, step, classes, 100)
    wanted, positions = plain_signature(harvested[0].models["a"].path, PATHS["a"], readings, step)
    assert found.positions == positions > 3
    at = {begin: float(x) for begin, x in zip(classes.classes, found.change_C, strict=True)}
    assert at == pytest.approx({begin: wanted.get(begin, 0.0) for begin in at}, abs=1e-7)
    assert found.size == pytest.approx(sum(map(abs, wanted.values())), rel=1e-4)
    assert found.size > 1e-4


def plain_signature(folder, path, readings, step):
    """{beginning: change} of the tokens that stand for text, each decoded by itself; positions."""
    up, down = (
        probabilities(folder, path, readings, sign * step.vector_D.float()) for sign in (1, -1)
    )
    change = ((up - down) / 2).mean(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = {}
    (letter,) = tokenizer.encode("a", add_special_tokens=False)[-1:]
    for name, token in tokenizer.get_vocab().items():
        text = tokenizer.decode([letter, token])[len(tokenizer.decode([letter])) :]
        text = name if "\ufffd" in text or not text else text
        if token in tokenizer.all_special_ids or text.startswith("<0x"):
            continue
        begin = beginning(text)
        found[begin] = found.get(begin, 0.0) + float(change[token])
    return found, len(up)


def test_an_agreement_is_the_cosine_of_what_either_model_does(harvested, two, models, classes):
    found = Agreements(two, harvested[0].models)([SHARED]).to_dicts()[0]
    subject = two.subject
    firing, top = Firing(24, subject.labels), KeptRows("top", 24, CONTEXTS)
    moments = Moments(subject)
    gather(subject, [firing, top, moments], 64)
    (scene,) = find_scenes(subject, models, [SHARED], top, 64).of
    own = own_steps(subject, SHARED, float(firing.largest[SHARED]), ["a", "b"])
    step = next(one for one in own if one.steered == one.claimed_for)
    (mapped,) = Carrier(subject, moments).steps(own)
    vectors = []
    for one in (step, mapped):
        readings = [looked.reading(one.steered) for looked in scene.firing]
        folder = harvested[0].models[one.steered].path
        change, _ = plain_signature(folder, PATHS[one.steered], readings, one)
        vectors.append(np.array([change.get(begin, 0.0) for begin in classes.classes]))
    cosine = vectors[0] @ vectors[1] / np.prod([np.linalg.norm(v) for v in vectors])
    assert found["steering_agreement"] == pytest.approx(cosine, abs=1e-4)
    assert abs(cosine) < 0.99
    assert found["moved_other"] == pytest.approx(np.abs(vectors[1]).sum(), rel=1e-3)


def test_classes_are_how_texts_begin_in_any_vocabulary(models, classes):
    said = {}
    for name, model in models.items():
        tokenizer, of = model.tokenizer, classes.class_of[name].tolist()
        for token in tokenizer.all_special_ids:
            assert of[token] == NONE
        for word in ("the cat", "under", "value"):
            for token in tokenizer.encode("a " + word, add_special_tokens=False)[1:]:
                text = tokenizer.convert_ids_to_tokens(token).lstrip("\u2581\u0120")
                assert not text or classes.classes[of[token]] == text[:2]
        said[name] = {classes.classes[number] for number in of if number != NONE}
    assert len(said["a"] & said["b"]) > 20
    assert set(classes.classes) == said["a"] | said["b"]
    assert [beginning(t) for t in (" the", "the", "\n\n", "  ", " a", "")] == [
        *("th", "th", "\n\n", "  ", "a", "")
    ]


@given(st.integers(0, 2**32 - 1))
def test_sums_by_class_leave_out_nothing_that_the_tokenizer_knows(classes, seed):
    known = len(classes.class_of["b"])
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(known + 7, generator=generator, dtype=torch.float64)  # a padded head
    found = classes.by_class("b", values)
    wanted = values[:known][classes.class_of["b"] != NONE].sum()
    torch.testing.assert_close(found.sum(), wanted)
    short = classes.by_class("b", values[: known - 5])
    assert float(short.sum()) < float(found.sum())


def test_ids_with_gaps_and_bytes_have_their_own_places():
    class Tokenizer:
        all_special_ids = (0,)

        def get_vocab(self):
            return {"</s>": 0, "a": 1, "<0xE2>": 2, "no": 6, "zz": 9}

        def encode(self, text, add_special_tokens):
            return [1]

        def decode(self, ids, clean_up_tokenization_spaces=False):
            texts = {1: "a", 2: "\ufffd", 6: "no", 9: "zz"}
            return "".join(texts[one] for one in ids)

        def convert_ids_to_tokens(self, ids):
            return [name for one in ids for name, id in self.get_vocab().items() if id == one]

    found = next_text({"a": Tokenizer()})
    assert found.classes == ("a", "no", "zz")
    assert found.class_of["a"].tolist() == [-1, 0, -1, -1, -1, -1, 1, -1, -1, 2]
    values = torch.arange(10, dtype=torch.float64)
    assert found.by_class("a", values).tolist() == [1, 6, 9]


def test_agreement_is_a_cosine_and_unknown_without_an_effect():
    one = Signature(torch.tensor([0.3, -0.3, 0.0], dtype=torch.float64), 5)
    twice = Signature(2 * one.change_C, 5)
    other = Signature(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), 5)
    assert agreement(one, twice) == pytest.approx(1)
    assert agreement(one, Signature(-one.change_C, 5)) == pytest.approx(-1)
    assert agreement(one, other) == 0
    assert agreement(one, Signature(torch.zeros(3, dtype=torch.float64), 0)) is None


@pytest.fixture(scope="module")
def twins(model_pair, corpus_file, tmp_path_factory):
    """A model beside itself: everything has the same effect in both."""
    folder = tmp_path_factory.mktemp("twins")
    spec = {
        "path": str(model_pair["a"]),
        "hookpoint": "model.layers.1",
        "dtype": "float32",
        "device": "cpu",
    }
    raw = {
        "run_dir": str(folder / "run"),
        "models": {"a": spec, "b": copy.deepcopy(spec)},
        "corpus": {"path": str(corpus_file)},
        "harvest": {"max_tokens": 48, "batch_tokens": 400},
        "store": {"chunk_rows": 128},
    }
    config = Config("twins.yaml", raw)
    harvest(Settings.read(config))
    names = (A, "b.model.layers.1.out")
    return config, opened(Store(config.store_path), folder, names)


def test_in_a_twin_a_carried_direction_does_the_same(twins):
    config, at = twins
    found = Agreements(at, config.models)([ONLY_A, ONLY_B, SHARED])
    assert found["feature"].to_list() == [ONLY_A, SHARED, ONLY_B]
    assert found["steering_agreement"].min() > 0.95
    assert (found["positions"] > 0).all()
    moved = (found["moved_own"] / found["moved_other"]).to_list()
    assert moved == pytest.approx([1.0] * 3, rel=0.1)


def test_what_is_known_is_not_steered_again(harvested, two, monkeypatch):
    first = Agreements(two, harvested[0].models)([SHARED])
    assert two.tables.has(TABLE)
    calls = []

    def counted(subject, models, features, *rest):
        calls.append(list(features))
        return find_scenes(subject, models, features, *rest)

    monkeypatch.setattr("analyze.causal.agreement_run.find_scenes", counted)
    again = Agreements(two, harvested[0].models)([ONLY_B, SHARED])
    assert calls == [[ONLY_B]]
    assert again.filter(again["feature"] == SHARED).equals(first)
    unknown = Agreements(two, None)([ONLY_A, ONLY_B])
    assert unknown["feature"].to_list() == [ONLY_B]
    section = two.section.model_copy(update={"contexts": 1})
    assert Agreements(replace(two, section=section), None)([ONLY_B, SHARED]).is_empty()


def test_texts_that_are_not_found_again_are_an_error_and_are_asked_for_again(
    harvested, tmp_path, monkeypatch
):
    at = opened(harvested[1], tmp_path)
    every = np.ones(len(harvested[1].documents), bool)
    monkeypatch.setattr("analyze.causal.passages.chats", lambda _: every)
    with pytest.raises(StoreError, match="no document to steer on is found again"):
        Agreements(at, harvested[0].models)([SHARED])
    monkeypatch.undo()
    assert Agreements(at, harvested[0].models)([SHARED]).height == 1


def test_a_feature_that_never_fires_has_no_line(harvested, tmp_path):
    store = harvested[1]
    dictionary = directed(store, (A, B), dedicated(("a", "b"), 24, {"a": 4, "b": 4}), 0.1)
    with torch.no_grad():
        dictionary.b_enc[SHARED] = -1e6
    subject = open_subject(store, saved(dictionary, tmp_path / "dictionary"), "cpu")
    at = Opened(subject, AnalyzeConfig(contexts=2, batch_rows=64), tmp_path / "tables")
    found = Agreements(at, harvested[0].models)([SHARED])
    assert found.is_empty()
