"""Links: seconds of a round from its bytes alone, by hand; nothing that crosses changes with them."""

import json
import math
from dataclasses import replace

import pytest
from test_run_determinism import Stop, stop_after, summary
from toyworld import Spy, World, edit_manifests, experiment, lines, model_bytes, run

from thinwire import rng
from thinwire.errors import ConfigError
from thinwire.runtime.assembly import assemble
from thinwire.runtime.client import ENVELOPE_BYTES, RESULT, Answer
from thinwire.runtime.evaluation import evaluate_clients
from thinwire.runtime.experiment import read_file, to_toml
from thinwire.runtime.ledger import Ledger
from thinwire.runtime.link import Crossings, Link
from thinwire.runtime.run import resume, start
from thinwire.runtime.workers import open_pool

RATES = {"up_mbps": 2.0, "down_mbps": 5.0, "latency_ms": 30.0}
LINKED = {"link": RATES}
HELD = {"data": {"clients": 6, "test_fraction": 0.3}}


def crossings(**clients):
    """c0=[(down, up), …]: the messages to client 0 and its answers."""
    found = Crossings()
    for name, messages in clients.items():
        for down, up in messages:
            found.sent({int(name[1:]): down})
            found.received(int(name[1:]), up)
    return found


def seconds(messages, down, up):
    """2 · 30 ms a message, 5 Mbit/s down, 2 Mbit/s up."""
    return 0.06 * messages + down * 8 / 5_000_000 + up * 8 / 2_000_000


# the equation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        ({}, 0.0),
        ({"c0": [(0, 0)]}, 0.06),
        ({"c0": [(625_000, 0)]}, 0.06 + 1.0),  # 5 Mbit down at 5 Mbit/s
        ({"c0": [(0, 250_000)]}, 0.06 + 1.0),  # 2 Mbit up at 2 Mbit/s
        ({"c3": [(625_000, 250_000)]}, 0.06 + 2.0),
        ({"c0": [(625_000, 0)], "c1": [(0, 500_000)]}, 0.06 + 2.0),  # the slower of the two, not their sum
        ({"c0": [(625_000, 50), (625_000, 250_000)]}, 0.12 + 1.0 + 0.0002 + 1.0 + 1.0),  # asked for a keyframe
    ],
)
def test_the_slowest_client_by_hand(clients, expected):
    assert Link(**RATES).seconds(crossings(**clients)) == pytest.approx(expected, rel=1e-12)


def test_crossings_of_a_round_and_of_an_evaluation_add_up():
    both = crossings(c0=[(10, 1)], c1=[(20, 0)]) + crossings(c1=[(5, 7)], c2=[(1, 1)])
    assert both == crossings(c0=[(10, 1)], c1=[(20, 0), (5, 7)], c2=[(1, 1)])
    assert (both.messages[1], both.down[1], both.up[1]) == (2, 25, 7)


def test_the_spread_is_a_log_normal_factor_a_client_on_both_rates():
    link = Link(**RATES, spread=0.7, seed=11)
    factors = [link.factor(client) for client in range(400)]
    logs = [math.log(factor) / 0.7 for factor in factors]
    assert logs[5] == pytest.approx(rng.generator(11, client=5, purpose="link").standard_normal())
    assert abs(sum(logs) / 400) < 0.15  # 3 standard errors of a mean of 400 standard normals
    assert 0.85 < sum(log**2 for log in logs) / 400 < 1.15
    assert link.seconds(crossings(c5=[(625_000, 250_000)])) == pytest.approx(0.06 + 2.0 / factors[5])
    assert Link(**RATES, spread=0.7, seed=12).factor(5) != factors[5]
    assert {Link(**RATES, seed=11).factor(client) for client in range(9)} == {1.0}


# settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ({"up_mbps": 0}, r"link\.up_mbps = 0: input should be greater than 0"),
        ({"down_mbps": -5}, r"link\.down_mbps = -5: input should be greater than 0"),
        ({"latency_ms": 0}, r"link\.latency_ms = 0: input should be greater than 0"),
        ({"spread": -0.1}, r"link\.spread = -0\.1: input should be greater than or equal to 0"),
        ({"up_mbps": float("nan")}, r"link\.up_mbps = nan"),
        ({"down_mbps": float("inf")}, r"link\.down_mbps = inf"),
        ({"up_mbps": "fast"}, r"link\.up_mbps = 'fast': input should be a valid number"),
        ({"mbps": 1}, r"link\.mbps = 1: unknown field, known: up_mbps, down_mbps, latency_ms, spread"),
    ],
)
def test_a_wrong_link_is_one_clear_line(link, message):
    with pytest.raises(ConfigError, match=message):
        experiment(link={**RATES, **link})


@pytest.mark.parametrize("missing", RATES)
def test_a_link_is_given_whole(missing):
    link = {name: value for name, value in RATES.items() if name != missing}
    with pytest.raises(ConfigError, match=rf"link\.{missing} = None: must be given where there is a section \[link\]"):
        experiment(link=link)


def test_an_experiment_without_a_link_is_written_as_it_was():
    assert "[link]" not in to_toml(experiment())
    assert "[link]\nup_mbps = 2.0\n" in to_toml(experiment(**LINKED))


def test_a_link_shapes_no_frame():
    plain, linked = assemble(experiment("fedavg")), assemble(experiment("fedavg", **LINKED))
    assert plain.run_id == linked.run_id
    assert plain.link is None
    assert linked.link == Link(**RATES, seed=3)


# runs ----------------------------------------------------------------------------------------------------------------


def test_every_round_of_a_run_by_hand(tmp_path):
    result = run(tmp_path / "run", "fedavg", **LINKED)  # four clients, all asked, all of one size
    found = [line["link_seconds"] for line in lines(tmp_path / "run")]
    expected = [seconds(1, line.down_bytes / 4, line.up_bytes / 4) for line in result.rounds]
    assert found == pytest.approx(expected, rel=1e-12)
    assert 0.06 < found[0] < found[1] == found[2]  # the first broadcast is a seed, the others are steps
    assert result.summary["link_seconds"] == pytest.approx(sum(found))


def test_without_a_link_there_are_no_seconds_and_nothing_else_differs(tmp_path):
    settings = {"cohort": {"size": 2}, "evaluation": {"every": 1}, **HELD}
    plain = run(tmp_path / "plain", **settings)
    run(tmp_path / "linked", **settings, link={**RATES, "spread": 1.0})
    assert [line.link_seconds for line in plain.rounds] == [None] * 3
    assert plain.summary["link_seconds"] is None
    both = [[{**line, "link_seconds": 0} for line in lines(tmp_path / name)] for name in ("plain", "linked")]
    assert both[0] == both[1]
    assert model_bytes(tmp_path / "plain") == model_bytes(tmp_path / "linked")
    assert {**summary(tmp_path / "plain"), "link_seconds": 0} == {**summary(tmp_path / "linked"), "link_seconds": 0}


def test_an_evaluation_counts_with_its_round(tmp_path):
    run(tmp_path / "once", "fedavg", **LINKED, **HELD)
    run(tmp_path / "often", "fedavg", **LINKED, **HELD, evaluation={"every": 1})
    once, often = lines(tmp_path / "once"), lines(tmp_path / "often")
    answer = RESULT.size
    for without, line in zip(once[:-1], often, strict=False):
        message = line["evaluate_bytes"] / 6 - answer  # six clients, all with the same version
        assert line["link_seconds"] == pytest.approx(without["link_seconds"] + seconds(1, message, answer), rel=1e-12)
    assert once[-1]["link_seconds"] == often[-1]["link_seconds"]


@pytest.mark.parametrize("spread", [0.0, 1.5])
def test_every_message_of_a_round_is_its_clients(spread):
    made = World("fedpm", Spy, link={**RATES, "spread": spread}, **HELD)
    made.play()
    made.progress.records[2] = replace(made.progress.records[2], have=None)  # it will ask for a keyframe
    made.pool.down, made.pool.answered = [], []
    _, work = made.simulation.play(made.progress)
    asked = [answer.client for answer in made.pool.answered]
    assert asked == [0, 1, 2, 3, 4, 5, 2]
    link, times = made.assembly.link, dict.fromkeys(asked, 0.0)
    for answer, down in zip(made.pool.answered, made.pool.down, strict=True):
        moving = (down * 8 / 5_000_000 + len(answer.frame) * 8 / 2_000_000) / link.factor(answer.client)
        times[answer.client] += 0.06 + moving
    assert link.seconds(work.crossings) == pytest.approx(max(times.values()), rel=1e-12)
    assert times[2] > 0.12


def test_an_evaluation_notes_its_messages_by_client():
    made = World("fedavg", Spy, **HELD)
    made.play()
    made.side.test_data = made.assembly.evaluation_data
    made.pool.down, made.pool.up = [], []
    found = evaluate_clients(made.simulation, made.progress, list(made.assembly.test_samples)).crossings
    assert list(found.down.values()) == made.pool.down
    assert list(found.up.values()) == made.pool.up == [RESULT.size] * 6


def test_a_client_that_does_not_answer_counts_with_what_it_was_sent():
    def fail(answer):
        return Answer(1, "failed", reason="gone") if answer.client == 1 else answer

    made = World("fedavg", lambda pool: Spy(pool, fail), **LINKED)
    _, work = made.simulation.play(made.progress)
    assert (work.crossings.messages[1], work.crossings.up[1]) == (1, 0)
    assert work.crossings.down[1] == made.pool.down[1] > ENVELOPE_BYTES


def test_clients_elsewhere_are_timed_alike(tmp_path):
    def connect(assembly):
        pool = open_pool(assembly, 1)
        pool.may_be_late = True
        return pool

    settings = experiment("fedavg", link={**RATES, "spread": 0.5})
    start(settings, tmp_path / "here", workers=2)
    start(settings, tmp_path / "there", connect=connect)
    assert lines(tmp_path / "here") == lines(tmp_path / "there")


def test_a_run_that_goes_on_is_timed_as_the_unbroken_one(tmp_path):
    with pytest.raises(Stop):
        run(tmp_path / "parts", on_round=stop_after(2), **LINKED)
    resume(tmp_path / "parts", workers=1)
    run(tmp_path / "whole", **LINKED)
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    assert summary(tmp_path / "parts") == summary(tmp_path / "whole")


def test_a_ledger_of_before_is_read_and_has_no_sum(tmp_path):
    with pytest.raises(Stop):
        run(tmp_path / "run", on_round=stop_after(1))
    path, copy = tmp_path / "run" / "rounds.jsonl", tmp_path / "run" / "checkpoint" / "rounds.jsonl"
    line = json.loads(path.read_text())
    assert line.pop("link_seconds") is None
    path.write_text(json.dumps(line) + "\n")
    size = path.stat().st_size
    edit_manifests(copy.parent, lambda manifest: manifest.update(ledger={"bytes": size}))
    assert Ledger.reopen(path, copy, {"bytes": size}).rounds[0].link_seconds is None
    with open(tmp_path / "run" / "config.toml", "a") as config:
        config.write("\n[link]\nup_mbps = 2\ndown_mbps = 5\nlatency_ms = 30\n")
    assert read_file(tmp_path / "run" / "config.toml")["link"] == RATES
    result = resume(tmp_path / "run", workers=1)
    assert [entry.link_seconds is None for entry in result.rounds] == [True, False, False]
    assert result.summary["link_seconds"] is None  # it would be that of two rounds of three


def test_the_untrained_models_accuracy_is_in_the_summary(tmp_path):
    result, assembly = run(tmp_path / "run", "fedavg"), assemble(experiment("fedavg"))
    untrained = assembly.evaluate(assembly.method.model(assembly.method.init()))["accuracy"]
    assert result.summary["initial_accuracy"] == untrained
