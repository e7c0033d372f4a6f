"""A trial before the first round: whatever a model of somebody's own cannot do is said then, in one line.

Two clients train on a few samples, the first three times: equal frames show that nothing in the model outlives a
client. Then everything that a run does at its end is done to the untrained model: score it, ship it, read it back. Two
models that the file was read into must score alike: equal weights in different models would show here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from thinwire import modelfile
from thinwire.errors import ConfigError, ThinwireError, TrainingError, line
from thinwire.methods import Data
from thinwire.purity import drawing, restored
from thinwire.runtime.assembly import Assembly
from thinwire.runtime.state import arrays_to_bytes
from thinwire.tensors import digest
from thinwire.train import evaluate
from thinwire.versions import Held

SAMPLES = 8  # that a client trains on, at most


def try_out(assembly: Assembly) -> None:
    """ConfigError names what the model, the data or a setting cannot do."""
    source = assembly.experiment.model.source
    try:
        with restored(assembly.device):
            models = _build(assembly)
            _score(assembly)
            _train(assembly)
            _ship(assembly, models)
    except TrainingError:
        return  # of a loss that is not finite the run's own first round tells
    except ThinwireError:
        raise
    except Exception as error:  # whatever a model of one's own raises
        allowed = f"a model that trains on samples of shape {assembly.dataset.shape}"
        raise ConfigError("model", source, f"{allowed} ({line(error)})") from error


def _build(assembly: Assembly) -> list[nn.Module]:
    """Two fresh models; ConfigError unless the model's function makes the same values each time."""
    models = [assembly.fresh() for _ in range(2)]
    _check_alike(assembly, [digest(model) for model in models])
    return models


def _check_alike(assembly: Assembly, found: Sequence[object]) -> None:
    """ConfigError unless what was found of two fresh models is the same."""
    first, second = found
    if first != second:
        allowed = (
            "a function that makes the same values each time, in attributes too: drawn from torch's, numpy's or "
            "Python's global generators, which the run seeds"
        )
        raise ConfigError("model", assembly.experiment.model.source, allowed)


def _train(assembly: Assembly) -> None:
    """ConfigError when a client's second training from the same start gives other bytes than its first."""
    method, clients = assembly.method, assembly.clients
    start = method.receive(method.broadcast(method.init(), None), None, None)
    asked = (clients[0], clients[-1], clients[0], clients[0])
    first, _, *again = (_trained(assembly, start, client) for client in asked)
    source = assembly.experiment.model.source
    if any(other != first for other in again) and assembly.device == "cpu":
        allowed = (
            "a forward pass of weights, buffers and samples alone: two trainings of one client from the same start "
            "differ (state that cannot be put back, or a source of random numbers of its own)"
        )
        raise ConfigError("model", source, allowed)


def _trained(assembly: Assembly, held: Held, client: int) -> tuple[bytes, bytes, float]:
    """What a client would send and keep after training on a few of its samples, and its loss."""
    data = assembly.client_data(client)
    few = Data(client, data.x[:SAMPLES], data.y[:SAMPLES])
    frame, kept, metrics = assembly.method.train(held, assembly.method.client_init(client), few)
    if not np.isfinite(metrics["loss"]):
        raise TrainingError("the loss is not finite")
    return frame, arrays_to_bytes(kept), metrics["loss"]


def _score(assembly: Assembly) -> None:
    """ConfigError unless the untrained model makes a finite loss on samples of the test split."""
    method, test = assembly.method, assembly.dataset.test
    loss = evaluate(method.model(method.init()), test.x[:SAMPLES], test.y[:SAMPLES])["loss"]
    if not np.isfinite(loss):
        allowed = f"finite logits from the start: the untrained model's loss on samples of the test split is {loss}"
        raise ConfigError("model", assembly.experiment.model.source, allowed)


def _ship(assembly: Assembly, models: Sequence[nn.Module]) -> None:
    """Ship the untrained model, read it back into fresh ones and score them.

    ConfigError when they differ: in what the file does not hold, attributes or buffers that are not persistent.
    """
    method, test = assembly.method, assembly.dataset.test
    shipped, scores = method.ship(method.init(), assembly.description), []
    for model in models:
        with drawing(assembly.experiment.seed):
            loaded = modelfile.read(shipped, model)
            scores.append(str(evaluate(loaded, test.x[:SAMPLES], test.y[:SAMPLES])))  # NaN is equal to NaN
    _check_alike(assembly, scores)
