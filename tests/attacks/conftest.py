import sys
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).parents[1] / area) for area in ("runtime", "flower")]  # toyworld, flowernodes


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    """Messages of Flower are made in the name of a task, which its runtime sets."""
    try:
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError:  # without the extra
        return
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1, raising=False)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
