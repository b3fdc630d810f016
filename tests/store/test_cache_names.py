from pathlib import Path

import pytest

from pipeline.errors import StoreError
from store.cache_names import MODEL_NAME, CacheName, name_caches

ROOT = Path("/data/activations")


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (
            "gemma-2-2b/fineweb-1m/train/layer_13_out",
            CacheName("gemma_2_2b", "gemma_2_2b.layer_13_out", "fineweb-1m"),
        ),
        (
            "gemma-2-2b/fineweb/layer_13_out",
            CacheName("gemma_2_2b", "gemma_2_2b.layer_13_out", "fineweb"),
        ),
        (
            "Qwen3-0.6B/chat/validation_col_formatedbase/model.layers.2.mlp_in",
            CacheName("qwen3_0_6b", "qwen3_0_6b.model.layers.2.mlp_in", "chat"),
        ),
        ("7B/trainings/l 1_out", CacheName("model_7b", "model_7b.l_1_out", "trainings")),
    ],
)
def test_names_come_from_the_path(path, wanted):
    assert name_caches([ROOT / path], []) == [wanted]


def test_relative_paths_and_dots_mean_the_same(tmp_path, monkeypatch):
    folder = tmp_path / "m/data/train/layer_1_out"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert name_caches([Path(".")], []) == name_caches([Path("../layer_1_out")], [])
    assert name_caches([Path(".")], [])[0].model == "m"


def test_a_path_too_short_for_a_model_still_gives_a_name():
    assert name_caches([Path("/layer_1_out")], [])[0].hookpoint == "model.layer_1_out"


def test_two_hookpoints_of_one_model_share_its_name():
    names = name_caches([ROOT / "m/d/layer_1_out", ROOT / "m/d/layer_2_out"], [])
    assert [name.model for name in names] == ["m", "m"]
    assert [name.hookpoint for name in names] == ["m.layer_1_out", "m.layer_2_out"]


@pytest.mark.parametrize("other", ["/other/base/d/layer_2_out", "/data/activations/Base/d/l_out"])
def test_models_that_only_seem_to_be_one_must_be_told_apart(other):
    folders = [ROOT / "base/d/layer_1_out", Path(other)]
    with pytest.raises(StoreError, match=r"both paths call their model base.*--model"):
        name_caches(folders, [])
    assert [name.model for name in name_caches(folders, ["a", "b"])] == ["a", "b"]
    assert [name.model for name in name_caches(folders, ["a", "a"])] == ["a", "a"]


def test_one_cache_twice_and_two_datasets_of_one_hookpoint_are_refused():
    for other in ("m/d/layer_1_out", "m/e/layer_1_out"):
        with pytest.raises(StoreError, match=r"both are hookpoint m\.layer_1_out"):
            name_caches([ROOT / "m/d/layer_1_out", ROOT / other], [])


@pytest.mark.parametrize("model", ["", "Gemma", "a/b", "../a", "a.b", "2b", "a" * 65])
def test_a_model_name_that_configuration_files_do_not_accept_is_refused(model):
    with pytest.raises(StoreError, match="--model: ") as caught:
        name_caches([ROOT / "m/d/layer_1_out"], [model])
    suggested = str(caught.value).rsplit("such as ", 1)[1].rstrip(")")
    assert MODEL_NAME.fullmatch(suggested)


def test_model_names_are_given_once_per_cache():
    with pytest.raises(StoreError, match=r"--model: 1 names \(a\) for 2 caches"):
        name_caches([ROOT / "m/d/layer_1_out", ROOT / "n/d/layer_1_out"], ["a"])
