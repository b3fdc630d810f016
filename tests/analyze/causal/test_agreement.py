"""Signatures are those of a plain loop; a model and its twin agree."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from analyze.causal.agreement import Signature, agreement, signature
from analyze.causal.agreement_run import TABLE, Agreements
from analyze.causal.models import open_models
from analyze.causal.next_text import beginning, next_text
from analyze.causal.steer_scenes import find_scenes
from analyze.causal.steer_steps import own_steps
from analyze.command import Opened
from analyze.config import AnalyzeConfig
from analyze.statistics.firing import Firing
from analyze.statistics.kept_rows import KeptRows
from analyze.subject import open_subject
from analyze.sweep.gather import gather
from harvest.run import harvest
from harvest.settings import Settings
from pipeline.config import Config
from store.reader import Store
from tests.harvest.models import naive
from train.dictionary.partition import dedicated

from .directed import directed, saved

A, B = "a.model.layers.1.out", "b.gpt_neox.layers.1.out"
ONLY_A, SHARED, ONLY_B = 1, 9, 22
CONTEXTS = 3


def opened(store, folder, names=(A, B)):
    dictionary = directed(store, names, dedicated(("a", "b"), 24, {"a": 4, "b": 4}))
    subject = open_subject(store, saved(dictionary, folder / "dictionary"), "cpu")
    return Opened(subject, AnalyzeConfig(contexts=CONTEXTS, batch_rows=64), folder / "tables")


@pytest.fixture(scope="module")
def two(harvested, tmp_path_factory):
    return opened(harvested[1], tmp_path_factory.mktemp("agreement"))


@pytest.fixture(scope="module")
def models(harvested):
    return open_models(harvested[1], harvested[0].models)


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
    path = harvested[0].models["a"].path
    up, down = (
        probabilities(path, "model.layers.1", readings, sign * step.vector_D.float())
        for sign in (1, -1)
    )
    change = ((up - down) / 2).mean(0)
    tokenizer = AutoTokenizer.from_pretrained(path)
    wanted = dict.fromkeys(classes.classes, 0.0)
    for token in range(len(tokenizer)):
        wanted[classes.classes[int(classes.class_of["a"][token])]] += float(change[token])
    assert found.positions == len(up) > 3
    assert found.change_C.tolist() == pytest.approx(list(wanted.values()), abs=1e-7)
    total = sum(abs(value) for value in wanted.values()) / 2
    assert found.size == pytest.approx(total, rel=1e-4)
    assert found.size > 1e-4


def test_classes_are_how_texts_begin_in_any_vocabulary(models, classes):
    said = {}
    for name, model in models.items():
        for word in ("the", "the cat"):
            ids = model.tokenizer.encode("a " + word, add_special_tokens=False)
            assert model.tokenizer.decode(ids).endswith(word)
        assert len(classes.class_of[name]) == len(model.tokenizer)
        said[name] = {classes.classes[int(n)] for n in classes.class_of[name]}
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
    torch.testing.assert_close(found.sum(), values[:known].sum())


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


def test_a_feature_that_never_fires_has_a_line_without_numbers(harvested, tmp_path):
    store = harvested[1]
    dictionary = directed(store, (A, B), dedicated(("a", "b"), 24, {"a": 4, "b": 4}))
    with torch.no_grad():
        dictionary.b_enc[SHARED] = -1e6
    subject = open_subject(store, saved(dictionary, tmp_path / "dictionary"), "cpu")
    at = Opened(subject, AnalyzeConfig(contexts=2, batch_rows=64), tmp_path / "tables")
    found = Agreements(at, harvested[0].models)([SHARED])
    assert found["steering_agreement"].to_list() == [None]
    assert found["positions"].to_list() == [None]
