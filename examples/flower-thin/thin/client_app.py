"""The ClientApp: Flower's quickstart, and one line."""

from __future__ import annotations

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from thin import task
from thinwire.flower import compress
from thinwire.rng import integer

app = ClientApp(mods=[compress(task.CODEC)])  # was: ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the global model on the node's own samples."""
    torch.set_num_threads(1)
    config = message.content["config"]
    model = _model(message)
    number, split = context.node_config["partition-id"], _split(config, context)
    shuffle = integer(config["seed"], config["server-round"], number, "batches")
    loss = task.train(model, task.loader(split, config["batch-size"], shuffle), config["local-epochs"], config["lr"])
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(split)})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the global model on the node's own samples."""
    split = _split(message.content["config"], context)
    loss, accuracy = task.test(_model(message), task.loader(split, 500))
    metrics = MetricRecord({"eval_loss": loss, "eval_acc": accuracy, "num-examples": len(split)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _model(message: Message) -> task.Net:
    model = task.net(message.content["config"]["data"])
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return model


def _split(config: ConfigRecord, context: Context) -> task.Split:
    node = context.node_config
    return task.part(config["data"], node["partition-id"], node["num-partitions"], config["seed"])
