"""Running out of memory is an error of a line; other errors stay what they are."""

import pytest
import torch

from pipeline.errors import ModelError
from pipeline.memory import out_of_memory


def test_more_than_all_of_the_cpus_memory():
    with (
        pytest.raises(ModelError, match=r"^models.a: out of memory; lower it$"),
        out_of_memory(ModelError, "models.a", "lower it"),
    ):
        torch.empty(1 << 55, dtype=torch.uint8)


def test_a_devices_memory():
    with (
        pytest.raises(ModelError, match=r"^models.a: out of memory; lower it$"),
        out_of_memory(ModelError, "models.a", "lower it"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_another_error_is_left_alone():
    with (
        pytest.raises(RuntimeError, match=r"^shapes do not match$"),
        out_of_memory(ModelError, "models.a", "lower it"),
    ):
        raise RuntimeError("shapes do not match")
