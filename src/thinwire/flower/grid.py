"""A round's clients on Flower: instructions out over the grid, answers in, in the order of the cohort.

`send_and_receive` sleeps three seconds between two looks and has no idea of enough; here messages are pushed, and
replies pulled until all are there, or enough of them, or the round's time is up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from time import monotonic, sleep
from typing import ClassVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from thinwire.errors import DecodeError, shown
from thinwire.flower import messages
from thinwire.runtime.client import Answer, envelope
from thinwire.runtime.experiment import CohortSettings
from thinwire.runtime.pool import Task

log = logging.getLogger("flwr.thinwire")

HELLO_SECONDS = 60.0  # for an answer to the question of who a node is; then it is asked again
NEWCOMER_SECONDS = 10.0  # that a round waits for that answer though all that it needs are there; nodes poll every three
UNHEARD = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)
SHORTEST, LONGEST, GROWTH = 0.02, 1.0, 1.3  # seconds between two looks for replies


class GridPool:
    """Clients on SuperNodes: one node a client, found by asking every node who it is."""

    may_be_late: ClassVar[bool] = True

    def __init__(self, grid: Grid, run: int, clients: Sequence[int], settings: CohortSettings) -> None:
        self.grid, self.run, self.clients, self.settings = grid, run, frozenset(clients), settings
        self.nodes: dict[int, int] = {}  # client -> node, the first to say so of those that are there
        self.asked: dict[str, tuple[int, float]] = {}  # open question of who it is -> node, until when
        self.claims: dict[int, int | None] = {}  # node -> the client that it says it is, None if it was refused
        self.contested: set[int] = set()  # nodes whose client another one says it is, until they answer again
        self.silent: set[int] = set()  # nodes that let a round wait for nothing
        self.broadcasts: Sequence[bytes] = ()
        self.waited = False

    def begin(self, sync: bytes, broadcasts: Sequence[bytes]) -> None:
        """Start a round; nodes bring themselves to the current version."""
        self.broadcasts = broadcasts

    def close(self) -> None:
        """Nothing to end: the nodes are Flower's."""

    # who is there ----------------------------------------------------------------------------------------------------

    def _gather(self, wanted: set[int], enough: int) -> None:
        """Meet the nodes until enough of those wanted are there; wait in the first round, later for answers only.

        A newcomer is heard first, for a while, even if nobody is missing: it may stand in for a node that died. Where
        it says that it is a client that a node is already, that one is asked again, and keeps its place if it answers.
        """
        start, pause = monotonic(), SHORTEST
        join = 0 if self.waited else self.settings.join_timeout
        answering = min(HELLO_SECONDS, self.settings.round_timeout)
        while True:
            self._meet()
            missing = len(wanted & self.nodes.keys()) < enough
            fresh = {node for node, _ in self.asked.values()} - self.silent
            patient = answering if missing or self.contested else min(answering, NEWCOMER_SECONDS)
            hearing = patient if fresh else 0
            if monotonic() - start >= max(hearing, join if missing else 0):
                break
            sleep(pause)
            pause = min(LONGEST, GROWTH * pause)
        for node in self.contested & self.claims.keys():
            self._doubt(node)
        self._settle()
        self.contested = set()
        self.silent |= fresh
        self.waited = True

    def _meet(self) -> None:
        """Forget the nodes that left, ask those that came who they are, hear those that answer.

        A question stays open while the run goes on, and is asked again when its time is up.
        """
        present = set(self.grid.get_node_ids())
        self.claims = {node: client for node, client in self.claims.items() if node in present}
        self.asked = {q: (node, end) for q, (node, end) in self.asked.items() if node in present and monotonic() < end}
        self._settle()
        self._ask(sorted(present - self.claims.keys() - {node for node, _ in self.asked.values()}))
        for reply in self.grid.pull_messages(list(self.asked)) if self.asked else ():
            node, _ = self.asked.pop(reply.metadata.reply_to_message_id, (None, 0.0))
            if node is not None and not (reply.has_error() and reply.error.code in UNHEARD):
                self.silent.discard(node)
                self.contested.discard(node)
                claim = self._claim(node, reply)
                if self.claims.get(node, claim) != claim:
                    self._doubt(node)  # what it says now, others may have said before
                self.claims[node] = claim
                self._settle()

    def _settle(self) -> None:
        """Each client's node: the first to say so."""
        self.nodes = {}
        for node, client in self.claims.items():
            if client is not None:
                self.nodes.setdefault(client, node)

    def _ask(self, nodes: Sequence[int]) -> None:
        """Ask nodes who they are."""
        sent = self._push([messages.hello(node, self.run, HELLO_SECONDS) for node in nodes])
        self.asked |= {question: (node, monotonic() + HELLO_SECONDS) for question, node in sent.items()}

    def _claim(self, node: int, reply: Message) -> int | None:
        """The client that a node says it is, if that is one of this run's."""
        words = {} if reply.has_error() else messages.words_of(reply.content)
        client = words.get("client")
        if type(client) is int and client in self.clients:
            return self._bound(node, client)
        reason = reply.error.reason if reply.has_error() else words.get("refused", f"it is client {client!r}")
        log.warning("node %d takes no part: %s", node, shown(reason))
        return None

    def _bound(self, node: int, client: int) -> int | None:
        """The client, if the node's key is not another one's; a word where another node is that client already."""
        if self.settings.keys:
            own = self.settings.keys.get(_key(self.grid, node))
            if own != client:
                whose = "is not in cohort.keys" if own is None else f"is client {own}'s in cohort.keys"
                log.warning("node %d takes no part: it says that it is client %d, its key %s", node, client, whose)
                return None
        first = self.nodes.get(client, node)
        if first != node and self.claims.get(node) != client:
            text = "node %d says that it is client %d, as node %d does: it takes no part while that one is there"
            log.warning(text, node, client, first)
            self.contested.add(first)
            self._ask([first])
        return client

    def _doubt(self, node: int) -> None:
        """A node that did not answer, or says another thing, stands behind others that say the same of themselves."""
        self.claims[node] = self.claims.pop(node)

    # a round ---------------------------------------------------------------------------------------------------------

    def answers(self, tasks: Sequence[Task], enough: int | None = None) -> Iterator[Answer]:
        """Answers in the order of the tasks; clients without a node, or too late, have failed."""
        enough = len(tasks) if enough is None else enough
        self._gather({task.client for task in tasks}, enough)
        sent = [self._instruction(task) for task in tasks if task.client in self.nodes]
        replies = self._exchange(sent, enough, self.settings.round_timeout)
        for task in tasks:
            node = self.nodes.get(task.client)
            yield self._answer(task.client, node, replies) if node in replies else self._missing(task.client, replies)

    def _instruction(self, task: Task) -> Message:
        message = envelope(task.accepted, self.broadcasts[task.broadcast])
        return messages.instruction(self.nodes[task.client], task.purpose, message, self.settings.round_timeout)

    def _answer(self, client: int, node: int | None, replies: Mapping[int, Message]) -> Answer:
        assert node is not None
        reply = replies[node]
        if reply.has_error():
            return Answer(client, "failed", reason=shown(f"node {node}: {reply.error.reason}"))
        try:
            answer = messages.answer_of(client, reply.content)
            return replace(answer, status="failed") if answer.status == "stop" else answer  # one node ends no run
        except DecodeError as error:
            return Answer(client, "failed", reason=str(error))

    def _missing(self, client: int, replies: Mapping[int, Message]) -> Answer:
        if client not in self.nodes:
            return Answer(client, "failed", reason="no node has said that it is this client")
        return Answer(client, "failed", reason=f"no reply when the round ended, {len(replies)} were there")

    def _exchange(self, sent: Sequence[Message], enough: int, seconds: float) -> dict[int, Message]:
        """Push messages, pull replies by node until enough good ones are there, all, or the time is up."""
        deadline, pause, good = monotonic() + seconds, SHORTEST, 0
        waiting, replies = self._push(sent), dict[int, Message]()
        while waiting and good < enough and monotonic() < deadline:
            for reply in self.grid.pull_messages(list(waiting)):
                node = waiting.pop(reply.metadata.reply_to_message_id, None)
                if node is not None:
                    replies[node] = reply
                    good += not reply.has_error()
                    pause = SHORTEST
            sleep(pause if waiting and good < enough else 0)
            pause = min(LONGEST, GROWTH * pause)
        unheard = [node for node, reply in replies.items() if reply.has_error() and reply.error.code in UNHEARD]
        for node in [*unheard, *(waiting.values() if good < enough else ())]:
            self._doubt(node)
        return replies

    def _push(self, sent: Sequence[Message]) -> dict[str, int]:
        """Node by message id, of the messages that the SuperLink took."""
        taken = set(self.grid.push_messages(sent)) if sent else set()
        nodes = {message.metadata.message_id: message.metadata.dst_node_id for message in sent}
        return {number: node for number, node in nodes.items() if number in taken}


def _key(grid: Grid, node: int) -> str:
    """The public key that a node is authenticated by, as `cohort.keys` has it; empty where there is none."""
    found = next((info.public_key for info in grid.get_nodes() if info.node_id == node), b"")
    try:
        return " ".join(
            load_pem_public_key(found).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode().split()[:2]
        )
    except (ValueError, UnsupportedAlgorithm):
        return ""
