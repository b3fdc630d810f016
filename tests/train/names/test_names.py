"""The names: constructors, forms of rows, files, and which name a file gets."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from pipeline.errors import ConfigError, DictionaryError
from train.dictionary.artifact import save_dictionary
from train.names import Dictionary
from train.names.table import KINDS

from .randomised import make, rows_of

SINGLE = {
    "AutoEncoder": {},
    "GatedAutoEncoder": {},
    "JumpReluAutoEncoder": {},
    "AutoEncoderTopK": {"k": 4},
    "BatchTopKSAE": {"k": 4},
    "MatryoshkaBatchTopKSAE": {"k": 4, "group_sizes": [8, 32]},
}
SEVERAL = {
    "CrossCoder": {},
    "BatchTopKCrossCoder": {"k": 4},
    "DedicatedFeatureCrossCoder": {"a_exclusive": 4, "b_exclusive": 0.2},
    "DedicatedFeatureBatchTopKCrossCoder": {"k": 4, "a_exclusive": 4, "b_exclusive": 0.2},
}
ARGUMENTS = {**SINGLE, **SEVERAL}
EACH = pytest.mark.parametrize("name", ARGUMENTS)
WIDTH, FEATURES = 6, 40


def new(name: str, **changes: object) -> Dictionary:
    torch.manual_seed(0)
    dictionary = getattr(train, name)(WIDTH, FEATURES, **{**ARGUMENTS[name], **changes})
    if dictionary.core.activation.kind == "batch_topk":
        dictionary.core.threshold.fill_(0.3)
    return dictionary


def rows_for(name: str, *lead: int) -> torch.Tensor:
    return torch.randn(*lead, *([2] if name in SEVERAL else []), WIDTH)


def test_every_name_of_the_table_is_there():
    assert set(ARGUMENTS) == set(KINDS) <= set(train.NAMES) <= set(dir(train))
    assert set(train.NAMES) == set(train.names.__all__)
    with pytest.raises(AttributeError, match="NoSuchName"):
        train.NoSuchName  # noqa: B018


def test_torch_is_imported_only_when_a_name_is_asked_for():
    program = (
        "import sys, train; first = 'torch' in sys.modules; "
        "from train import DedicatedFeatureBatchTopKCrossCoder; "
        "print(first, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"]


@EACH
def test_rows_of_any_leading_dimensions_keep_them(name):
    dictionary, x = new(name), rows_for(name, 3, 5)
    x_hat, f = dictionary(x, output_features=True)
    assert x_hat.shape == x.shape
    assert f.shape == (3, 5, FEATURES)
    assert 0 < int((f > 0).sum()) < f.numel()
    assert torch.equal(dictionary.decode(f), x_hat)
    assert torch.equal(dictionary.encode(x), f)
    flat = dictionary(x.flatten(0, 1))
    torch.testing.assert_close(flat, x_hat.flatten(0, 1))
    one = dictionary(x[0, 0])
    torch.testing.assert_close(one, x_hat[0, 0])


@EACH
def test_sparse_codes_are_the_dense_ones(name):
    dictionary, x = new(name), rows_for(name, 7)
    sparse = dictionary.encode_sparse(x)
    torch.testing.assert_close(sparse.dense(), dictionary.encode(x).detach())
    torch.testing.assert_close(dictionary.decode(sparse), dictionary(x).detach())


@EACH
def test_weights_start_at_directions_of_norm_1_and_their_transpose_and_follow_torchs_seed(name):
    dictionary = new(name)
    for number, W_dec_VD in dictionary.core.W_dec.items():
        torch.testing.assert_close(W_dec_VD.norm(dim=1), torch.ones(len(W_dec_VD)))
        assert torch.equal(W_dec_VD, dictionary.core.W_enc[number])
    again, other = new(name), getattr(train, name)(WIDTH, FEATURES, **ARGUMENTS[name])
    assert torch.equal(again.core.W_dec["0"], dictionary.core.W_dec["0"])
    assert not torch.equal(other.core.W_dec["0"], dictionary.core.W_dec["0"])


@EACH
def test_a_saved_one_comes_back_under_its_own_name_bit_for_bit(name, tmp_path):
    saved = new(name)
    saved.save_pretrained(tmp_path / "saved")
    for place in (tmp_path / "saved", str(tmp_path / "saved" / "model.safetensors")):
        loaded = Dictionary.from_pretrained(place)
        assert type(loaded).__name__ == name
        assert not loaded.training
        assert (loaded.k, loaded.notes) == (saved.k, saved.notes)
        assert loaded.partition == saved.partition
        state = loaded.state_dict()
        assert all(torch.equal(state[key], value) for key, value in saved.state_dict().items())
    assert type(getattr(train, name).from_pretrained(tmp_path / "saved")) is type(saved)


@pytest.mark.parametrize("name", ["BatchTopKSAE", "DedicatedFeatureBatchTopKCrossCoder"])
def test_a_folded_one_does_the_same_saves_and_comes_back_bit_for_bit(name, tmp_path):
    dictionary, x = new(name), rows_for(name, 6)
    with torch.no_grad():
        dictionary.core.scale.copy_(torch.linspace(0.5, 3.0, len(dictionary.core.scale)))
    folded, unfolding = dictionary.folded()
    assert type(folded) is type(dictionary)
    assert (folded.core.scale == 1).all()
    torch.testing.assert_close(folded(x), dictionary(x), rtol=1e-4, atol=1e-5)
    folded.save_pretrained(tmp_path)
    saved = type(dictionary).from_pretrained(tmp_path)
    assert torch.equal(saved(x), folded(x))
    back = saved.unfolded(unfolding)
    before = dictionary.state_dict()
    assert [n for n, v in back.state_dict().items() if not torch.equal(v, before[n])] == []
    with pytest.raises(DictionaryError, match="folded into the weights already"):
        folded.folded()


def test_asking_for_another_name_than_there_is_says_which_it_is(tmp_path):
    new("DedicatedFeatureBatchTopKCrossCoder").save_pretrained(tmp_path)
    assert isinstance(train.BatchTopKCrossCoder.from_pretrained(tmp_path), Dictionary)
    with pytest.raises(DictionaryError) as caught:
        train.CrossCoder.from_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds a DedicatedFeatureBatchTopKCrossCoder, not a CrossCoder; use "
        "DedicatedFeatureBatchTopKCrossCoder.from_pretrained or Dictionary.from_pretrained"
    )


@pytest.mark.parametrize("case", ["jump_relu dfc", "gated dfc"])
def test_a_combination_without_a_name_is_a_plain_dictionary(case, tmp_path):
    core = make(case)
    save_dictionary(tmp_path, core, {})
    loaded = Dictionary.from_pretrained(tmp_path)
    assert type(loaded) is Dictionary
    rows = rows_of(core)
    torch.testing.assert_close(loaded(rows)["b0"], core.decode(core.encode(rows))["b0"])


def test_a_transcoder_needs_only_what_it_reads(tmp_path):
    core = make("transcoder")
    dictionary, x = Dictionary(core), rows_of(core)["in"]
    assert dictionary.inputs == ("in",)
    x_hat = dictionary(x)
    assert x_hat.shape == (len(x), 7)
    torch.testing.assert_close(dictionary.decode(dictionary.encode_sparse(x)), x_hat.detach())


def test_decoupled_codes_have_a_layer_dimension():
    dictionary = new("BatchTopKCrossCoder", code_normalization="DECOUPLED")
    x = rows_for("BatchTopKCrossCoder", 3, 5)
    x_hat, f = dictionary(x, output_features=True)
    assert f.shape == (3, 5, 2, FEATURES)
    assert torch.equal(dictionary.decode(f), x_hat)


def test_batch_topk_without_its_threshold_keeps_k_per_row_over_all_rows():
    for name in ("BatchTopKSAE", "BatchTopKCrossCoder", "DedicatedFeatureBatchTopKCrossCoder"):
        f = new(name).encode(rows_for(name, 8, 4), use_threshold=False)
        assert int((f > 0).sum()) == 4 * 32
        assert len((f > 0).sum(dim=-1).unique()) > 1


def test_widths_may_differ_and_then_rows_come_by_name():
    dictionary = train.DedicatedFeatureCrossCoder([5, 7], 40, names=("base", "chat"))
    assert dictionary.inputs == ("base", "chat")
    rows = {"base": torch.randn(3, 5), "chat": torch.randn(3, 7)}
    x_hat = dictionary(rows)
    assert {name: row.shape for name, row in x_hat.items()} == {"base": (3, 5), "chat": (3, 7)}
    assert dictionary.activation_dim == (5, 7)
    with pytest.raises(DictionaryError, match=r"widths \[5, 7\]; give a dict of base, chat"):
        dictionary(torch.randn(3, 2, 5))
    with pytest.raises(DictionaryError, match="chat: no activations given; given are base"):
        dictionary({"base": rows["base"]})
    with pytest.raises(DictionaryError, match=r"chat: activations of shape \(2, 7\), expected \(3"):
        dictionary({**rows, "chat": torch.randn(2, 7)})


def test_rows_of_another_shape_are_refused():
    with pytest.raises(DictionaryError, match=r"\(4, 5\), expected \(4, 6\)"):
        new("AutoEncoder")(torch.randn(4, 5))
    with pytest.raises(DictionaryError, match=r"\(4, 6\), expected \(..., 2, 6\) for hookpoints a"):
        new("CrossCoder")(torch.randn(4, 6))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("BatchTopKSAE", {"k": 41}, "k: 41: needs 1 to 40"),
        ("CrossCoder", {"code_normalization": "both"}, "code_normalization: 'both'; known are"),
        ("CrossCoder", {"names": ("a",)}, "names: a: needs 2 different ones"),
        ("MatryoshkaBatchTopKSAE", {"group_sizes": [8, 8]}, r"group_sizes: \[8, 8\]: needs sizes"),
        ("DedicatedFeatureCrossCoder", {"a_exclusive": 39}, "exclusive: takes 47 of 40 features"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        new(name, **changes)


def test_dedicated_features_of_three_models_and_a_pair_of_them():
    exclusive = {"a": 4, ("b", "c"): 0.1}
    dictionary = train.DedicatedFeatureCrossCoder(WIDTH, 40, num_layers=3, exclusive=exclusive)
    sizes = {group.models: group.size for group in dictionary.partition.groups}
    assert sizes == {("a",): 4, ("b", "c"): 4, ("a", "b", "c"): 32}


def test_dtype_is_as_asked_and_half_precision_is_saved_without_loss(tmp_path):
    new("BatchTopKSAE").save_pretrained(tmp_path)
    half = Dictionary.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half(torch.randn(3, WIDTH)).dtype == torch.bfloat16
    half.save_pretrained(tmp_path / "half")
    back = Dictionary.from_pretrained(tmp_path / "half")
    assert torch.equal(back.core.W_dec["0"], half.core.W_dec["0"].float())


def test_what_a_run_says_of_itself_stays_with_the_weights(tmp_path):
    dictionary = new("BatchTopKSAE")
    save_dictionary(tmp_path, dictionary.core, {"recipe": "batch_topk", "train": {"k": 7}})
    line = {"step": 3, "dead_fraction": 0.25, "validation": {"fve": {"model": 0.5}, "l0": 6.5}}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    loaded = Dictionary.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path / "copy")
    again = Dictionary.from_pretrained(tmp_path / "copy")
    assert again.k == 7
    assert again.notes["recipe"] == "batch_topk"
    assert again.notes["figures"]["fve"] == {"model": 0.5}
    assert again.notes["figures"]["dead_fraction"] == 0.25


def test_a_foreign_file_is_read_under_its_name(tmp_path):
    weights = {
        "bias": torch.randn(5),
        "encoder.weight": torch.randn(8, 5),
        "encoder.bias": torch.randn(8),
        "decoder.weight": torch.randn(5, 8),
    }
    torch.save(weights, tmp_path / "ae.pt")
    loaded = train.AutoEncoder.from_pretrained(tmp_path / "ae.pt")
    x = torch.randn(4, 5)
    f = torch.relu((x - weights["bias"]) @ weights["encoder.weight"].T + weights["encoder.bias"])
    torch.testing.assert_close(loaded.encode(x).detach(), f)
    wanted = f @ weights["decoder.weight"].T + weights["bias"]
    torch.testing.assert_close(loaded(x).detach(), wanted)


def test_a_pickle_is_refused_and_never_run(tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "ae.pt").write_bytes(pickle.dumps(_Touch(marker), protocol=2))
    with pytest.raises(DictionaryError, match=r"ae\.pt"):
        Dictionary.from_pretrained(tmp_path / "ae.pt")
    assert not marker.exists()


def test_what_is_neither_a_path_nor_a_repository_is_said(tmp_path):
    with pytest.raises(DictionaryError, match="no such file or folder, and no Hub repository"):
        Dictionary.from_pretrained(str(tmp_path / "nothing" / "here"))


class _Touch:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)
