import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory):
    """Runs with functions of their own are marked in the user's state folder: not in that of who runs the tests."""
    before, os.environ["XDG_STATE_HOME"] = os.environ.get("XDG_STATE_HOME"), str(tmp_path_factory.mktemp("state"))
    yield
    os.environ.pop("XDG_STATE_HOME")
    if before is not None:
        os.environ["XDG_STATE_HOME"] = before
