"""The ServerApp: Flower's quickstart, and one line."""

from __future__ import annotations

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from thin import task
from thinwire.flower import Compressed

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for as many rounds as the run's configuration says."""
    config = context.run_config
    strategy = FedAvg(fraction_evaluate=config["fraction-evaluate"])
    strategy = Compressed(strategy, task.CODEC)  # this line is new
    run(strategy, grid, config)


def run(strategy: Strategy, grid: Grid, config: dict) -> Result:
    """One training; nodes are told all that they need to know."""
    torch.manual_seed(config["seed"])
    told = {name: config[name] for name in ("data", "seed", "batch-size", "local-epochs")}
    return strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(task.net(config["data"]).state_dict()),
        num_rounds=config["num-server-rounds"],
        train_config=ConfigRecord({**told, "lr": config["learning-rate"]}),
        evaluate_config=ConfigRecord(told),
        evaluate_fn=lambda round, arrays: evaluate(config["data"], arrays),
    )


def evaluate(data: str, arrays: ArrayRecord) -> MetricRecord:
    """Loss and accuracy of the global model on the test set."""
    model = task.net(data)
    model.load_state_dict(arrays.to_torch_state_dict())
    loss, accuracy = task.test(model, task.loader(task.dataset(data).test, 500))
    return MetricRecord({"loss": loss, "accuracy": accuracy})
