import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_kernels_give_the_dense_products():
    pytest.importorskip("triton", reason="there are wheels for Linux only")
    # A process of its own: Triton looks at the variable when it is imported, which torch does.
    found = subprocess.run(
        [sys.executable, "-m", "pytest", Path(__file__).with_name("interpreted_kernels.py")],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout
