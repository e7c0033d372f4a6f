"""`pytest tests/golden --regenerate-goldens` writes goldens.json anew; without it a missing golden fails."""

import json
from pathlib import Path

import pytest

GOLDENS = Path(__file__).parent / "goldens.json"


def pytest_addoption(parser):
    parser.addoption("--regenerate-goldens", action="store_true", help="write tests/golden/goldens.json anew")


@pytest.fixture(scope="session")
def goldens(request):
    """`goldens(name, value)`: assert that a value is the stored one."""
    stored = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else {}
    writing = request.config.getoption("--regenerate-goldens", default=False)

    def check(name, value):
        if writing:
            stored[name] = value
        assert name in stored, f"no golden {name}: look at the bytes, then run with --regenerate-goldens"
        assert value == stored[name], f"{name}: the bytes have changed; changed bytes need a new id or version"

    yield check
    if writing:
        GOLDENS.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
