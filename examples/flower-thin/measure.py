"""The app as it was and made thin, measured: prints the README's table.

    python measure.py --data digits --rounds 60
    PYTHONPATH=../.. python measure.py --data experiments.subsets:mnist_10000 --rounds 40 --batch-size 32

Every byte is of an Array that the server received. Same seed, same samples, same order of batches; the nodes' updates
are summed in the order in which they arrive, so that a repeated run may differ in an image or two.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.simulation import run_simulation
from thin import client_app, server_app, task

from thinwire.flower import Compressed, compress

FEEDBACK = task.CODEC
NO_FEEDBACK = {"id": "fedzip", "keep": 0.1}
WHAT = {
    "plain": "float32 arrays, Flower's own",
    "feedback": "the two lines: 1 % of the entries, a sign each, positions range-coded; error feedback",
    "none": "10 % of every tensor, 3 centroids, positions range-coded; no error feedback, nodes keep nothing",
}


class Weighed(FedAvg):
    """FedAvg that adds up the bytes of the Arrays which reach it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.up_bytes = 0

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The sum over all replies of the round, then FedAvg's."""
        replies = list(replies)
        held = [record for reply in replies for record in reply.content.array_records.values()]
        self.up_bytes += sum(len(array.data) for record in held for array in record.values())
        return super().aggregate_train(server_round, replies)


@dataclass(frozen=True)
class Measured:
    """Uplink payload of a whole run in bytes; accuracy on the test set after the last round."""

    up_bytes: int
    accuracy: float


def client(*mods: Any) -> ClientApp:
    """The app's own functions behind other mods."""
    app = ClientApp(mods=list(mods))
    app.train()(client_app.train)
    app.evaluate()(client_app.evaluate)
    return app


def variant(name: str) -> tuple[Strategy, ClientApp]:
    """Strategy and ClientApp of a line of the table."""
    if name == "plain":
        return Weighed(fraction_evaluate=0.0), client()
    codec = FEEDBACK if name == "feedback" else NO_FEEDBACK
    mod = compress(codec, error_feedback=name == "feedback")
    return Compressed(FedAvg(fraction_evaluate=0.0), codec), client(mod)


def measure(name: str, clients: int, config: dict[str, Any]) -> Measured:
    """One simulated run."""
    strategy, app = variant(name)
    results, server = [], ServerApp()

    @server.main()
    def main(grid: Any, context: Any) -> None:
        random.seed(config["seed"])
        results.append(server_app.run(strategy, grid, config))

    run_simulation(server, app, num_supernodes=clients, backend_config={"client_resources": {"num_cpus": 1}})
    if isinstance(strategy, Compressed) and strategy.dropped:
        raise SystemExit(f"{len(strategy.dropped)} replies dropped, the first: {strategy.dropped[0]}")
    up_bytes = strategy.up_bytes if isinstance(strategy, Weighed) else strategy.total.up_bytes
    return Measured(up_bytes, results[0].evaluate_metrics_serverapp[config["num-server-rounds"]]["accuracy"])


def table(measured: dict[str, Measured]) -> str:
    """Markdown."""
    dense = measured["plain"].up_bytes
    head = "| | what travels up | uplink payload bytes | × fewer | accuracy |\n| --- | --- | --- | --- | --- |"
    lines = [
        f"| {name} | {WHAT[name]} | {m.up_bytes:,} | {dense / m.up_bytes:.0f} | {100 * m.accuracy:.2f} % |"
        for name, m in measured.items()
    ]
    return "\n".join([head, *lines])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="what thinwire.data.load takes, images of one channel")
    parser.add_argument("--only", nargs="*", default=list(WHAT), choices=tuple(WHAT), help="lines of the table")
    for name, default in (("rounds", 60), ("clients", 10), ("seed", 0), ("local-epochs", 2), ("batch-size", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=0.1)
    return parser.parse_args()


def run() -> None:
    """Measure and print."""
    given = arguments()
    config = {
        "data": given.data, "num-server-rounds": given.rounds, "seed": given.seed, "learning-rate": given.lr,
        "local-epochs": given.local_epochs, "batch-size": given.batch_size,
    }  # fmt: skip
    names = ["plain", *(name for name in given.only if name != "plain")]  # ratios need the plain run
    measured = {name: measure(name, given.clients, config) for name in names}
    print(f"{given.data}, {given.rounds} rounds, {given.clients} nodes, seed {given.seed}\n\n{table(measured)}")


if __name__ == "__main__":
    run()
