"""A linear model as a Flower app, with and without the pair, on a grid that lives in the test."""

import random

import numpy as np
from flowernodes import Nodes
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from thinwire.flower.dropin import Compressed, compress

FEATURES, OUTPUTS, SAMPLES = 12, 5, 40
STC = {"id": "stc", "keep": 0.1}


class Net(Nodes):
    """Nodes that answer in the order of their numbers; the replies of `unheard` ones get lost on the way."""

    def __init__(self, app, clients, **options):
        super().__init__(app, clients, **options)
        self.unheard, self.seen, self.heard = set(), [], []

    def push_messages(self, messages):
        messages = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        self.seen.append({message.metadata.dst_node_id: message.content for message in messages})
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        replies = [r for r in super().pull_messages(message_ids) if r.metadata.src_node_id not in self.unheard]
        self.heard.append({r.metadata.src_node_id: r.content for r in replies if r.has_content()})
        return replies


def record(**arrays):
    return ArrayRecord({key: Array(np.asarray(array)) for key, array in arrays.items()})


def arrays_of(held):
    return {key: array.numpy() for key, array in held.items()}


def linear():
    draw = np.random.default_rng(5)
    return record(
        w=(0.1 * draw.standard_normal((FEATURES, OUTPUTS))).astype(np.float32), b=np.zeros(OUTPUTS, np.float32)
    )


def samples(client):
    draw = np.random.default_rng(100 + client)
    x = draw.standard_normal((SAMPLES + client, FEATURES)).astype(np.float32)
    truth = np.random.default_rng(7).standard_normal((FEATURES, OUTPUTS)).astype(np.float32)
    return x, x @ truth + np.float32(0.1) * draw.standard_normal((len(x), OUTPUTS)).astype(np.float32)


def descend(arrays, client):
    """Five steps of gradient descent on the squared error."""
    x, y = samples(client)
    w, b = arrays["w"].astype(np.float32), arrays["b"].astype(np.float32)
    for _ in range(5):
        error = x @ w + b - y
        w, b = w - np.float32(0.1) * (x.T @ error) / len(x), b - np.float32(0.1) * error.mean(axis=0)
    return {"w": w, "b": b}


def loss(arrays, client):
    x, y = samples(client)
    return float(np.mean((x @ arrays["w"] + arrays["b"] - y) ** 2))


def client_app(mods=(), work=descend, name="arrays", reply=None):
    """work: {key: array}, client -> {key: array}; reply: content, client -> content, instead of it."""
    app = ClientApp(mods=list(mods))

    def trained(content, client):
        return RecordDict({name: record(**work(arrays_of(content[name]), client))})

    @app.train()
    def train(message, context):
        client = context.node_config["partition-id"]
        content = (reply or trained)(message.content, client)
        content["metrics"] = MetricRecord({"num-examples": SAMPLES + client, "loss": float(client)})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message, context):
        scores = {"num-examples": SAMPLES, "norm": float(np.sqrt(sum((a**2).sum() for a in values(message.content))))}
        return Message(RecordDict({"metrics": MetricRecord(scores)}), reply_to=message)

    @app.query()
    def query(message, context):
        return Message(message.content, reply_to=message)

    return app


def values(content):
    return [
        np.abs(array.numpy()).astype(np.float64) for held in content.array_records.values() for array in held.values()
    ]


def run(strategy, app, rounds=3, clients=3, initial=None, net=None, **options):
    """Strategy.start over a net of one's own. -> result, net"""
    random.seed(0)
    net = net or Net(app, clients)
    return strategy.start(net, initial or linear(), num_rounds=rounds, **options), net


def thin(codec, strategy=None, rounds=3, clients=3, initial=None, feedback=True, app=None, net=None, **options):
    """The same with the pair. -> result, strategy, net"""
    strategy = Compressed(strategy or FedAvg(), codec, **options)
    app = app or client_app([compress(codec, error_feedback=feedback)])
    result, net = run(strategy, app, rounds, clients, initial, net)
    return result, strategy, net


def same(a, b):
    """Are two ArrayRecords equal, bit for bit, dtypes and shapes too?"""
    return {k: (v.dtype, v.shape, v.data) for k, v in a.items()} == {
        k: (v.dtype, v.shape, v.data) for k, v in b.items()
    }
