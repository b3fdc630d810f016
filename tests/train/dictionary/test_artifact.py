"""A dictionary on disk."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from pipeline.errors import DictionaryError
from train.dictionary.artifact import load_dictionary, save_dictionary
from train.loop import train

from ..conftest import tiny, write_store
from ..pairs import NORMALIZATIONS, PARTITIONS, make_config, make_trainee, random_batch


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    trainee = make_trainee("dfc", make_config())
    save_dictionary(tmp_path, trainee.dictionary, {"recipe": "dfc"})
    return tmp_path


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_saved_dictionary_gives_the_same_codes_bit_for_bit(partition, normalization, tmp_path):
    trainee = make_trainee(partition, make_config(code_normalization=normalization))
    trainee.dictionary.threshold.fill_(0.6)
    save_dictionary(tmp_path, trainee.dictionary, {})
    batch = random_batch(trainee, 0)
    mine, theirs = trainee.dictionary.encode(batch), load_dictionary(tmp_path).encode(batch)
    assert torch.equal(mine.pattern.flat, theirs.pattern.flat)
    assert torch.equal(mine.values, theirs.values)


def test_a_saved_dictionary_keeps_architecture_and_every_tensor(saved):
    dictionary = make_trainee("dfc", make_config()).dictionary
    loaded = load_dictionary(saved)
    assert loaded.hookpoints == dictionary.hookpoints
    assert loaded.partition == dictionary.partition
    torch.testing.assert_close(loaded.state_dict(), dictionary.state_dict(), rtol=0, atol=0)


def test_a_dictionary_is_loaded_without_its_store(tmp_path):
    from store.reader import Store

    store = write_store(tmp_path / "store.zarr", documents=20)
    (trained,) = train(Store(store), tiny(steps=10, threshold_start=1), tmp_path / "dictionary")
    shutil.rmtree(store)
    assert load_dictionary(trained.folder).partition.features == 40


def test_provenance_is_kept_beside_the_architecture(saved):
    assert json.loads((saved / "config.json").read_text())["recipe"] == "dfc"


def test_weights_and_description_never_belong_to_different_dictionaries(saved, monkeypatch):
    def killed(path: Path, buffers: list[bytes]) -> None:
        path.write_bytes(b"".join(buffers))
        if path.name == "model.safetensors":
            raise KeyboardInterrupt

    monkeypatch.setattr("train.dictionary.artifact.write_atomic", killed)
    other = make_trainee("dfc", make_config(seed=1)).dictionary
    with pytest.raises(KeyboardInterrupt):
        save_dictionary(saved, other, {"recipe": "other"})
    with pytest.raises(DictionaryError, match=r"config\.json: no such file"):
        load_dictionary(saved)


def test_a_folder_without_a_dictionary_is_named(tmp_path):
    with pytest.raises(DictionaryError, match=r"config\.json: no such file; train a dictionary"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a dictionary of this project"),
        ({"version": 99}, "dictionary version 99, this program reads 1"),
        ({"partition": [{"name": "a"}]}, "damaged description"),
        ({"partition": 3}, "damaged description"),
        ({"hookpoints": "a"}, r"damaged description \(hookpoints is 'a', not a list\)"),
        ({"train": [1]}, r"damaged description \(train is \[1\], not an object\)"),
        ({"train": {"validation_fraction": "x"}}, "validation_fraction is 'x', not a number"),
        ({"hookpoints": []}, "does not hold this dictionary"),
        ({"hookpoints": [{"name": "a", "widht": 3}]}, "damaged description"),
        ({"dtype": "int8"}, "damaged description"),
        ({"code_normalization": "sea"}, "unknown code_normalization 'sea'"),
    ],
)
def test_a_damaged_description_is_refused_by_file(saved, change, message):
    file = saved / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(DictionaryError, match=message) as caught:
        load_dictionary(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_a_description_that_is_no_json_object_is_refused(saved, content):
    (saved / "config.json").write_bytes(content)
    with pytest.raises(DictionaryError, match=r"config\.json"):
        load_dictionary(saved)


def test_a_pickle_in_the_place_of_the_weights_is_refused_and_never_run(saved):
    marker = saved / "ran"
    (saved / "model.safetensors").write_bytes(pickle.dumps(_Touch(marker)))
    with pytest.raises(DictionaryError, match=r"model\.safetensors: does not hold this dictionary"):
        load_dictionary(saved)
    assert not marker.exists()


def test_truncated_weights_are_refused(saved):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DictionaryError, match=r"model\.safetensors: does not hold this dictionary"):
        load_dictionary(saved)


def test_missing_weights_are_named(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(DictionaryError, match=r"model\.safetensors: no such file"):
        load_dictionary(saved)


class _Touch:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)
