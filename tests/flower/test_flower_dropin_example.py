"""examples/flower-thin: one round of the very app, its table, and what Flower makes of its pyproject.toml."""

import random
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from flwr.common.config import validate_config
from thinapp import Net

EXAMPLE = Path(__file__).parents[2] / "examples" / "flower-thin"
CONFIG = {
    "data": "digits", "num-server-rounds": 1, "fraction-evaluate": 1.0, "local-epochs": 1, "learning-rate": 0.1,
    "batch-size": 16, "seed": 0,
}  # fmt: skip


@pytest.fixture
def example(monkeypatch):
    """Its modules, imported as Flower does: from its own folder."""
    monkeypatch.syspath_prepend(EXAMPLE)
    yield import_module
    for name in [name for name in sys.modules if name == "measure" or name.split(".")[0] == "thin"]:
        del sys.modules[name]


def net_of(app):
    return Net(app, 10, node_config={"num-partitions": 10})


def test_flower_example_runs_a_round(example):
    client, server = example("thin.client_app"), example("thin.server_app")
    net = net_of(client.app)
    random.seed(0)

    class Context:
        run_config = CONFIG

    server.app(net, Context())
    (trained, evaluated) = net.heard
    assert len(trained) == len(evaluated) == 10
    assert all(len(content["thinwire"]["frame"].data) < 600 for content in trained.values())
    assert all(dict(content["metrics"])["num-examples"] > 0 for content in evaluated.values())


def test_flower_example_has_two_new_lines():
    lines = [line for path in ("client_app.py", "server_app.py")
             for line in (EXAMPLE / "thin" / path).read_text().splitlines()]  # fmt: skip
    calls = [line for line in lines if ("compress(" in line or "Compressed(" in line)]
    assert len(calls) == 2
    assert all(line in (EXAMPLE / "README.md").read_text() for line in calls)


@pytest.mark.parametrize("name", ["plain", "feedback", "none"])
def test_flower_example_measures_every_line_of_its_table(example, name):
    measure, server = example("measure"), example("thin.server_app")
    strategy, app = measure.variant(name)
    random.seed(0)
    result = server.run(strategy, net_of(app), CONFIG)
    up_bytes = strategy.up_bytes if name == "plain" else strategy.total.up_bytes
    dense = 10 * 4 * sum(p.numel() for p in example("thin.task").net("digits").parameters())
    assert {"plain": 1, "feedback": 200, "none": 30}[name] <= 1.03 * dense / up_bytes
    line = measure.Measured(up_bytes, result.evaluate_metrics_serverapp[1]["accuracy"])
    assert f"| {name} | " in measure.table({"plain": measure.Measured(dense, 0.5), name: line})


def test_flower_example_is_an_app_to_flower():
    import tomllib

    settings = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    valid, errors, _ = validate_config(settings, check_module=True, project_dir=EXAMPLE)
    assert valid, errors
    assert set(settings["tool"]["flwr"]["app"]["config"]) == set(CONFIG)
