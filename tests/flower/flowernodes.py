"""A grid whose nodes live in the test: messages become bytes and come back as on a wire; nodes can be lost."""

from itertools import count

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from thinwire.runtime.client import Answer


def over_the_wire(message):
    """The message as the other side makes it of the bytes."""
    objects = {number: part.deflate() for number, part in get_all_nested_objects(message).items()}
    return inflate_object_from_contents(message.object_id, objects)


class Nodes(Grid):
    """One ClientApp on so many nodes.

    `lost`: nodes that say who they are and then never reply; `silent`: nodes that do not even say that;
    `change(node, reply)` tampers with replies.
    """

    def __init__(self, app, clients, run_config=None, node_config=None):
        self.app, self.run_config, self.node_config = app, run_config or {}, node_config or {}
        self.contexts = {}
        self.lost, self.silent, self.change = set(), set(), lambda node, reply: reply
        self.replies, self.numbers = {}, count(1)
        self.asked = []
        for client in range(clients):
            self.join(client)

    def join(self, client, **config):
        """A node with a fresh memory for a client. -> its number"""
        node = 1000 + len(self.contexts) + next(self.numbers)
        config = {"partition-id": client, **self.node_config, **config}
        self.contexts[node] = Context(0, node, config, RecordDict(), dict(self.run_config))
        return node

    def node_of(self, client):
        return max(node for node, context in self.contexts.items() if context.node_config["partition-id"] == client)

    def leave(self, client):
        del self.contexts[self.node_of(client)]

    def set_run(self, run):
        pass

    run = property(lambda self: None)

    def create_message(self, *arguments, **options):
        raise NotImplementedError

    def get_node_ids(self):
        return list(self.contexts)

    def push_messages(self, messages):
        taken = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(next(self.numbers))
            taken.append(message.metadata.message_id)
            self.asked.append((message.metadata.dst_node_id, message.metadata.message_type))
            query = message.metadata.message_type == "query"
            if message.metadata.dst_node_id not in (self.silent if query else self.lost):
                self.replies[taken[-1]] = self._serve(message)
        return taken

    def _serve(self, message):
        node, crossed = message.metadata.dst_node_id, over_the_wire(message)
        crossed.metadata.__dict__["_message_id"] = message.metadata.message_id
        try:
            reply = self.app(crossed, self.contexts[node])
        except Exception as error:
            reply = Message(Error(code=0, reason=f"{type(error).__name__}: {error}"), reply_to=message)
        return self.change(node, over_the_wire(reply) if reply.has_content() else reply)

    def pull_messages(self, message_ids):
        return [self.replies.pop(number) for number in list(message_ids) if number in self.replies]

    def send_and_receive(self, messages, *, timeout=None):
        return self.pull_messages(self.push_messages(list(messages)))


class Tape:
    """A pool that writes down every frame that crosses, in order."""

    def __init__(self, pool):
        self.pool, self.may_be_late, self.frames = pool, pool.may_be_late, []

    def begin(self, sync, broadcasts):
        self.frames += [("down", broadcast) for broadcast in broadcasts]
        self.pool.begin(sync, broadcasts)

    def answers(self, tasks, enough=None):
        for answer in self.pool.answers(tasks, enough):
            assert isinstance(answer, Answer)
            self.frames.append((answer.client, answer.status, answer.frame))
            yield answer

    def close(self):
        self.pool.close()
