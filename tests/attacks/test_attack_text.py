"""Text and numbers that come from a node or from a file of someone else: reasons, names, metrics, metadata.

Who attacks: one node of three, or whoever made a run folder or a model file. What it sends: terminal codes, line ends,
bidirectional controls, megabytes, losses and times that cannot be. What must happen: a person reads at most a line of
at most 200 characters that print, in log, ledger, console and page; a number that cannot be is left out, and the update
that it came with counts.
"""

import json
import unicodedata
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("flwr")

from flowernodes import Nodes
from flwr.app import ConfigRecord, Error, Message
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import save
from test_flower_methods import experiment, on_nodes
from thinapp import STC, Net, run
from thinapp import client_app as pair_app

from thinwire.errors import DataError, shown
from thinwire.flower import client_app
from thinwire.flower.dropin import Compressed, compress
from thinwire.flower.dropin.words import OURS
from thinwire.flower.server import _log_round
from thinwire.report import write_report
from thinwire.runtime import run as runs
from thinwire.runtime.inspection import inspect

EVIL = "\x1b]0;pwned\x07\x1b[2J\r\nround 9/9\u2028\u202e\u2066\x9b31m\x7f\ud800<script>alert(1)</script>"
EVIL_CLIENT = 1


def prints(text):
    """Is every character one that a terminal just shows?"""
    return not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)


def controls(page):
    return Counter(c for c in page if not prints(c))


@pytest.mark.parametrize("text", [EVIL, "\x01" * 5_000_000, "\u202e" * 300, "ü" * 300, "\\x1b", ""])
def test_text_is_one_line_of_characters_that_print(text):
    said = shown(text)
    assert prints(said)
    assert len(said) <= 200


def test_plain_text_stays_what_it_is():
    text = "client 3: „über“ 12 % of ‖x‖², naïve 東京"
    assert shown(text) == text


# A node of three.


def played(tmp_path, change, rounds=2):
    """A run on nodes of which the victim's replies are changed. -> its rounds, its ledger as text"""
    made = experiment(method="fedavg", rounds=rounds)
    nodes = Nodes(client_app(made), 3)
    evil = nodes.node_of(EVIL_CLIENT)
    nodes.change = lambda node, reply: change(reply) if node == evil else reply
    result = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes), on_round=_log_round)
    return result.rounds, (result.out / "rounds.jsonl").read_text()


def saying(**words):
    """Replies to training with these words, in place of or beside their own."""

    def change(reply):
        if reply.metadata.message_type == "train":
            own = dict(reply.content["thinwire-words"])
            reply.content["thinwire-words"] = ConfigRecord(own | {k.replace("_", ".", 1): v for k, v in words.items()})
        return reply

    return change


def failing(reply):
    """As Flower reports an app that raised."""
    return erring(reply, EVIL * 1000) if reply.metadata.message_type == "train" else reply


def erring(reply, reason):
    """An error in place of a reply."""
    error = Message(Error(203, reason), reply_to=reply)
    error.metadata.__dict__["_reply_to_message_id"] = reply.metadata.reply_to_message_id
    error.metadata.__dict__["_src_node_id"] = reply.metadata.src_node_id
    return error


def strange_status(reply):
    if reply.metadata.message_type == "train":
        reply.content["thinwire-words"] = ConfigRecord({"status": EVIL * 1000, "reason": ""})
    return reply


def failed(reason):
    def change(reply):
        if reply.metadata.message_type == "train":
            reply.content["thinwire-words"] = ConfigRecord({"status": "failed", "reason": reason})
        return reply

    return change


SAID = {
    "terminal codes": failed(EVIL),
    "megabytes": failed("\x01" * 5_000_000),
    "nothing": failed(""),
    "a status of its own": strange_status,
    "an app's error": failing,
}


@pytest.mark.parametrize("name", SAID)
def test_a_reason_is_one_short_line_in_log_and_ledger(name, tmp_path, caplog):
    with caplog.at_level("INFO", logger="flwr.thinwire"):
        rounds, ledger = played(tmp_path, SAID[name])
    for entry in rounds:
        ((client, reason),) = (drop.values() for drop in entry.dropped)
        assert (client, entry.clients) == (EVIL_CLIENT, 2)
        assert prints(reason)
        assert 0 < len(reason) <= 200
    assert len(ledger) < 5_000
    assert all(prints(record.getMessage()) and len(record.getMessage()) < 500 for record in caplog.records)


def test_who_a_node_says_it_is_is_logged_in_one_short_line(tmp_path, caplog):
    def refused(reply):
        if reply.metadata.message_type == "query":
            reply.content["thinwire-words"] = ConfigRecord({"refused": EVIL * 1000})
        return reply

    made = experiment(method="fedavg", rounds=1, **{"cohort.join_timeout": 0})
    nodes = Nodes(client_app(made), 3)
    evil = nodes.node_of(EVIL_CLIENT)
    nodes.change = lambda node, reply: refused(reply) if node == evil else reply
    with caplog.at_level("WARNING", logger="flwr.thinwire"):
        runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes))
    (said,) = [record.getMessage() for record in caplog.records]
    assert prints(said)
    assert len(said) < 300


HUGE = {"metric_loss": 1e308, "metric_client_train": 1e308, "metric_client_decode": -1e308, "metric_nmse": 1e308}
BELOW = {"metric_loss": -5.0, "metric_client_train": -1e9, "metric_nmse": -1.0, "metric_missed": 1e9}
NOT = {"metric_loss": float("nan"), "metric_client_train": float("inf"), "metric_nmse": float("nan")}
PATIENT = {"metric_client_train": 86_400.0}  # a day, in a round of less than a second
MORE = {f"metric_x{number}": 1.0 for number in range(2000)}


@pytest.mark.parametrize("words", [HUGE, BELOW, NOT, PATIENT, MORE], ids=["huge", "below 0", "not", "a day", "more"])
def test_a_number_that_cannot_be_is_left_out_and_its_update_counts(words, tmp_path):
    rounds, ledger = played(tmp_path, saying(**words))
    for entry in rounds:
        assert (entry.clients, entry.dropped) == (3, [])
        assert 0 <= entry.train_loss < 10
        assert all(0 <= seconds < 60 for seconds in entry.seconds.values())
    for line in ledger.splitlines():
        json.loads(line, parse_constant=pytest.fail)
    assert len(ledger) < 5_000
    assert "x7" not in ledger


def test_a_round_of_which_no_client_says_a_loss_has_none(tmp_path):
    made = experiment(method="fedavg", rounds=1)
    nodes = Nodes(client_app(made), 3)
    nodes.change = lambda node, reply: saying(metric_loss=-1.0)(reply)
    (entry,) = runs.start(made, tmp_path / "run", connect=on_nodes(made, nodes)).rounds
    assert (entry.clients, entry.train_loss) == (3, None)


def test_a_reason_of_the_pairs_node_is_one_short_line():
    app = pair_app([compress(STC)])
    net = Net(app, 3)
    evil = net.node_of(EVIL_CLIENT)

    def change(node, reply):
        return erring(reply, f"{OURS}{EVIL * 1000}") if node == evil else reply

    net.change = change
    strategy = Compressed(FedAvg(min_train_nodes=3), STC)
    run(strategy, app, rounds=2, net=net)
    assert {drop.node for drop in strategy.dropped} == {evil}
    for drop in strategy.dropped:
        assert prints(drop.reason)
        assert len(drop.reason) <= 200


# A ledger from elsewhere.


def test_a_page_of_a_foreign_ledger_shows_no_controls(tmp_path):
    made = experiment(method="fedavg", rounds=1)
    out = runs.start(made, tmp_path / "run", connect=on_nodes(made, Nodes(client_app(made), 3))).out
    evil = EVIL.replace("\ud800", "")
    before = controls(write_report([out], tmp_path / "page.html").read_text())  # the chart library has some
    row = json.loads((out / "rounds.jsonl").read_text())
    row |= {"dropped": [{"client": evil, "reason": evil}], "up_by_sort": {evil: 7}, "seconds": {evil: 1.0}}
    (out / "rounds.jsonl").write_text(json.dumps(row) + "\n")
    summary = json.loads((out / "summary.json").read_text())
    (out / "summary.json").write_text(json.dumps(summary | {"method": evil, "model_density": {evil: 0.5}}))
    page = write_report([out], tmp_path / "page.html").read_text()
    assert "pwned" in page
    assert controls(page) == before
    assert "<script>alert(1)" not in page
    (out / "rounds.jsonl").write_text(json.dumps(row | {"round": evil}) + "\n")
    with pytest.raises(DataError) as refused:
        write_report([out], tmp_path / "page.html")
    assert prints(str(refused.value))


# A model file from elsewhere.


def test_inspect_shows_names_and_metadata_of_a_foreign_file_in_lines_that_print(tmp_path):
    evil = EVIL.replace("\ud800", "")
    file = tmp_path / "model.safetensors"
    file.write_bytes(save({evil: np.zeros(3, np.float32)}, metadata={"thinwire": evil + "x" * 100_000}))
    for row in inspect(file).rows:
        assert all(prints(cell) and len(cell) <= 1000 for cell in row)
