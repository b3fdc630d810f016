import pytest

from pipeline.config import load_config

from .sections import FILE


@pytest.fixture
def load(tmp_path):
    """The configuration of a file with this text, and overrides."""

    def read(text=FILE, *overrides):
        file = tmp_path / "my.yaml"
        file.write_text(text)
        return load_config(file, list(overrides))

    return read
