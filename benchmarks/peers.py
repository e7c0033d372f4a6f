"""Other simulators, each in an interpreter that has it: rounds of the federation that `overhead.py` measures.

    python -m venv peers
    peers/bin/pip install -c constraints.txt torch==2.13.0 "flwr[simulation]"
    peers/bin/pip install scikit-learn munch pynvml multiprocess scipy pandas tqdm "dp-accounting<0.6"
    peers/bin/pip install --no-deps fedlab==1.3.0 pfl==0.6.0 "prv-accountant<0.3"
    THINWIRE_PEERS=peers/bin/python python -m benchmarks overhead

Run as `peers.py NAME SETTING.json`: a line on standard input asks for a round, a line on standard output says that it
is over, and with which simulator. None of them makes a byte of a frame. Each trains by its own loop, as its
documentation shows it, with the same model and batches of the same size; Flower with as many clients side by side as
`processes`, polled as it polls.
"""

import json
import os
import random
import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from thinwire.machine import cores
from thinwire.models import build

CLASSES = 10
ROUNDS = 10**6  # until nobody asks any more


class Turns:
    """Waits to be asked for a round, says when it is over."""

    def __init__(self, out, peer):
        self.out, self.peer = out, peer

    def wait(self):
        """Ends the process when nobody asks any more."""
        if not sys.stdin.readline():
            os._exit(0)

    def over(self):
        """Names the simulator."""
        self.out.write(f"{self.peer}\n")
        self.out.flush()


class Federation:
    """The samples and the numbers of a setting."""

    def __init__(self, path):
        self.__dict__.update(json.loads(Path(path).read_text()))
        stored = np.load(self.samples)
        self.x, self.y = torch.from_numpy(stored["x"]), torch.from_numpy(stored["y"])

    def network(self):
        """The model that is trained."""
        return build(self.model, tuple(self.x.shape[1:]), CLASSES)

    def part(self, client):
        """A client's samples."""
        own = slice(client * self.images, (client + 1) * self.images)
        return self.x[own], self.y[own]

    def batches(self, client):
        """A client's samples in batches, in random order."""
        x, y = self.part(client)
        return [(x[chosen], y[chosen]) for chosen in torch.randperm(len(y)).split(self.batch)]


def fedlab(federation, turns):
    """FedLab's serial trainer and synchronous handler."""
    sys.modules.update({name: types.ModuleType(name) for name in ("torchvision", "torchvision.transforms")})
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]
    from fedlab.contrib.algorithm.fedavg import FedAvgSerialClientTrainer, FedAvgServerHandler
    from fedlab.core.standalone import StandalonePipeline

    class Parts:
        """As the trainer asks for them."""

        def get_dataloader(self, client, batch_size):
            """Batches in memory: quicker than a DataLoader."""
            return federation.batches(client)

    class Rounds(StandalonePipeline):
        """A turn ends where it would evaluate, the next begins there."""

        def evaluate(self):
            turns.over()
            turns.wait()

    trainer = FedAvgSerialClientTrainer(federation.network(), federation.clients)
    trainer.setup_dataset(Parts())
    trainer.setup_optim(1, federation.batch, federation.lr)
    handler = FedAvgServerHandler(federation.network(), ROUNDS, federation.cohort / federation.clients)
    handler.num_clients = federation.clients
    turns.wait()
    Rounds(handler, trainer).main()


def pfl(federation, turns):
    """pfl-research's simulated backend, one process."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics, Weighted
    from pfl.model.pytorch import PyTorchModel

    network = federation.network()
    network.loss = lambda x, y, **more: cross_entropy(network(x), y)
    network.metrics = lambda x, y, **more: {"loss": Weighted(cross_entropy(network(x), y).item(), len(y))}

    class Rounds(TrainingProcessCallback):
        """A turn ends after a central iteration."""

        def after_central_iteration(self, *anything, **more):
            turns.over()
            turns.wait()
            return False, Metrics()

    users = FederatedDataset(
        lambda client: Dataset(raw_data=federation.part(client)), lambda: random.randrange(federation.clients)
    )
    model = PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=1.0))
    turns.wait()
    FederatedAveraging().run(
        NNAlgorithmParams(ROUNDS, evaluation_frequency=ROUNDS, train_cohort_size=federation.cohort, val_cohort_size=0),
        SimulatedBackend(users, users), model,
        NNTrainHyperParams(local_batch_size=federation.batch, local_num_epochs=1, local_learning_rate=federation.lr),
        NNEvalHyperParams(local_batch_size=None), [Rounds()],
    )  # fmt: skip


def flower(federation, turns):
    """Flower's simulation engine with its FedAvg strategy."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    client, server = ClientApp(), ServerApp()
    samples, shape = federation.__dict__.copy(), tuple(federation.x.shape[1:])
    del samples["x"], samples["y"]

    @client.train()
    def train(message, context):
        torch.set_num_threads(1)
        images, batch = samples["images"], samples["batch"]
        own = slice(context.node_config["partition-id"] * images, (context.node_config["partition-id"] + 1) * images)
        x, y = _stored(samples["samples"])
        x, y = torch.from_numpy(x[own]), torch.from_numpy(y[own])
        network = build(samples["model"], shape, CLASSES)
        network.load_state_dict(message.content["arrays"].to_torch_state_dict())
        solver = torch.optim.SGD(network.parameters(), lr=samples["lr"])
        for chosen in torch.randperm(len(y)).split(batch):
            cross_entropy(network(x[chosen]), y[chosen]).backward()
            solver.step()
            solver.zero_grad()
        content = {"arrays": ArrayRecord(network.state_dict()), "metrics": MetricRecord({"num-examples": len(y)})}
        return Message(RecordDict(content), reply_to=message)

    class Rounds(FedAvg):
        """A turn is from the choice of the clients to their mean."""

        def configure_train(self, *arguments):
            """Asks first."""
            turns.wait()
            return super().configure_train(*arguments)

        def aggregate_train(self, *arguments):
            """Tells."""
            found = super().aggregate_train(*arguments)
            turns.over()
            return found

    @server.main()
    def main(grid, context):
        share = federation.cohort / federation.clients
        strategy = Rounds(fraction_train=share, fraction_evaluate=0.0, min_train_nodes=federation.cohort,
                          min_available_nodes=federation.clients)  # fmt: skip
        strategy.start(grid, ArrayRecord(federation.network().state_dict()), num_rounds=ROUNDS)

    resources = {"num_cpus": cores() / federation.processes}
    run_simulation(server, client, federation.clients, backend_config={"client_resources": resources})


_KEPT = {}


def _stored(path):
    """A worker's images, read once."""
    if path not in _KEPT:
        stored = np.load(path)
        _KEPT[path] = stored["x"], stored["y"]
    return _KEPT[path]


PEERS = {"fedlab": fedlab, "pfl": pfl, "flwr": flower}  # by the package that they need

if __name__ == "__main__":
    torch.set_num_threads(1)
    turns = Turns(os.fdopen(os.dup(1), "w"), sys.argv[1])
    os.dup2(2, 1)  # what the simulators print is no answer
    PEERS[sys.argv[1]](Federation(sys.argv[2]), turns)
