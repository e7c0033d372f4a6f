"""Fifty rounds on ten SuperNodes of which three attack in every message, each with what it draws.

Who attacks: three nodes that the SuperLink lets in, with the experiment, its run id and honest frames of their own to
start from. What they send: all that a node can say, of `ANSWERS`; some are strangers that join and claim to be honest
clients. What must happen: every round is finished by the seven, the model is that of the seven alone, bit for bit,
each drop has the client and a reason that prints, and neither the ledger's lines nor the server grow.

Mutants with a checksum that fits may be valid frames of another update: nobody can tell them from an odd client's. With
them, the model must come out as good as without the three, a bound on norms given where values have no bound.
"""

import json
import os
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr")

from benchmarks.fuzz.mutators import mended, mutant
from flowernodes import Nodes
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord
from test_flower_methods import experiment, model_bytes, on_nodes

from thinwire import frame as frames
from thinwire.flower import client_app, grid, messages
from thinwire.runtime import run as runs
from thinwire.runtime.client import RESULT

CLIENTS, ATTACKERS = 10, (7, 8, 9)
TEXT = "\x1b]0;pwned\x07\x1b[2J\r\n\u202e" * 1000
CASES = {
    "fedavg": {"method": "fedavg", "test_fraction": 0.2, "evaluation.every": 5},
    "fedavg, thin both ways": {"method": "fedavg", "uplink": {"id": "thin"}, "downlink": {"id": "thin"}},
    "fedpm": {"method": "fedpm"},
    "ssfl": {"method": "ssfl", "method.density": 0.3},
}
ONE_CHECKSUM = {**CASES, "fedavg": CASES["fedavg"] | {"server.max_update_norm": 3.0}}
del ONE_CHECKSUM["fedavg, thin both ways"]
ONE_CHECKSUM["ssfl"] = CASES["ssfl"] | {"server.max_update_norm": 3.0}


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Seconds that pass only while the grid sleeps."""
    now = [0.0]
    monkeypatch.setattr(grid, "monotonic", lambda: now[0])
    monkeypatch.setattr(grid, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


# What a node answers: (content of an honest reply, its frame, an older one, random source) -> new content, or None for
# no reply; each is refused, whatever the method.


def framed(change):
    def attack(content, data, old, draw):
        content["thinwire"] = messages.frame_record(change(data, old, draw))
        return content

    return attack


def rewritten(**fields):
    """The frame with other fields, its checksum mended."""

    def change(data, old, draw):
        frame = frames.read(data)
        return frames.write(replace(frame, **{name: new(getattr(frame, name)) for name, new in fields.items()}))

    return framed(change)


def overwritten(at, data):
    """Bytes of the frame's head replaced, the checksum mended."""
    return framed(lambda frame, old, draw: mended(frame[:at] + data + frame[at + len(data) :]))


def worded(**words):
    def attack(content, data, old, draw):
        content["thinwire-words"] = ConfigRecord({name.replace("_", ".", 1): value for name, value in words.items()})
        return content

    return attack


def without(name):
    def attack(content, data, old, draw):
        del content[name]
        return content

    return attack


def another(name, record):
    def attack(content, data, old, draw):
        del content[name]
        content[name] = record
        return content

    return attack


def filled(value):
    """Every float32 of every section."""

    def change(frame, old, draw):
        frame = frames.read(frame)
        sections = tuple(
            (sort, np.full(len(data) // 4, value, "<f4").tobytes() + data[len(data) // 4 * 4 :])
            for sort, data in frame.sections
        )
        return frames.write(replace(frame, sections=sections))

    return framed(change)


ANSWERS = {
    "a flipped bit": framed(lambda data, old, draw: bytes([*data[:-9], data[-9] ^ 4, *data[-8:]])),
    "cut off": framed(lambda data, old, draw: data[: draw.integers(len(data))]),
    "noise": framed(lambda data, old, draw: draw.bytes(200)),
    "five megabytes": framed(lambda data, old, draw: bytes(5_000_000)),
    "an empty frame": framed(lambda data, old, draw: b""),
    "an old frame": framed(lambda data, old, draw: old),
    "of another round": rewritten(round=lambda round: round + 1),
    "of another run": rewritten(run=lambda run: run ^ 1),
    "of another codec": rewritten(codec=lambda codec: codec ^ 1),
    "of another layout": rewritten(layout=lambda layout: layout[::-1]),
    "of another kind": rewritten(kind=lambda kind: frames.Kind.REQUEST),
    "no samples": rewritten(samples=lambda samples: 0),
    "more samples than ten times the median": rewritten(samples=lambda samples: 10_000),
    "all samples there are": rewritten(samples=lambda samples: 2**24),
    "a section twice": rewritten(sections=lambda sections: sections * 2),
    "no sections": rewritten(sections=lambda sections: ()),
    "a section cut off": rewritten(sections=lambda sections: ((sections[0][0], sections[0][1][:-3]),)),
    "NaN": filled(nan),
    "infinity": filled(-inf),
    "huge numbers": filled(3.4e38),
    "no frame": without("thinwire"),
    "no words": without("thinwire-words"),
    "arrays for words": another("thinwire-words", ArrayRecord({})),
    "metrics for a frame": another("thinwire", MetricRecord({"frame": 1.0})),
    "another status": worded(status="\x1b[2J"),
    "a number for a status": worded(status=3),
    "stop": worded(status="stop", reason=TEXT),
    "failed": worded(status="failed", reason=TEXT),
    "numbers that cannot be": worded(status="failed", metric_loss=nan, metric_train_seconds=-1e300),
    "the keyframe, again and again": worded(status="keyframe"),
    "no reply": lambda content, data, old, draw: None,
    "an error of a megabyte": lambda content, data, old, draw: Error(203, TEXT * 50),
}
RESULTS = [  # of the version that the server asks for: samples, accuracy, loss
    lambda version: RESULT.pack(version, 10, nan, 1.0),
    lambda version: RESULT.pack(version, 2**32 - 1, 1.0, 0.0),
    lambda version: RESULT.pack(version, 10_000, 0.0, nan),
    lambda version: RESULT.pack(version, 0, 1.0, 0.0),
    lambda version: RESULT.pack(version, 10, 2.0, -inf),
    lambda version: RESULT.pack(version + 1, 10, 0.5, 1.0),
    lambda version: b"\0",
]


class Siege(Nodes):
    """The last three attack; a fourth, a stranger, claims in every round to be the client of an honest one."""

    def __init__(self, app, seed=0, answers=None):
        super().__init__(app, CLIENTS)
        self.attackers = {self.node_of(client): client for client in ATTACKERS}
        self.answers = ANSWERS if answers is None else answers
        self.draw, self.old, self.drawn = np.random.default_rng(seed), {}, []
        self.change = self.attack
        self.stranger = self.join(0)

    def attack(self, node, reply):
        if node not in self.attackers or not reply.has_content() or reply.metadata.message_type == "query":
            return reply
        if reply.metadata.message_type == "evaluate":
            version = RESULT.unpack(messages.frame_of(reply.content))[0]
            result = RESULTS[self.draw.integers(len(RESULTS))](version)
            reply.content["thinwire"] = messages.frame_record(result)
            return reply
        data = messages.frame_of(reply.content)
        old = self.old.setdefault(node, data)  # of the first round
        name = str(self.draw.choice([*self.answers]))
        if name == "an old frame" and old is data:
            name = "noise"
        self.drawn.append(name)
        found = self.answers[name](reply.content, data, old, self.draw)
        return self.error(reply, found) if isinstance(found, Error) else found and reply

    def error(self, reply, error):
        message = Message(error, reply_to=reply)
        message.metadata.__dict__["_reply_to_message_id"] = reply.metadata.reply_to_message_id
        message.metadata.__dict__["_src_node_id"] = reply.metadata.src_node_id
        return message

    def pull_messages(self, message_ids):
        return [reply for reply in super().pull_messages(message_ids) if reply is not None]


def made_of(case, rounds):
    world = {"data": "digits", "model": "linear", "clients": CLIENTS, "batch_size": 32, "lr": 0.1}
    world |= {"model": "mlp"} if case["method"] in ("fedpm", "ssfl") else {}
    return experiment(**{**world, **case, "rounds": rounds})


def resident_bytes():
    """Of this process; 0 where the system does not say."""
    told = Path("/proc/self/statm")
    return int(told.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if told.exists() else 0


def besieged(case, rounds, out, answers=None):
    """-> the result, the nodes, and the server's memory by round, in bytes"""
    made, resident = made_of(case, rounds), []
    nodes = Siege(client_app(made), answers=answers)

    def after(entry, rounds):
        nodes.contexts.pop(nodes.stranger)
        nodes.stranger = nodes.join(entry.round % 7)
        resident.append(resident_bytes())

    return runs.start(made, out, connect=on_nodes(made, nodes), on_round=after), nodes, resident


def seven_alone(case, rounds, out):
    made = made_of(case, rounds)
    nodes = Nodes(client_app(made), CLIENTS)
    for client in ATTACKERS:
        nodes.leave(client)
    return runs.start(made, out, connect=on_nodes(made, nodes))


def check(result, nodes, resident, rounds):
    lines = (result.out / "rounds.jsonl").read_text().splitlines()
    ledger = [json.loads(line) for line in lines]
    assert [line["round"] for line in ledger] == list(range(1, rounds + 1))
    assert all(line["clients"] >= CLIENTS - len(ATTACKERS) for line in ledger)
    drops = [drop for line in ledger for drop in line["dropped"]]
    assert {drop["client"] for drop in drops} <= set(ATTACKERS)
    assert all(0 < len(drop["reason"]) <= 250 and drop["reason"].isprintable() for drop in drops)
    sizes = [len(line) for line in lines]
    assert max(sizes) < 6000
    assert sum(sizes[-10:]) < 2 * sum(sizes[:10])
    if rounds >= 50:
        assert resident[-1] - resident[rounds // 5] < 64e6
    return drops


def withstand(case, rounds, tmp_path):
    result, nodes, resident = besieged(case, rounds, tmp_path / "siege")
    drops = check(result, nodes, resident, rounds)
    in_training = [drop for drop in drops if not drop["reason"].startswith("evaluation")]
    assert len(in_training) == len(ATTACKERS) * rounds
    every = case.get("evaluation.every")
    evaluations = len({*range(every, rounds + 1, every), rounds}) if every else 0
    assert len(drops) - len(in_training) == len(ATTACKERS) * evaluations
    alone = seven_alone(case, rounds, tmp_path / "alone")
    assert model_bytes(result) == model_bytes(alone)
    for name in ("accuracy", "personal_accuracy", "personal_accuracy_weighted"):
        assert result.summary.get(name) == alone.summary.get(name)
    return nodes


@pytest.mark.parametrize("name", CASES)
def test_flower_six_rounds_with_three_attackers_of_ten(name, tmp_path):
    withstand(CASES[name], 6, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_flower_fifty_rounds_with_three_attackers_of_ten(name, tmp_path):
    nodes = withstand(CASES[name], 50, tmp_path)
    assert set(nodes.drawn) == set(ANSWERS), "every attack had its turn"


# Mutants whose checksum fits.


def forged(content, data, old, draw):
    content["thinwire"] = messages.frame_record(mended(mutant([data, old], int(draw.integers(2**20)), draw) + bytes(4)))
    return content


def mutated_payload(content, data, old, draw):
    frame = frames.read(data)
    at = int(draw.integers(len(frame.sections)))
    inside = mutant([frame.sections[at][1], frame.sections[0][1]], int(draw.integers(2**20)), draw)
    sections = tuple((sort, inside if i == at else held) for i, (sort, held) in enumerate(frame.sections))
    content["thinwire"] = messages.frame_record(frames.write(replace(frame, sections=sections)))
    return content


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_CHECKSUM)
def test_flower_fifty_rounds_with_mutants_whose_checksum_fits(name, tmp_path):
    """Some are accepted, so the model is another one. Measured: .3 points of accuracy at most; two are allowed."""
    answers = ANSWERS | {f"{what.__name__} {k}": what for what in (forged, mutated_payload) for k in range(20)}
    case = ONE_CHECKSUM[name]
    result, nodes, resident = besieged(case, 50, tmp_path / "siege", answers)
    check(result, nodes, resident, 50)
    alone = seven_alone(case, 50, tmp_path / "alone")
    assert abs(result.summary["accuracy"] - alone.summary["accuracy"]) <= 0.02
