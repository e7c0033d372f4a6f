"""Tiny data sets, models and runs that the tests of methods, runtime and command line share (`toyworld:blobs`)."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import nn

from thinwire.methods import METHODS, Setup
from thinwire.runtime import faults
from thinwire.runtime.client import Clients
from thinwire.runtime.experiment import merge, parse
from thinwire.runtime.pool import Inline
from thinwire.runtime.progress import Progress
from thinwire.runtime.run import assemble, start
from thinwire.runtime.simulate import Simulation
from thinwire.train import Local

CLASSES, FEATURES = 3, 6


def blobs(samples=60, seed=1):
    """Three Gaussian clouds in six dimensions: ((x, y), (x, y)) for train and test."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 2, (CLASSES, FEATURES))

    def split(count):
        y = np.arange(count) % CLASSES
        return (centres[y] + rng.normal(0, 1, (count, FEATURES))).astype(np.float32), y

    return split(samples), split(30)


def many():
    """Two thousand training samples."""
    return blobs(2000)


def far_test():
    """Test samples, behind those that a trial sees, so far away that no loss on them is finite."""
    (x, y), (test_x, test_y) = blobs()
    test_x[8:] = np.float32(1e38) * np.sign(test_x[8:])
    return (x, y), (test_x, test_y)


class TwoLayers(nn.Module):
    """tanh network of two layers."""

    def __init__(self, inputs=FEATURES, hidden=5, classes=CLASSES):
        super().__init__()
        self.first, self.second = nn.Linear(inputs, hidden), nn.Linear(hidden, classes)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def two_layers():
    return TwoLayers()


def grouped():
    """With GroupNorm: parameters that stay where they are under fedpm."""
    return nn.Sequential(nn.Linear(FEATURES, 4), nn.GroupNorm(2, 4), nn.Tanh(), nn.Linear(4, CLASSES))


def batch_norm():
    """With running statistics."""
    return nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, CLASSES))


def weight_normed():
    """Layers that no mask may touch."""
    first = nn.utils.parametrizations.weight_norm(nn.Linear(FEATURES, 4))
    return nn.Sequential(first, nn.Tanh(), nn.Linear(4, CLASSES))


def norm_alone():
    """Nothing that a mask could choose from."""
    return nn.BatchNorm1d(FEATURES)


class Tied(nn.Module):
    """One weight used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))[:, :CLASSES]


def tied():
    return Tied()


def roomy():
    """Wide enough for factors."""
    return nn.Sequential(nn.Linear(FEATURES, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, CLASSES))


def wide():
    """A double-precision layer, which no method takes."""
    return nn.Linear(FEATURES, CLASSES).double()


def straight():
    """One linear layer, whose outputs grow with its inputs."""
    return nn.Linear(FEATURES, CLASSES)


class Fragile(nn.Linear):
    """Breaks when it is scored, with an error of its own."""

    def forward(self, x):
        if not self.training and len(x) > 8:  # more than a trial scores
            raise IndexError("broken by its own code")
        return super().forward(x)


def fragile():
    return Fragile(FEATURES, CLASSES)


def no_model():
    """A mistake."""
    return 5


DATA = {"load": "toyworld:blobs", "clients": 4}
FEDPM = {"local": {"batch_size": 8}}
FEDAVG = {"method": {"name": "fedavg"}, "local": {"batch_size": 8, "lr": 0.1}}


CASES_OF_WORKERS = {
    "fedavg": ("fedavg", {"data": {"test_fraction": 0.2}}),
    "fedavg + stc": ("fedavg", {"uplink": {"id": "stc", "keep": 0.2, "error_feedback": True}, "rounds": 2}),
    "fedpm": ("fedpm", {"faults": {"sign_flip": 0.25, "drop": 0.2, "replay": 0.2}}),
    "ssfl": ("ssfl", {"method": {"density": 0.5}, "uplink": {"id": "qsgd"}, "data": {"partition": "dirichlet:1.0"}}),
}


def experiment(name="fedpm", **settings):
    """A checked experiment on the toy data: nested settings on top of the defaults here."""
    base = {"seed": 3, "rounds": 3, "device": "cpu", "data": DATA, "model": {"build": "toyworld:two_layers"}}
    own = FEDPM if name == "fedpm" else merge(FEDAVG, {"method": {"name": name}})
    return parse(merge(merge(base, own), settings))


def run(out, name="fedpm", workers=1, on_round=None, **settings):
    """A run into the folder `out`, without a report page."""
    return start(experiment(name, **settings), Path(out), workers=workers, on_round=on_round)


def lines(out):
    """rounds.jsonl without the seconds."""
    rows = [json.loads(line) for line in (Path(out) / "rounds.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def edit_manifests(folder, change):
    """Change what every manifest of a checkpoint says, as if it had been written so."""
    for path in folder.glob("manifest-*.json"):
        manifest = json.loads(path.read_text())
        del manifest["digest"]
        change(manifest)
        digest = sha256(json.dumps(manifest).encode()).hexdigest()[:16]
        path.write_text(json.dumps(manifest | {"digest": digest}))


def model_bytes(out):
    """The model file that a run left."""
    (path,) = Path(out).glob("model.*")
    return path.read_bytes()


def build(method="fedpm", model=two_layers, options=None, **setup):
    """A method of its own, outside a run."""
    setup = {"local": Local(batch_size=8, optimizer="adam", lr=0.1), "seed": 3, "run": 7} | setup
    return METHODS[method](Setup(build=model, **setup), options or {})


class World:
    """A simulation in this process, its parts within reach: play() plays a round, `progress` is where it stands."""

    def __init__(self, name="fedpm", spy=None, **settings):
        self.assembly = assemble(experiment(name, **settings))
        self.method, self.clients = self.assembly.method, self.assembly.clients
        cohort = self.assembly.experiment.cohort
        self.side = Clients(faults.played(self.assembly), self.assembly.client_data, self.assembly.run_id)
        pool = faults.faulty(Inline(self.side), self.assembly)
        self.pool = spy(pool) if spy else pool
        self.simulation = Simulation(
            self.method, self.pool, self.clients, self.assembly.experiment.seed,
            min_replies=cohort.min_replies, without_quorum=cohort.without_quorum, tries=cohort.tries,
            claims=self.assembly.claims,
        )  # fmt: skip
        self.progress = Progress(self.method.init())
        self.total_bytes = 0

    def play(self):
        """One round. -> its line of the ledger."""
        self.progress, work = self.simulation.play(self.progress)
        scores = self.assembly.evaluate(self.method.model(self.progress.server))
        entry = work.entry(scores["accuracy"], scores["loss"], self.total_bytes)
        self.total_bytes = entry.total_bytes
        return entry


class Spy:
    """A pool that writes down all that crosses, and lets a test change the answers."""

    def __init__(self, pool, change=lambda answer: answer):
        self.pool, self.change = pool, change
        self.down, self.up, self.answered = [], [], []
        self.may_be_late = pool.may_be_late

    def begin(self, sync, broadcasts):
        self.broadcasts = broadcasts
        self.pool.begin(sync, broadcasts)

    def answers(self, tasks, enough=None):
        self.down += [4 + len(self.broadcasts[task.broadcast]) for task in tasks]
        self.messages = {task.client: self.broadcasts[task.broadcast] for task in tasks}
        for answer in self.pool.answers(tasks, enough):
            answer = self.change(answer)
            self.up.append(len(answer.frame))
            self.answered.append(answer)
            yield answer

    def close(self):
        self.pool.close()
