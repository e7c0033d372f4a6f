"""Before the first round: what a model, its data or a setting cannot do is said in one line, and no folder is left."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toyworld import CLASSES, FEATURES, experiment

from thinwire.errors import ConfigError, DataError
from thinwire.runtime.run import start

STEPS = [0]


class Outside(torch.nn.Module):
    """Depends on how often any model of its kind was called: no part of it, so nobody can put it back."""

    def __init__(self):
        super().__init__()
        self.out = torch.nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        STEPS[0] += 1
        return self.out(x) * (1 + STEPS[0])


class OfPair(torch.nn.Linear):
    """Returns more than logits."""

    def forward(self, x):
        return super().forward(x), x


class Late(torch.nn.Module):
    """Makes a parameter in its first forward pass."""

    def __init__(self):
        super().__init__()
        self.out = torch.nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        if not hasattr(self, "shift"):
            self.shift = torch.nn.Parameter(torch.zeros(CLASSES))
        return self.out(x) + self.shift


class Swaps(torch.nn.Linear):
    """Puts a new parameter in the old one's place: the old one would be trained."""

    def forward(self, x):
        self.weight = torch.nn.Parameter(self.weight.detach() * 0.9)
        return super().forward(x)


class Renews(torch.nn.Linear):
    """Gives a parameter other memory."""

    def forward(self, x):
        self.weight.data = self.weight.data * 0.9
        return super().forward(x)


class DropsGradients(torch.nn.Linear):
    """Clears gradients by itself, and with them the place where the training loop looks for them."""

    def forward(self, x):
        self.zero_grad()
        return super().forward(x)


class Freezes(torch.nn.Linear):
    """Freezes a parameter late."""

    def forward(self, x):
        self.bias.requires_grad_(False)
        return super().forward(x)


def swaps():
    return Swaps(FEATURES, CLASSES)


def renews():
    return Renews(FEATURES, CLASSES)


def drops_gradients():
    return DropsGradients(FEATURES, CLASSES)


def freezes():
    return Freezes(FEATURES, CLASSES)


class DropsInEvaluation(torch.nn.Linear):
    """The usual slip: functional dropout that never stops."""

    def forward(self, x):
        return super().forward(F.dropout(x, 0.5))


def unseeded():
    model = torch.nn.Linear(FEATURES, CLASSES)
    torch.nn.init.normal_(
        model.weight, generator=torch.Generator().manual_seed(int(np.random.default_rng().integers(2**31)))
    )
    return model


class UnseededTable(torch.nn.Module):
    """Looks its samples up in a table that is drawn anew for every model and is no part of its state."""

    def __init__(self, keep):
        super().__init__()
        self.out = torch.nn.Linear(FEATURES, CLASSES)
        table = np.random.default_rng().normal(size=(FEATURES, FEATURES)).astype(np.float32)
        if keep == "buffer":
            self.register_buffer("table", torch.from_numpy(table), persistent=False)
        else:
            self.table = table if keep == "array" else torch.from_numpy(table)

    def forward(self, x):
        return self.out(torch.tanh(x @ torch.as_tensor(self.table)))


def unseeded_buffer():
    return UnseededTable("buffer")


def unseeded_tensor():
    return UnseededTable("tensor")


def unseeded_array():
    return UnseededTable("array")


def of_pair():
    return OfPair(FEATURES, CLASSES)


def nan():
    model = torch.nn.Linear(FEATURES, CLASSES)
    return torch.nn.Sequential(model, torch.nn.Threshold(1e9, float("nan")))


def drops():
    return DropsInEvaluation(FEATURES, CLASSES)


def batch_norm():
    return torch.nn.Sequential(torch.nn.Linear(FEATURES, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, CLASSES))


@pytest.mark.parametrize("method", ["fedavg", "ssfl"])
@pytest.mark.parametrize(("model", "reason"), [
    ("Outside", "two trainings of one client from the same start differ"), ("of_pair", "an output for each class"),
    ("Late", "model tensor shift of Late = 'made in a forward pass'"), ("nan", "finite logits from the start"),
    ("unseeded", "a function that makes the same values each time"),
    ("unseeded_buffer", "a function that makes the same values each time, in attributes too"),
    ("unseeded_tensor", "in attributes too"), ("unseeded_array", "in attributes too"),
    ("swaps", "model tensor weight = 'replaced"), ("renews", "model tensor weight = 'replaced"),
    ("drops_gradients", "model tensor weight = .*its gradient dropped"), ("freezes", "model tensor bias = .*frozen"),
])  # fmt: skip
def test_a_model_that_cannot_be_run_is_refused_before_a_folder_is_made(tmp_path, method, model, reason):
    made = experiment(method, model={"build": f"{__name__}:{model}"})
    with pytest.raises(ConfigError, match=reason) as refused:
        start(made, tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_draws_in_evaluation_are_settled_by_the_seed(tmp_path):
    made = experiment("fedavg", model={"build": f"{__name__}:drops"}, rounds=2)
    runs = [start(made, tmp_path / str(number), workers=1) for number in range(2)]
    assert [entry.loss for entry in runs[0].rounds] == [entry.loss for entry in runs[1].rounds]


def alone():
    """Four samples for client 0, one each for clients 1 and 2, which cannot be normalised."""
    x = np.random.default_rng(0).normal(size=(6, FEATURES)).astype(np.float32)
    return (x, np.arange(6) % CLASSES), (x, np.arange(6) % CLASSES)


def test_clients_that_cannot_train_alone_are_named_or_left_out(tmp_path):
    parts = {"data": {"load": f"{__name__}:alone", "clients": 6, "partition": "iid"}}
    model = {"model": {"build": f"{__name__}:batch_norm"}, "rounds": 1}
    with pytest.raises(DataError, match=r"clients 0, 1, 2, 3, 4, … \(6 of 6\) have one sample each.*more than 1 value"):
        start(experiment("fedavg", **parts, **model), tmp_path / "run")
    assert start(experiment("fedavg", **parts, rounds=1), tmp_path / "plain").rounds[0].clients == 6
    some = {"load": f"{__name__}:alone", "clients": 4, "partition": "iid", "allow_empty": True}
    assert start(experiment("fedavg", data=some, **model), tmp_path / "some").rounds[0].clients == 2
    with pytest.raises(ConfigError, match=r"local\.batch_size = 1: at least 2 for this model"):
        start(experiment("fedavg", **model, local={"batch_size": 1}), tmp_path / "run")


def test_a_single_sample_that_is_left_over_joins_the_batch_before_it(tmp_path):
    made = experiment("fedavg", model={"build": f"{__name__}:batch_norm"}, rounds=1, local={"batch_size": 14})
    assert not start(made, tmp_path / "run").rounds[0].dropped  # 15 samples a client
