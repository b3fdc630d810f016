"""Models run on with reconstructed activations, against naive hooks on one text at a time."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM

from analyze.causal import fidelity
from analyze.causal.fidelity import fidelity_table
from analyze.causal.passages import find_passages, row_edges
from analyze.subject import Subject
from pipeline.errors import DictionaryError
from train.dictionary.activation import ReLU
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import dedicated, single_group

from ...harvest.models import naive

PLACES = {
    "a.model.layers.1.out": ("model.layers.1", "out", slice(None)),
    "a.model.layers.2.self_attn.o_proj.in.head1": (
        "model.layers.2.self_attn.o_proj",
        "in",
        slice(8, 16),
    ),
    "b.gpt_neox.layers.1.out": ("gpt_neox.layers.1", "out", slice(None)),
}


@pytest.fixture(scope="module")
def passages(harvested, models):
    _, store = harvested
    return find_passages(store, models, np.arange(len(store.documents))).found


def shapes(store) -> tuple[HookpointShape, ...]:
    return tuple(HookpointShape(h.name, h.model, h.width) for h in store.schema.hookpoints)


def exact(store) -> Crosscoder:
    """Two features per coordinate, one for either sign: every row is reconstructed as it is."""
    hookpoints = shapes(store)
    width = sum(h.width for h in hookpoints)
    dictionary = Crosscoder(
        hookpoints, single_group(("a", "b"), 2 * width), dtype=torch.float64, activation=ReLU()
    )
    both = torch.cat([torch.eye(width), -torch.eye(width)]).double()
    start = 0
    with torch.no_grad():
        for number, hookpoint in enumerate(hookpoints):
            own = both[:, start : start + hookpoint.width]
            dictionary.W_enc[str(number)].copy_(own)
            dictionary.W_dec[str(number)].copy_(own)
            start += hookpoint.width
    return dictionary


def noisy(store, seed: int = 3) -> Crosscoder:
    """A DFC that reconstructs something, from random weights."""
    partition = dedicated(("a", "b"), 64, {"a": 0.25, "b": 0.25})
    dictionary = Crosscoder(shapes(store), partition, dtype=torch.float64, activation=ReLU())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in dictionary.parameters():
            random = torch.randn(weights.shape, generator=generator, dtype=torch.float64)
            weights.copy_(random / weights.shape[-1] ** 0.5)
        dictionary.b_enc.sub_(1.0)
    return dictionary


def table_of(harvested, models, passages, dictionary, batch_tokens=300, rows=100) -> pl.DataFrame:
    _, store = harvested
    subject = Subject(store, dictionary, store.path)
    return fidelity_table(subject, models, passages, batch_tokens, rows)


def line(table: pl.DataFrame, model: str, label: str = "all") -> dict:
    (found,) = table.filter((pl.col("model") == model) & (pl.col("label") == label)).to_dicts()
    return found


@pytest.mark.parametrize("model", ["a", "b"])
def test_an_exact_dictionary_recovers_all_of_the_loss(harvested, models, passages, model):
    found = line(table_of(harvested, models, passages, exact(harvested[1])), model)
    assert found["loss_recovered"] == pytest.approx(1, abs=1e-5)
    assert found["loss_recovered_mean"] == pytest.approx(1, abs=1e-5)
    assert found["kl_reconstruction"] < 1e-9 < 1e-4 < found["kl_zero"]
    assert (found["top1_agreement"], found["fve"]) == (1, pytest.approx(1, abs=1e-12))
    assert found["l0"] == pytest.approx(32 + 8 + 48, abs=0.1)


def test_a_dictionary_that_gives_zero_recovers_nothing(harvested, models, passages):
    zero = Crosscoder(shapes(harvested[1]), single_group(("a", "b"), 4), activation=ReLU())
    for model in ("a", "b"):
        found = line(table_of(harvested, models, passages, zero), model)
        assert found["loss_recovered"] == 0
        assert found["kl_reconstruction"] == found["kl_zero"] > 0
        assert (found["l0"], found["dead"]) == (0, 1)


def test_a_dictionary_that_gives_the_mean_is_as_good_as_the_mean(harvested, models, passages):
    _, store = harvested
    mean = Crosscoder(
        shapes(store), single_group(("a", "b"), 4), dtype=torch.float64, activation=ReLU()
    )
    with torch.no_grad():
        for number, hookpoint in enumerate(mean.hookpoints):
            mean.b_dec[str(number)].copy_(torch.tensor(store.statistics(hookpoint.name).mean))
    for model in ("a", "b"):
        found = line(table_of(harvested, models, passages, mean), model)
        assert found["loss_recovered_mean"] == pytest.approx(0, abs=1e-12)
        assert found["fve"] == pytest.approx(0, abs=1e-12)
        assert found["ce_mean"] == pytest.approx(found["ce_reconstruction"], abs=1e-12)


@dataclasses.dataclass
class Naive:
    """Per prediction: its document, and what was measured there."""

    documents: list[int] = dataclasses.field(default_factory=list)
    values: list[dict[str, float]] = dataclasses.field(default_factory=list)


def naive_fidelity(harvested, passages, dictionary: Crosscoder, model: str) -> Naive:
    """One text at a time, by hooks on plain models, in float64 behind the logits."""
    config, store = harvested
    plain = {
        name: AutoModelForCausalLM.from_pretrained(spec.path, dtype=torch.float32)
        for name, spec in config.models.items()
    }
    found = Naive()
    for passage in passages:
        rows = {}
        for name, (path, site, channels) in PLACES.items():
            owner = name[0]
            reading = passage.readings[owner]
            seen = []
            handle = naive.hook(
                plain[owner], path, site, lambda x, seen=seen: seen.append(x) or x, channels
            )
            one_text(plain[owner], reading)
            handle.remove()
            rows[name] = seen[0][0, torch.tensor(reading.positions)]
        x_hat = dictionary.decode(dictionary.encode(rows))
        means = {name: torch.tensor(store.statistics(name).mean)[None] for name in PLACES}
        zeros = {name: torch.zeros_like(mean) for name, mean in means.items()}
        reading = passage.readings[model]
        clean = one_text(plain[model], reading)
        changed = {}
        for kind, values in (("reconstruction", x_hat), ("zero", zeros), ("mean", means)):
            handles = []
            for name, (path, site, channels) in PLACES.items():
                if name[0] == model:
                    put = putting(values[name], torch.tensor(reading.positions))
                    handles.append(naive.hook(plain[model], path, site, put, channels))
            changed[kind] = one_text(plain[model], reading)
            for handle in handles:
                handle.remove()
        for place in reading.positions.tolist():
            if place + 1 < len(reading.ids):
                target = reading.ids[place + 1]
                p = clean[place].exp()
                values = {"ce_clean": -clean[place, target].item()}
                for kind, other in changed.items():
                    values[f"ce_{kind}"] = -other[place, target].item()
                    values[f"kl_{kind}"] = (p * (clean[place] - other[place])).sum().item()
                same = changed["reconstruction"][place].argmax() == clean[place].argmax()
                values["top1_agreement"] = float(same)
                found.documents.append(passage.document)
                found.values.append(values)
    return found


def one_text(model, reading) -> torch.Tensor:
    """Log probabilities (seq, vocabulary), float64."""
    ids = torch.tensor(reading.ids)[None]
    return torch.log_softmax(naive.logits(model, ids, torch.ones_like(ids))[0].double(), 1)


def putting(values: torch.Tensor, positions: torch.Tensor):
    def edit(x):
        for row, place in enumerate(positions.tolist()):
            x[0, place] = values[min(row, len(values) - 1)].float()
        return x

    return edit


@pytest.mark.parametrize("model", ["a", "b"])
def test_measures_are_those_of_naive_hooks_on_one_text_at_a_time(
    harvested, models, passages, model
):
    _, store = harvested
    dictionary = noisy(store)
    table = table_of(harvested, models, passages, dictionary)
    wanted = naive_fidelity(harvested, passages, dictionary, model)
    of_document = np.array(store.documents.label_names)[store.documents.labels]
    labels = of_document[wanted.documents]
    for label in ("all", "awkward", "prose", "code"):
        found = line(table, model, label)
        picked = [
            values
            for values, here in zip(wanted.values, labels, strict=True)
            if label in ("all", here)
        ]
        assert found["rows"] == len(picked) > 10
        mean = {name: sum(values[name] for values in picked) / len(picked) for name in picked[0]}
        for name, value in mean.items():
            assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-7), (label, name)
        cost = mean["ce_zero"] - mean["ce_reconstruction"]
        assert found["loss_recovered"] == pytest.approx(
            cost / (mean["ce_zero"] - mean["ce_clean"]), rel=1e-3
        )
        there = [p for p in passages if label in ("all", of_document[p.document])]
        assert found["documents"] == len(there)


def test_reconstruction_is_measured_on_all_rows_of_the_passages(harvested, models, passages):
    """FVE about the store's mean, L0 and dead features, against dense matrices of stored rows."""
    _, store = harvested
    dictionary = noisy(store)
    table = table_of(harvested, models, passages, dictionary)
    numbers = np.concatenate([p.rows for p in passages])
    of_row = store.documents.labels[
        np.repeat([p.document for p in passages], [len(p.rows) for p in passages])
    ]
    x = {
        name: torch.cat([store.activations(name, c) for c in range(store.chunks)])[numbers].double()
        for name in PLACES
    }
    codes = dictionary.encode(x)
    x_hat, on = dictionary.decode(codes), codes.dense() > 0
    for number, label in enumerate(store.documents.label_names):
        rows = torch.tensor(of_row == number)
        shares = {}
        for name in PLACES:
            mean = torch.tensor(store.statistics(name).mean)
            error = (x[name] - x_hat[name])[rows].square().sum()
            shares.setdefault(name[0], []).append(error / (x[name] - mean)[rows].square().sum())
        for model in ("a", "b"):
            found = line(table, model, label)
            wanted = 1 - sum(shares[model]).item() / len(shares[model])
            assert found["fve"] == pytest.approx(wanted, rel=1e-2)  # stored rows are bfloat16
            assert found["l0"] == pytest.approx(on[rows].sum().item() / rows.sum().item(), rel=1e-2)
            seen = slice(0, 48) if model == "a" else slice(16, 64)
            dead = 1 - on[rows][:, seen].any(dim=0).double().mean().item()
            assert found["dead"] == pytest.approx(dead, abs=1.5 / 48)


def test_how_passages_are_batched_changes_nothing(harvested, models, passages, monkeypatch):
    dictionary = noisy(harvested[1])
    wanted = table_of(harvested, models, passages, dictionary, batch_tokens=10_000, rows=10_000)
    monkeypatch.setattr(fidelity, "GROUP_BATCHES", 2)
    for batch_tokens, rows in ((1, 7), (130, 3)):
        found = table_of(harvested, models, passages, dictionary, batch_tokens, rows)
        assert found.select("model", "label", "documents", "rows", "l0", "dead").equals(
            wanted.select("model", "label", "documents", "rows", "l0", "dead")
        )
        for column in wanted.columns[4:]:
            near = pytest.approx(wanted[column].to_list(), rel=1e-4, abs=1e-7)
            assert found[column].to_list() == near, column


def test_only_reconstructed_hookpoints_are_replaced(harvested, models, passages):
    """A dictionary of one model's layer leaves the other's layers, and the head, alone."""
    _, store = harvested
    full = exact(store)
    hookpoints = [
        dataclasses.replace(h, writes=h.name == "b.gpt_neox.layers.1.out") for h in full.hookpoints
    ]
    partial = Crosscoder(tuple(hookpoints), full.partition, dtype=torch.float64, activation=ReLU())
    partial.load_state_dict(
        {k: v for k, v in full.state_dict().items() if k in partial.state_dict()}
    )
    table = table_of(harvested, models, passages, partial)
    wanted = table_of(harvested, models, passages, full).filter(pl.col("model") == "b")
    assert table["model"].unique().to_list() == ["b"]
    assert table["ce_zero"].to_list() == wanted["ce_zero"].to_list()
    nothing = Crosscoder(
        tuple(dataclasses.replace(h, writes=False) for h in hookpoints),
        full.partition,
        activation=ReLU(),
    )
    with pytest.raises(DictionaryError, match="reconstructs no hookpoint"):
        table_of(harvested, models, passages, nothing)


def test_progress_counts_every_row_of_every_model(harvested, models, passages):
    _, store = harvested
    seen = []
    subject = Subject(store, noisy(store), store.path)
    fidelity_table(subject, models, passages, 300, 100, seen.append)
    assert sum(seen) == 2 * sum(len(p.rows) for p in passages)
    assert len(row_edges(store)) - 1 > len(passages)  # one document is empty
