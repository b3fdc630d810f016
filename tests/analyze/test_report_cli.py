"""What the report refuses, or leaves out, before it costs anything."""

from pathlib import Path

import pytest

from analyze.baselines import of_two_models
from analyze.report_cli import _refuse_equal_names
from pipeline.errors import ConfigError
from train.dictionary.artifact import save_dictionary
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import single_group


@pytest.mark.parametrize("names", [("x/d", "y/d"), (".", "d"), ("..",)])
def test_baselines_whose_tables_would_lie_in_one_folder_are_refused(names):
    with pytest.raises(ConfigError, match="need names of their own"):
        _refuse_equal_names([Path(name) for name in names])
    _refuse_equal_names([Path("x/d"), Path("y/e")])


def test_a_dictionary_of_one_model_is_no_baseline(tmp_path, dfc_folder):
    sae = Crosscoder((HookpointShape("b", "b", 4),), single_group(("b",), 8))
    save_dictionary(tmp_path, sae, {"recipe": "batch_topk"})
    assert not of_two_models(tmp_path)
    assert of_two_models(dfc_folder)
