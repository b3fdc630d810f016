"""Which file is read, and what is refused, in one line that names the file."""

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from pipeline.errors import DictionaryError
from train.dictionary.artifact import save_dictionary
from train.formats.files import find, weights_file
from train.formats.read import import_dictionary

from .foreign import DEDICATED, PARTITION, layered_state, same_bits, single_state


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_a_malicious_pickle_is_refused(tmp_path: Path) -> None:
    file, mark = tmp_path / "ae.pt", tmp_path / "ran"
    torch.save({**single_state("AutoEncoder"), "x": Malicious(f"touch {mark}")}, file)
    with pytest.raises(DictionaryError, match=r"ae\.pt: refused: its pickle calls \S*system") as at:
        import_dictionary(tmp_path)
    assert "\n" not in str(at.value)
    assert not mark.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "ae.pt")
    with pytest.raises(DictionaryError, match=r"calls torch\.nn\.modules\.linear\.Linear"):
        find(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", b"PK\x03\x04"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("ae.pt", "model.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DictionaryError, match=name) as at:
            find(tmp_path / name)
        assert "\n" not in str(at.value)


def test_values_that_are_no_dictionary(tmp_path: Path) -> None:
    for value, message in (
        ([1, 2], "holds a list, not a state dict"),
        ({}, "holds no tensors"),
        ({"layer.weight": torch.ones(2, 3)}, r"its keys are layer\.weight\(2, 3\); understood"),
        ({"encoder.weight": torch.tensor([[1.0, torch.nan]])}, "1 values that are not finite"),
    ):
        torch.save(value, tmp_path / "ae.pt")
        with pytest.raises(DictionaryError, match=message):
            import_dictionary(tmp_path)


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    state = single_state("AutoEncoder")
    state["encoder.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "ae.pt")
    with pytest.raises(DictionaryError, match=r"encoder\.bias has shape \(7,\), where a AutoEncod"):
        import_dictionary(tmp_path)


def test_compiled_prefixes_are_stripped(tmp_path: Path) -> None:
    for number, state in enumerate((single_state("BatchTopKSAE"), layered_state(DEDICATED[1]))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.json").write_text('{"trainer": {"dict_class": "BatchTopKSAE"}}')
        torch.save({f"_orig_mod.{key}": value for key, value in state.items()}, folder / "ae.pt")
        found = find(folder)
        assert same_bits({**found.tensors, **found.other}, state)
        import_dictionary(folder)


def test_layouts(tmp_path: Path) -> None:
    def put(path: str, seed: int) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(single_state("AutoEncoder", seed), file)

    run = tmp_path / "run"
    put("run/checkpoint_900.pt", 1)
    put("run/checkpoint_1000.pt", 2)
    assert weights_file(run).name == "checkpoint_1000.pt"
    put("run/model_final.pt", 3)
    assert weights_file(run).name == "model_final.pt"
    assert weights_file(run / "checkpoint_900.pt").name == "checkpoint_900.pt"
    put("sweep/trainer_0/ae.pt", 4)
    put("sweep/trainer_0/checkpoints/ae_5.pt", 5)
    put("sweep/trainer_1/ae.pt", 6)
    (tmp_path / "sweep/trainer_0/config.json").write_text('{"trainer": {"k": 3}}')
    assert find(tmp_path / "sweep/trainer_0/checkpoints/ae_5.pt").setting("k") == 3
    assert weights_file(tmp_path / "sweep/trainer_0").name == "ae.pt"
    with pytest.raises(DictionaryError, match=r"in folders \(trainer_0, trainer_1\); name one"):
        weights_file(tmp_path / "sweep")
    put("mixed/one.pt", 1)
    assert weights_file(tmp_path / "mixed").name == "one.pt"
    put("mixed/two.pt", 1)
    with pytest.raises(DictionaryError, match=r"several weight files \(one\.pt, two\.pt\)"):
        weights_file(tmp_path / "mixed")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DictionaryError, match="holds no weight file"):
        weights_file(tmp_path / "empty")
    with pytest.raises(DictionaryError, match="no such file or folder"):
        weights_file(tmp_path / "nowhere")


def test_an_ordered_dict_and_one_inside_are_read(tmp_path: Path) -> None:
    state = single_state("AutoEncoder")
    torch.save({"state_dict": OrderedDict(state), "step": 3}, tmp_path / "ae.pt")
    assert same_bits(find(tmp_path).tensors, state)


def test_one_of_two_with_the_same_keys(tmp_path: Path) -> None:
    torch.save(single_state("AutoEncoderTopK"), tmp_path / "ae.pt")
    with pytest.raises(DictionaryError, match="--kind AutoEncoderTopK or --kind BatchTopKSAE"):
        import_dictionary(tmp_path)
    assert import_dictionary(tmp_path, kind="AutoEncoderTopK").dictionary.activation.kind == "topk"
    batch = import_dictionary(tmp_path, kind="BatchTopKSAE").dictionary
    assert batch.activation.kind == "batch_topk"
    with pytest.raises(DictionaryError, match="has the keys of AutoEncoderTopK or BatchTopKSAE"):
        import_dictionary(tmp_path, kind="AutoEncoder")
    (tmp_path / "config.json").write_text('{"trainer": {"trainer_class": "TopKTrainer"}}')
    assert import_dictionary(tmp_path).source["kind"] == "AutoEncoderTopK"


def test_topk_without_k(tmp_path: Path) -> None:
    state = single_state("AutoEncoderTopK")
    del state["k"], state["threshold"]
    torch.save(state, tmp_path / "ae.pt")
    with pytest.raises(DictionaryError, match="no k in it or beside it"):
        import_dictionary(tmp_path)


def test_the_class_of_a_dfc_in_its_config_is_wrong(tmp_path: Path) -> None:
    torch.save(layered_state(DEDICATED[1]), tmp_path / "model_final.pt")
    (tmp_path / "config.json").write_text('{"dict_class": "BatchTopKCrossCoder"}')
    assert import_dictionary(tmp_path).source["kind"] == DEDICATED[1]


def test_a_partition_that_only_the_config_holds(tmp_path: Path) -> None:
    state = layered_state(DEDICATED[1])
    partition = state.pop("_partition_config")
    torch.save(state, tmp_path / "model_final.pt")
    (tmp_path / "config.json").write_text(json.dumps(partition))
    imported = import_dictionary(tmp_path)
    assert imported.source["kind"] == DEDICATED[1]
    assert [group.size for group in imported.dictionary.partition.groups] == [3, 12, 5]
    shares = dict.fromkeys(("model_a_exclusive_pct", "model_b_exclusive_pct"), 0.0)
    (tmp_path / "config.json").write_text(json.dumps({**partition, **shares}))
    assert import_dictionary(tmp_path).source["kind"] == "BatchTopKCrossCoder"


@pytest.mark.parametrize("what", ["encoder", "decoder"])
def test_forbidden_weights_are_refused(tmp_path: Path, what: str) -> None:
    state = layered_state(DEDICATED[0])
    if what == "encoder":
        state["encoder.weight"][0, 2, 4] = -0.125  # A must not read feature 4 of B
    else:
        state["decoder.weight"][1, 1, 3] = -0.125  # B must not write feature 1 of A
    torch.save(state, tmp_path / "ae.pt")
    layer = int(what == "decoder")
    message = rf"{what}\.weight\[{layer}\] has 1 weights other than 0 .* \(largest 0\.125\)"
    with pytest.raises(DictionaryError, match=message):
        import_dictionary(tmp_path)


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        ({**PARTITION, "dict_size": 21}, "21 features, the weights of 2 and 20"),
        ({**PARTITION, "model_a_exclusive_pct": 0.9}, "gives 0.9 and 0.29 of 20"),
        ({"dict_size": 20}, "without dict_size"),
    ],
)
def test_partitions_that_do_not_fit(
    tmp_path: Path, partition: dict[str, Any], message: str
) -> None:
    state = {**layered_state(DEDICATED[0]), "_partition_config": partition}
    torch.save(state, tmp_path / "ae.pt")
    with pytest.raises(DictionaryError, match=message):
        import_dictionary(tmp_path)


def test_unknown_normalization_and_threshold_shape(tmp_path: Path) -> None:
    state = layered_state("BatchTopKCrossCoder")
    torch.save({**state, "threshold": torch.ones(2)}, tmp_path / "ae.pt")
    with pytest.raises(DictionaryError, match=r"threshold has shape \(2,\), not \(\)"):
        import_dictionary(tmp_path)
    torch.save({**state, "code_normalization_id": torch.tensor(9)}, tmp_path / "ae.pt")
    with pytest.raises(DictionaryError, match="code_normalization_id 9 is none of"):
        import_dictionary(tmp_path)


def test_names_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(layered_state(DEDICATED[0]), tmp_path / "ae.pt")
    with pytest.raises(DictionaryError, match="needs two different names"):
        import_dictionary(tmp_path, models=("a", "a"))
    with pytest.raises(DictionaryError, match="3 named"):
        import_dictionary(tmp_path, models=("a", "b", "c"))
    with pytest.raises(DictionaryError, match="names one twice"):
        import_dictionary(tmp_path, hookpoints=("x", "x"))


def test_a_dictionary_of_this_project_is_told(tmp_path: Path) -> None:
    torch.save(single_state("AutoEncoder"), tmp_path / "ae.pt")
    imported = import_dictionary(tmp_path)
    save_dictionary(tmp_path / "own", imported.dictionary, {})
    with pytest.raises(DictionaryError, match="is a dictionary of this project already"):
        import_dictionary(tmp_path / "own")


def test_a_config_that_is_not_json(tmp_path: Path) -> None:
    safetensors.torch.save_file(single_state("AutoEncoder"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DictionaryError, match=r"config\.json: cannot be read as JSON"):
        import_dictionary(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"activation_dim": 6}))
    assert import_dictionary(tmp_path).source["kind"] == "AutoEncoder"
