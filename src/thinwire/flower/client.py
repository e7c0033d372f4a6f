"""The client's end on Flower: a ClientApp that does what a simulated client does, with a memory of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from thinwire import __version__
from thinwire.data import Split, split_local
from thinwire.errors import ConfigError, DataError, ThinwireError
from thinwire.flower import messages
from thinwire.flower.memory import Memory
from thinwire.flower.settings import Source, assembly_of
from thinwire.methods import Data
from thinwire.runtime.assembly import Assembly
from thinwire.runtime.client import EVALUATE, TRAIN, Answer, Clients, open_envelope

OwnData = Callable[[Context], Split]


def client_app(experiment: Source, data: OwnData | None = None) -> ClientApp:
    """A ClientApp for an experiment: a file, its settings as a dict, or an Experiment.

    The node's configuration gives `partition-id`, its client's number, and, if its memory shall outlive the
    SuperNode, a `state-dir`. data: the node's own samples instead of a part of the experiment's training set; the
    experiment's data set then gives shape and classes only.
    """
    app = ClientApp()

    @app.query()
    def who(message: Message, context: Context) -> Message:
        return Message(messages.words_record(_introduce(experiment, message, context)), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(_answer(experiment, data, message, context, TRAIN), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(_answer(experiment, data, message, context, EVALUATE), reply_to=message)

    return app


def client_number(assembly: Assembly, context: Context) -> int:
    """The node's partition; ConfigError when its configuration has none that the experiment knows."""
    number, clients = context.node_config.get("partition-id"), assembly.experiment.data.clients
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < clients:
        raise ConfigError("node-config partition-id", number, f"0 to {clients - 1}, a client of the experiment")
    return number


def _introduce(experiment: Source, message: Message, context: Context) -> dict[str, int | str]:
    """Which client this node is, or why it cannot take part."""
    try:
        asked = messages.words_of(message.content)
        if asked.get("version") != __version__:
            return {"refused": f"it has thinwire {__version__}, the server {asked.get('version')}"}
        assembly = assembly_of(experiment, context)
        if asked.get("run") != assembly.run_id:
            return {"refused": "its experiment is not the server's: same file, run-config and data on both sides"}
        return {"client": client_number(assembly, context)}
    except (ThinwireError, OSError) as error:
        return {"refused": str(error)}


def _answer(experiment: Source, data: OwnData | None, message: Message, context: Context, purpose: str) -> RecordDict:
    """What goes back to the server; whatever goes wrong here becomes an answer that says so."""
    try:
        assembly = assembly_of(experiment, context)
        client, envelope = client_number(assembly, context), messages.frame_of(message.content)
        return messages.answer_record(_serve(assembly, data, client, envelope, context, purpose))
    except (ThinwireError, OSError) as error:
        return messages.answer_record(Answer(-1, "failed", reason=str(error)))


def _serve(
    assembly: Assembly, data: OwnData | None, client: int, envelope: bytes, context: Context, purpose: str
) -> Answer:
    """One round or evaluation of this node's client, which remembers what it decoded."""
    torch.set_num_threads(1)  # the same sums in the same order as in one process
    parts = _parts(assembly, data(context), client) if data else (assembly.client_data, assembly.evaluation_data)
    clients = Clients(assembly.method, parts[0], assembly.run_id, parts[1])
    memory = Memory(assembly.method, assembly.run_id, client, context)
    record, clients.replica = memory.load()
    accepted, broadcast = open_envelope(envelope)
    answer = clients.answer(client, record, accepted, broadcast, purpose)
    if purpose == TRAIN and answer.status == "done":
        memory.save(answer.record, clients.receive(broadcast, record.have))
    return answer


def _parts(assembly: Assembly, own: Split, client: int) -> tuple[Callable[[int], Data], Callable[[int], Data]]:
    """A node's own samples: those to train on; those, and those held back."""
    if own.x.shape[1:] != assembly.dataset.train.x.shape[1:]:
        raise DataError(f"own data: samples of shape {own.x.shape[1:]}, {assembly.dataset.train.x.shape[1:]} expected")
    fraction, seed = assembly.experiment.data.test_fraction, assembly.experiment.seed
    train, test = (own.take(rows) for rows in split_local(np.arange(len(own.y)), fraction, seed, client))
    return lambda number: Data(number, train.x, train.y), lambda number: Data(number, train.x, train.y, test.x, test.y)
