"""The replacement test against a plain loop: one text at a time, plain hooks, dense products."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from analyze.causal.models import open_models
from analyze.causal.passages import find_passages, sample_documents
from analyze.causal.replace import replacement_table
from analyze.causal.replace_run import Pair
from analyze.causal.replace_sets import FeatureSet
from analyze.pairing import HookpointPair
from analyze.subject import open_subject
from harvest.run import harvest
from harvest.settings import Settings
from pipeline.config import Config
from pipeline.errors import ModelError
from store.reader import Store
from tests.harvest.models import naive
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import dedicated

from .directed import directed, saved

A, B = "a.model.layers.1.out", "b.model.layers.1.out"
WIDTH, FEATURES = 32, 24


@pytest.fixture(scope="module")
def pair_store(model_pair, corpus_file, tmp_path_factory):
    """A Llama, and a copy of it of which the layers up to the hookpoint were changed."""
    folder = tmp_path_factory.mktemp("replace")
    changed = AutoModelForCausalLM.from_pretrained(model_pair["a"], dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in changed.model.layers[:2]:
            for weights in layer.parameters():
                weights.add_(torch.randn(weights.shape, generator=generator) * 0.1)
    changed.save_pretrained(folder / "b")
    AutoTokenizer.from_pretrained(model_pair["a"]).save_pretrained(folder / "b")
    model = {"hookpoint": "model.layers.1", "dtype": "float32", "device": "cpu"}
    raw = {
        "run_dir": str(folder / "run"),
        "models": {
            "a": {"path": str(model_pair["a"]), **model},
            "b": {"path": str(folder / "b"), **model},
        },
        "corpus": {"path": str(corpus_file), "label_column": "domain"},
        "harvest": {"max_tokens": 40, "batch_tokens": 400},
        "store": {"chunk_rows": 128},
    }
    config = Config("test.yaml", raw)
    harvest(Settings.read(config))
    return config, Store(config.store_path)


@pytest.fixture(scope="module")
def models(pair_store):
    config, store = pair_store
    return open_models(store, config.models)


@pytest.fixture(scope="module")
def passages(pair_store, models):
    _, store = pair_store
    return find_passages(store, models, sample_documents(store, 12)).found


def subject_of(pair_store, dictionary, folder):
    return open_subject(pair_store[1], saved(dictionary, folder), "cpu")


@pytest.fixture(scope="module")
def dictionary(pair_store):
    partition = dedicated(("a", "b"), FEATURES, {"a": 4, "b": 4})
    return directed(pair_store[1], (A, B), partition, share=0.3)


@pytest.fixture(scope="module")
def subject(pair_store, dictionary, tmp_path_factory):
    return subject_of(pair_store, dictionary, tmp_path_factory.mktemp("random") / "d")


def a_set(name, members) -> FeatureSet:
    chosen = torch.zeros(FEATURES, dtype=torch.bool)
    chosen[members] = True
    return FeatureSet(name, None, chosen.numpy())


SETS = [a_set("best", [0, 5, 21, 23]), a_set("worst", range(1, 20)), a_set("all", range(FEATURES))]


def raw_decoder(dictionary, number: int) -> torch.Tensor:
    """(F, D) in raw units; zeros where the model does not see the feature."""
    full = torch.zeros(FEATURES, WIDTH, dtype=torch.float64)
    seen = dictionary.visibility(number).features_V
    full[seen] = dictionary.W_dec[str(number)].detach().double()
    return full / float(dictionary.scale[number])


def dense_codes(dictionary, x) -> torch.Tensor:
    pre = dictionary.b_enc.detach().double().repeat(len(x[0]), 1)
    for number in (0, 1):
        seen = dictionary.visibility(number).features_V
        scaled = x[number].double() * float(dictionary.scale[number])
        pre[:, seen] += scaled @ dictionary.W_enc[str(number)].detach().double().T
    return pre.relu()


def plain_table(pair_store, dictionary, passages, sets, base, bias):
    """(kl, ce) sums per line, and positions; sets are members, or the name of a reference."""
    config, _ = pair_store
    plain = [
        AutoModelForCausalLM.from_pretrained(config.models[n].path, dtype=torch.float32)
        for n in "ab"
    ]
    own, other = (0, 1) if base == "a" else (1, 0)
    difference = raw_decoder(dictionary, other) - raw_decoder(dictionary, own)
    biases = [dictionary.b_dec[str(n)].detach() / dictionary.scale[n] for n in (0, 1)]
    sums, positions = torch.zeros(len(sets), 2, dtype=torch.float64), 0
    for passage in passages:
        reading = passage.readings[base]
        ids = torch.tensor(reading.ids)[None]
        states, scores = [], []
        for model in plain:
            with torch.no_grad():
                output = model(ids, output_hidden_states=True)
            states.append(output.hidden_states[2][0])
            scores.append(output.logits[0])
        at = torch.tensor(reading.positions)
        codes = dense_codes(dictionary, [state[at] for state in states])
        measured = at[at + 1 < len(reading.ids)]
        positions += len(measured)
        target = torch.log_softmax(scores[other][measured].double(), 1)
        for number, one in enumerate(sets):
            if one == "target":
                changed = scores[other]
            else:
                moved = states[own].clone()
                if one == "activations":
                    moved[at] = states[other][at]
                elif one != "none":
                    chosen = torch.from_numpy(one.members).double()
                    moved[at] += ((codes * chosen) @ difference).float()
                    if bias:
                        moved[at] += biases[other] - biases[own]
                handle = naive.hook(plain[own], "model.layers.1", "out", lambda _, to=moved: to)
                changed = naive.logits(plain[own], ids, torch.ones_like(ids))[0]
                handle.remove()
            log_q = torch.log_softmax(changed[measured].double(), 1)
            kl = torch.nn.functional.kl_div(log_q, target, reduction="sum", log_target=True)
            ce = torch.nn.functional.nll_loss(log_q, ids[0, measured + 1], reduction="sum")
            sums[number] += torch.stack([kl, ce])
    return sums / positions, positions


@pytest.mark.parametrize(("base", "bias"), [("a", False), ("a", True), ("b", False)])
def test_every_set_does_what_a_plain_loop_does(
    pair_store, dictionary, subject, models, passages, base, bias
):
    places = HookpointPair(0, 1) if base == "a" else HookpointPair(1, 0)
    other = "b" if base == "a" else "a"
    pair = Pair.of(models[base], models[other], places)
    table = replacement_table(subject, pair, passages, SETS, 130, 50, bias=bias)
    lines = ["none", *([a_set("bias", [])] if bias else []), *SETS, "activations", "target"]
    wanted, positions = plain_table(pair_store, dictionary, passages, lines, base, bias)
    assert table["set"].to_list() == [one if isinstance(one, str) else one.name for one in lines]
    assert set(table["positions"]) == {positions}
    assert table["kl"].to_list() == pytest.approx(wanted[:, 0].tolist(), rel=1e-3, abs=1e-7)
    assert table["ce"].to_list() == pytest.approx(wanted[:, 1].tolist(), rel=1e-5)
    sizes = [0 if isinstance(one, str) else int(one.members.sum()) for one in lines]
    assert table["features"].to_list() == sizes
    assert len(set(table["kl"].to_list())) == len(table)


def test_sums_do_not_depend_on_the_batches(subject, models, passages):
    pair = Pair.of(models["a"], models["b"], HookpointPair(0, 1))
    tables = [
        replacement_table(subject, pair, passages, SETS, tokens, rows)
        for tokens, rows in ((1, 7), (200, 64), (100_000, 100_000))
    ]
    for table in tables[1:]:
        for column in ("kl", "ce"):
            assert table[column].to_list() == pytest.approx(
                tables[0][column].to_list(), rel=1e-4, abs=1e-9
            )


def test_a_set_of_no_features_changes_no_bit_and_the_target_is_at_0(subject, models, passages):
    pair = Pair.of(models["a"], models["b"], HookpointPair(0, 1))
    table = replacement_table(subject, pair, passages, [a_set("empty", [])], 200, 64)
    none, empty, _, target = table.iter_rows(named=True)
    assert empty["kl"] == none["kl"] > 0
    assert empty["ce"] == none["ce"]
    assert (none["gap_closed"], target["gap_closed"]) == (0.0, 1.0)
    assert target["kl"] == 0.0


def test_the_targets_activations_close_the_gap_where_all_that_differs_is_before_them(
    subject, models, passages
):
    """Not all of it: the special token before a text is no row and keeps what it has."""
    pair = Pair.of(models["a"], models["b"], HookpointPair(0, 1))
    table = replacement_table(subject, pair, passages, [], 200, 64)
    of = {line["set"]: line for line in table.iter_rows(named=True)}
    assert of["none"]["kl"] > 1e-3
    assert of["activations"]["gap_closed"] > 0.5
    assert of["activations"]["ce"] == pytest.approx(of["target"]["ce"], rel=0.05)


def coordinates() -> Crosscoder:
    """Of each model 2 D features of its own, f = relu(+-x_i) with decoder +-e_i: all of x."""
    partition = dedicated(("a", "b"), 4 * WIDTH, {"a": 2 * WIDTH, "b": 2 * WIDTH})
    found = Crosscoder((HookpointShape(A, "a", WIDTH), HookpointShape(B, "b", WIDTH)), partition)
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    with torch.no_grad():
        found.scale.copy_(torch.tensor([4.0, 0.25]))
        for weights in (*found.W_enc.values(), *found.W_dec.values()):
            weights.copy_(both)
    return found


def test_a_dictionary_that_reconstructs_everything_is_as_good_as_the_activations(
    pair_store, models, passages, tmp_path
):
    subject = subject_of(pair_store, coordinates(), tmp_path / "coordinates")
    everything = FeatureSet("all", None, torch.ones(4 * WIDTH, dtype=torch.bool).numpy())
    pair = Pair.of(models["a"], models["b"], HookpointPair(0, 1))
    table = replacement_table(subject, pair, passages, [everything], 200, 64)
    none, all_, activations, _ = table["kl"].to_list()
    assert all_ == pytest.approx(activations, rel=1e-4)
    assert all_ < 0.5 * none


def test_models_of_two_tokenizers_are_refused(harvested, models):
    config, store = harvested
    other = open_models(store, config.models)
    with pytest.raises(ModelError, match=r"^models a and b: their tokenizers differ \(token '"):
        Pair.of(other["a"], other["b"], HookpointPair(0, 1))
