"""Who is who: nodes that say they are a client that another node is.

Who attacks: a SuperNode that the SuperLink lets in, with the experiment and its run id, so that its frames are valid;
it says that it is somebody else's client. What must happen: the node that said so first keeps the place while it is
there and answers, the second claim is refused and named in the log; a node that died is replaced all the same; and
where `[cohort] keys` binds public keys to clients, no claim stands against them, not even the first.
"""

import tomllib

import pytest

pytest.importorskip("flwr")

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flowernodes import Nodes
from flwr.proto.node_pb2 import NodeInfo
from test_flower_methods import experiment, on_nodes

from thinwire.errors import ConfigError
from thinwire.flower import client_app, grid
from thinwire.runtime import run as runs
from thinwire.runtime.assembly import assemble
from thinwire.runtime.experiment import parse, to_toml

VICTIM = 1


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Seconds that pass only while the grid sleeps."""
    now = [0.0]
    monkeypatch.setattr(grid, "monotonic", lambda: now[0])
    monkeypatch.setattr(grid, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def play(made, nodes, out, on_round=lambda *_: None):
    """-> the rounds, and for each node how often it was asked to train"""
    rounds = runs.start(made, out / "run", connect=on_nodes(made, nodes), on_round=on_round).rounds
    asked = [node for node, kind in nodes.asked if kind == "train"]
    return rounds, {node: asked.count(node) for node in asked}


@pytest.fixture
def said(caplog):
    caplog.set_level("WARNING", logger="flwr.thinwire")
    return lambda: [record.getMessage() for record in caplog.records]


def test_the_first_claim_holds_and_the_second_is_named(tmp_path, said):
    made = experiment(method="fedavg", rounds=3)
    nodes, joined = Nodes(client_app(made), 3), []

    def join(entry, rounds):
        if entry.round == 1:
            joined.append(nodes.join(VICTIM))

    victim = nodes.node_of(VICTIM)
    rounds, asked = play(made, nodes, tmp_path, join)
    assert [entry.clients for entry in rounds] == [3, 3, 3]
    assert asked[victim] == 3
    assert joined[0] not in asked
    (line,) = said()
    assert line.startswith(f"node {joined[0]} says that it is client 1, as node {victim} does")


def test_two_claims_in_the_first_round_make_one_client(tmp_path, said):
    made = experiment(method="fedavg", rounds=2)
    nodes = Nodes(client_app(made), 3)
    victim, evil = nodes.node_of(VICTIM), nodes.join(VICTIM)
    rounds, asked = play(made, nodes, tmp_path)
    assert [entry.clients for entry in rounds] == [2 + 1] * 2
    assert (asked.get(victim), asked.get(evil)) == (2, None)
    assert len(said()) == 1


def test_a_new_node_a_round_that_claims_the_place_gets_it_in_none(tmp_path, clock):
    made = experiment(method="fedavg", rounds=4)
    nodes = Nodes(client_app(made), 3)
    honest = set(nodes.contexts)
    rounds, asked = play(made, nodes, tmp_path, lambda *_: nodes.join(VICTIM))
    assert [entry.clients for entry in rounds] == [3] * 4
    assert set(asked) == honest
    assert clock[0] < 1  # nobody waits for it


def test_a_second_claim_gets_the_place_once_the_first_node_has_left(tmp_path):
    made = experiment(method="fedavg", rounds=3)
    nodes = Nodes(client_app(made), 3)
    victim, second = nodes.node_of(VICTIM), nodes.join(VICTIM)

    def leave(entry, rounds):
        nodes.contexts.pop(victim, None)

    rounds, asked = play(made, nodes, tmp_path, leave)
    assert [entry.clients for entry in rounds] == [3, 3, 3]
    assert (asked[victim], asked[second]) == (1, 2 + 1)  # a keyframe for the one that knows nothing yet


def test_a_second_claim_gets_the_place_when_the_first_node_is_listed_but_answers_no_more(tmp_path, clock):
    made = experiment(method="fedavg", rounds=3)
    nodes = Nodes(client_app(made), 3)
    victim, joined = nodes.node_of(VICTIM), []

    def die(entry, rounds):
        if entry.round == 1:
            nodes.lost = nodes.silent = {victim}
            joined.append(nodes.join(VICTIM))

    rounds, asked = play(made, nodes, tmp_path, die)
    assert [entry.clients for entry in rounds] == [3, 3, 3]
    assert asked[victim] == 1
    assert clock[0] < grid.HELLO_SECONDS + 2


def test_who_was_somebody_else_before_comes_last(tmp_path):
    """The node asked first of all is client 0 until an accomplice contests that; asked again, it is the victim."""
    made = experiment(method="fedavg", rounds=3, **{"cohort.join_timeout": 0})
    nodes = Nodes(client_app(made), 3)
    evil, victim = nodes.node_of(0), nodes.node_of(VICTIM)

    def swap(entry, rounds):
        if entry.round == 1:
            nodes.contexts[evil].node_config["partition-id"] = VICTIM
            nodes.join(0)

    rounds, asked = play(made, nodes, tmp_path, swap)
    assert [entry.clients for entry in rounds] == [3, 3, 3]
    assert (asked[victim], asked[evil]) == (3, 1)


# Keys.


def pair():
    """A SuperNode's public key, as the SuperLink knows it and as its .pub file has it."""
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem, key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


class Keyed(Nodes):
    """Nodes that the SuperLink has authenticated; `keys`: node -> public key."""

    def __init__(self, app):
        super().__init__(app, 0)
        self.keys = {}

    def come(self, client, key):
        node = self.join(client)
        self.keys[node] = key
        return node

    def get_nodes(self):
        return [NodeInfo(node_id=node, public_key=self.keys[node]) for node in self.contexts]


def test_keys_bind_nodes_to_clients_whoever_comes_first(tmp_path, said):
    pairs = [pair() for _ in range(3)]
    keys = {f"{public} somebody@somewhere": client for client, (_, public) in enumerate(pairs)}
    made = experiment(method="fedavg", rounds=2, **{"cohort.keys": keys})
    nodes = Keyed(client_app(made))
    of_nobody = nodes.come(VICTIM, pair()[0])
    without = nodes.come(VICTIM, b"")
    broken = nodes.come(VICTIM, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    traitor = nodes.come(VICTIM, pairs[0][0])  # client 0's own key
    honest = [nodes.come(client, pem) for client, (pem, _) in enumerate(pairs)]
    rounds, asked = play(made, nodes, tmp_path)
    assert [entry.clients for entry in rounds] == [3, 3]
    assert set(asked) == set(honest)
    for node in (of_nobody, without, broken):
        assert f"node {node} takes no part: it says that it is client 1, its key is not in cohort.keys" in said()
    assert f"node {traitor} takes no part: it says that it is client 1, its key is client 0's in cohort.keys" in said()


def test_where_no_key_fits_nobody_is_the_client(tmp_path):
    (pem, _), (_, other) = pair(), pair()
    made = experiment(method="fedavg", rounds=1, **{"cohort.keys": {other: 0}, "cohort.join_timeout": 0})
    nodes = Keyed(client_app(made))
    nodes.come(0, pem)
    with pytest.raises(Exception, match="no node has said that it is this client"):
        play(made, nodes, tmp_path)


def test_keys_change_no_frame_and_may_change_between_runs():
    plain, bound = experiment(method="fedavg"), experiment(method="fedavg", **{"cohort.keys": {pair()[1]: 0}})
    assert assemble(plain).run_id == assemble(bound).run_id
    assert parse(tomllib.loads(to_toml(bound))) == bound


@pytest.mark.parametrize("key", ["node0", "keys/node0.pub", "", "ssh-rsa AAAA", "ecdsa-sha2-nistp384", "\x1b[2J"])
def test_what_is_no_key_is_refused_before_the_run(key):
    with pytest.raises(ConfigError, match=r"cohort\.keys = .*: the line of a SuperNode's \.pub file") as refused:
        experiment(method="fedavg", **{"cohort.keys": {key: 0}})
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("client", [-1, 3])
def test_a_key_of_no_client_is_refused_before_the_run(client):
    with pytest.raises(ConfigError, match=rf"cohort\.keys = {client}: a client of the experiment, 0 to 2"):
        experiment(method="fedavg", **{"cohort.keys": {pair()[1]: client}})
