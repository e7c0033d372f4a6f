import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))  # where `toyworld` is


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SUITE = """
[entries.floor]
method = { name = "fedavg" }
[entries.half]
method = { name = "fedavg" }
uplink = { id = "float16" }
downlink = { id = "float16" }
[entries.thin]
method = { name = "fedavg" }
uplink = { id = "stc", keep = 0.1, error_feedback = true }
downlink = { id = "stc", keep = 0.3 }
[entries.masks]
method = { name = "fedpm" }
local = { optimizer = "adam", lr = 0.1 }
"""


@pytest.fixture
def suite(tmp_path):
    """The path of a suite of four candidates."""
    (tmp_path / "suite.toml").write_text(SUITE)
    return str(tmp_path / "suite.toml")
