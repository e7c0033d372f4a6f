"""Federated evaluation: on samples that no client trained on, every byte counted, and the rounds stay what they are."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from test_run_determinism import FEEDBACK, Stop, killed, same, stop_after, summary
from toyworld import Spy, World, experiment, lines, model_bytes, run

from thinwire.errors import ConfigError, DataError, TrainingError
from thinwire.frame import Kind
from thinwire.frame import read as read_frame
from thinwire.methods import METHODS
from thinwire.runtime.client import ENVELOPE_BYTES, EVALUATE, RESULT, Answer, Clients, Record
from thinwire.runtime.evaluation import Score, evaluate_clients, personal, read_scores, write_scores
from thinwire.runtime.ledger import Ledger
from thinwire.runtime.pool import Inline
from thinwire.runtime.run import assemble, resume, start
from thinwire.runtime.simulate import Simulation
from thinwire.runtime.workers import Workers

HELD = {"data": {"clients": 6, "test_fraction": 0.3}}
SKEWED = {"data": {"clients": 6, "partition": "dirichlet:1.0", "test_fraction": 0.3}}
NUMBERS = {"personal_accuracy": None, "personal_worst_decile": None, "evaluate_bytes": 0}
TRAINING = ("round", "accuracy", "loss", "train_loss", "up_bytes", "down_bytes", "up_bpp", "down_bpp", "clients")


def rows(out):
    with open(out / "clients.csv", newline="") as file:
        return list(csv.DictReader(file))


def world(name="fedavg", spy=None, **settings):
    """A World whose clients hold samples back."""
    made = World(name, spy, **settings)
    made.side.test_data = made.assembly.evaluation_data
    return made


def evaluate(made):
    return evaluate_clients(made.simulation, made.progress, list(made.assembly.test_samples))


# the samples held back -----------------------------------------------------------------------------------------------


def test_no_client_trains_on_what_it_holds_back():
    assembly = assemble(experiment(**SKEWED))
    for client in assembly.clients:
        train, test = assembly.split(client)
        assert len(train) >= 1
        assert sorted([*train, *test]) == sorted(assembly.parts[client])
        data = assembly.evaluation_data(client)
        np.testing.assert_array_equal(assembly.client_data(client).x, data.x)
        np.testing.assert_array_equal(data.x, assembly.dataset.train.x[train])
        np.testing.assert_array_equal(data.test_x, assembly.dataset.train.x[test])
        assert len(data.test_y) == assembly.test_samples.get(client, 0)
        if len(test):
            assert assembly.train_samples[client] == len(train)


def test_nothing_is_held_back_unless_asked():
    assembly = assemble(experiment())
    assert assembly.test_samples == {}
    np.testing.assert_array_equal(assembly.split(1)[0], assembly.parts[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": {"test_fraction": 1}}, r"data\.test_fraction = 1"),
        ({"data": {"test_fraction": -0.1}}, r"data\.test_fraction = -0\.1"),
        ({"data": {"test_fraction": "some"}}, r"data\.test_fraction = 'some'"),
        ({"evaluation": {"every": 2}}, r"evaluation\.every = 2: 0 unless data\.test_fraction is above 0"),
        ({"evaluation": {"every": -1}, **HELD}, r"evaluation\.every = -1"),
        ({"evaluation": {"each": 1}}, r"evaluation\.each = 1: unknown field, known: every"),
        ({"checkpoint": {"memory_mb": -1}}, r"checkpoint\.memory_mb = -1"),
        ({"data": {"test_fraction": 0.001}}, r"data\.test_fraction = 0\.001: so large that some client holds"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        assemble(experiment(**settings))


# what a run leaves ---------------------------------------------------------------------------------------------------


def test_a_run_without_held_back_samples_says_nothing_of_them(tmp_path):
    result = run(tmp_path / "run")
    assert not (tmp_path / "run" / "clients.csv").exists()
    assert [line["personal_accuracy"] for line in lines(tmp_path / "run")] == [None] * 3
    assert "personal_accuracy" not in result.summary
    assert result.summary["evaluate_bytes"] == 0


@pytest.mark.parametrize(("every", "rounds"), [(0, [5]), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_it_is_done_every_so_many_rounds_and_after_the_last(tmp_path, every, rounds):
    run(tmp_path / "run", rounds=5, evaluation={"every": every}, **HELD)
    found = lines(tmp_path / "run")
    for key, nothing in NUMBERS.items():
        assert [line["round"] for line in found if line[key] not in (None, nothing)] == rounds


def test_the_table_the_ledger_and_the_summary_agree(tmp_path):
    result = run(tmp_path / "run", "fedavg", **SKEWED)
    table, last, assembly = rows(tmp_path / "run"), lines(tmp_path / "run")[-1], assemble(experiment(**SKEWED))
    assert list(table[0]) == ["client", "train_samples", "test_samples", "accuracy", "loss"]
    assert [int(row["client"]) for row in table] == list(assembly.test_samples)
    for row in table:
        client = int(row["client"])
        assert int(row["test_samples"]) == assembly.test_samples[client]
        assert int(row["train_samples"]) + int(row["test_samples"]) == len(assembly.parts[client])
        hits = float(row["accuracy"]) * int(row["test_samples"])
        assert hits == pytest.approx(round(hits))
    accuracies = [float(row["accuracy"]) for row in table]
    weights = [int(row["test_samples"]) for row in table]
    assert result.summary["personal_accuracy"] == last["personal_accuracy"] == pytest.approx(np.mean(accuracies))
    assert result.summary["personal_worst_decile"] == last["personal_worst_decile"] == min(accuracies)
    assert result.summary["personal_accuracy_weighted"] == pytest.approx(np.average(accuracies, weights=weights))
    assert result.summary["evaluated_clients"] == len(table)
    assert result.summary["evaluate_bytes"] == last["evaluate_bytes"] > 0
    rounds_bytes = sum(line["up_bytes"] + line["down_bytes"] for line in lines(tmp_path / "run"))
    assert last["total_bytes"] == rounds_bytes + last["evaluate_bytes"]


def test_clients_that_hold_nothing_back_are_left_out(tmp_path):
    data = {"clients": 25, "partition": "dirichlet:0.3", "allow_empty": True, "test_fraction": 0.2}
    run(tmp_path / "run", data=data)
    assembly = assemble(experiment(data=data))
    assert 0 < len(assembly.test_samples) < len(assembly.clients)
    assert [int(row["client"]) for row in rows(tmp_path / "run")] == list(assembly.test_samples)


def test_the_means():
    scores = [Score(client, 10 + client, client / 20, 1.0) for client in range(20)]
    found = personal(scores[::-1])
    assert found["personal_accuracy"] == pytest.approx(9.5 / 20)
    assert found["personal_worst_decile"] == pytest.approx((0 + 1) / 2 / 20)  # ⌈2.0⌉ = 2 of 20
    assert personal(scores[:11])["personal_worst_decile"] == pytest.approx(0.5 / 20)  # ⌈1.1⌉ = 2 of 11
    assert personal(scores[3:4])["personal_worst_decile"] == 3 / 20
    assert found["personal_accuracy_weighted"] == pytest.approx(sum(s.accuracy * s.samples for s in scores) / 390)
    assert personal([]) == {
        "personal_accuracy": None, "personal_worst_decile": None,
        "personal_accuracy_weighted": None, "evaluated_clients": 0,
    }  # fmt: skip


def test_scores_go_to_a_file_and_back(tmp_path):
    scores = [Score(3, 7, 1 / 3, 0.1 + 0.2), Score(4, 1, 0.0, 1e30)]
    write_scores(tmp_path / "clients.csv", scores, {3: 20, 4: 1})
    assert read_scores(tmp_path / "clients.csv") == scores
    for broken in ("client\n3\n", "client,train_samples,test_samples,accuracy,loss\n3,a,b,c,d\n"):
        (tmp_path / "clients.csv").write_text(broken)
        with pytest.raises(DataError, match=r"clients\.csv: cannot be read"):
            read_scores(tmp_path / "clients.csv")


def test_lines_of_ledgers_of_before_are_read(tmp_path):
    run(tmp_path / "run", rounds=1)
    path = tmp_path / "run" / "rounds.jsonl"
    line = json.loads(path.read_text())
    del line["personal_accuracy"], line["personal_worst_decile"]
    path.write_text(json.dumps(line) + "\n")
    ledger = Ledger.reopen(path, tmp_path / "copy.jsonl", {"bytes": path.stat().st_size})
    assert ledger.rounds[0].personal_accuracy is None


# bytes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fedpm", "fedavg"])
def test_every_byte_of_an_evaluation_is_counted(name):
    made = world(name, Spy, cohort={"size": 2}, **HELD)
    for _ in range(3):
        made.play()
    made.pool.down, made.pool.up = [], []
    assert evaluate(made).crossed_bytes == sum(made.pool.down) + sum(made.pool.up)
    assert set(made.pool.up) == {RESULT.size}
    have = made.progress.have
    for client, message in made.pool.messages.items():
        assert message == made.method.broadcast(made.progress.server, have.get(client))
    kinds = {read_frame(message).kind for message in made.pool.messages.values()}
    assert Kind.KEYFRAME in kinds  # for those that were never asked


@pytest.mark.parametrize("name", ["fedpm", "fedavg"])
def test_evaluating_changes_no_byte_of_the_rounds(tmp_path, name):
    settings = {"rounds": 4, "cohort": {"fraction": 0.5}, **HELD, **(FEEDBACK if name == "fedavg" else {})}
    run(tmp_path / "once", name, **settings)
    run(tmp_path / "often", name, evaluation={"every": 1}, **settings)
    once, often = lines(tmp_path / "once"), lines(tmp_path / "often")
    assert [[line[key] for key in TRAINING] for line in once] == [[line[key] for key in TRAINING] for line in often]
    assert model_bytes(tmp_path / "once") == model_bytes(tmp_path / "often")
    assert rows(tmp_path / "once") == rows(tmp_path / "often")
    assert often[-1]["total_bytes"] - once[-1]["total_bytes"] == sum(line["evaluate_bytes"] for line in often[:-1])


def test_frames_that_are_kept_are_those_of_the_rounds(tmp_path):
    for name, every in (("once", 0), ("often", 1)):
        asked = experiment("fedavg", cohort={"size": 2}, evaluation={"every": every}, **HELD)
        start(asked, tmp_path / name, workers=1, save_frames=True)
    kept = [{p.name: p.read_bytes() for p in (tmp_path / name / "frames").iterdir()} for name in ("once", "often")]
    assert kept[0] == kept[1]
    assert sum(name.endswith("-up.tw") for name in kept[0]) == 2


def test_evaluating_leaves_the_progress_as_it_was():
    made = world(cohort={"size": 3}, **HELD, **FEEDBACK)
    made.play()
    before = dict(made.progress.have), dict(made.progress.accepted), dict(made.progress.records)
    assert evaluate(made).scores
    assert (made.progress.have, made.progress.accepted, dict(made.progress.records)) == before


# the server's model --------------------------------------------------------------------------------------------------


def test_rounds_that_are_not_scored_send_the_same_bytes(tmp_path):
    """And what was scored has the same numbers, the last round always."""
    all_of, some = (
        start(experiment("fedavg", rounds=5, evaluation={"server_every": every}), tmp_path / str(every), workers=1)
        for every in (1, 2)
    )
    for one, other in zip(all_of.rounds, some.rounds, strict=True):
        scored = (one.accuracy, one.loss) if one.round in (2, 4, 5) else (None, None)
        assert (other.accuracy, other.loss) == scored
        assert ("evaluate" in other.seconds) == (one.round in (2, 4, 5))
        assert (one.up_bytes, one.down_bytes, one.train_loss) == (other.up_bytes, other.down_bytes, other.train_loss)
    assert some.summary["accuracy"] == all_of.summary["accuracy"]
    assert some.summary["best_accuracy"] == max(row.accuracy for row in some.rounds if row.accuracy is not None)


# the same whatever the method, the workers, the interruption ---------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_method_evaluates_on_the_samples_held_back(name):
    made = world(name, **HELD)
    made.play()
    given = {}
    real = made.side.method.evaluate

    def watched(held, state, data):
        scores = real(held, state, data)
        assert real(held, state, replace(data, x=data.x[:1], y=data.y[:1])) == scores  # it needs no training sample
        given[data.client] = held.version, scores, data
        return scores

    made.side.method = replace(made.side.method, evaluate=watched)
    found = evaluate(made)
    assert found.dropped == []
    assert [score.client for score in found.scores] == list(made.assembly.test_samples) == list(given)
    for score in found.scores:
        version, scores, data = given[score.client]
        assert version == 1
        assert (score.accuracy, score.loss) == (scores["accuracy"], scores["loss"])
        assert score.samples == len(data.test_y)
        hits = score.accuracy * len(data.test_y)
        assert hits == pytest.approx(round(hits))


@pytest.mark.parametrize("name", METHODS)
def test_workers_change_nothing(tmp_path, name):
    for workers in (1, 2):
        run(tmp_path / str(workers), name, workers=workers, rounds=2, evaluation={"every": 1}, **SKEWED)
    same(tmp_path / "1", tmp_path / "2")
    assert (tmp_path / "1" / "clients.csv").read_bytes() == (tmp_path / "2" / "clients.csv").read_bytes()
    assert summary(tmp_path / "1") == summary(tmp_path / "2")


def test_inline_and_forked_give_the_same_answers():
    made = world(cohort={"size": 3}, **HELD, **FEEDBACK)
    made.play()
    found = []
    for workers in (0, 2, 3):
        assembly = made.assembly
        side = Clients(assembly.method, assembly.client_data, assembly.run_id, assembly.evaluation_data)
        pool = Workers.forked(side, workers) if workers else Inline(side)
        simulation = Simulation(assembly.method, pool, assembly.clients, 3)
        found.append(evaluate_clients(simulation, made.progress, list(assembly.test_samples)))
        pool.close()
    assert found[0] == found[1] == found[2]


def test_a_client_scores_with_the_state_that_the_server_accepted():
    made = world(**HELD, **FEEDBACK)
    made.play()
    made.progress.accepted.pop(2)  # as if its frame had been refused
    given = {}

    def watched(held, state, data):
        given[data.client] = state["residual"]
        return {"accuracy": 0.5, "loss": 1.0, "more": 3.0}

    made.side.method = replace(made.side.method, evaluate=watched)
    evaluate(made)
    assert not given[2].any()  # client_init's
    assert all(given[client].any() for client in given if client != 2)


@pytest.mark.parametrize("stopped", [1, 3])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(tmp_path, stopped):
    settings = {**FEEDBACK, **HELD, "rounds": 4, "cohort": {"fraction": 0.5}, "evaluation": {"every": 2}}
    run(tmp_path / "whole", "fedavg", **settings)
    with pytest.raises(Stop):
        run(tmp_path / "parts", "fedavg", on_round=stop_after(stopped), **settings)
    resume(tmp_path / "parts", workers=2)
    same(tmp_path / "whole", tmp_path / "parts")
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert summary(tmp_path / "whole") == summary(tmp_path / "parts")


def test_a_run_stopped_between_the_last_round_and_the_evaluation_does_it(tmp_path, monkeypatch):
    from thinwire.runtime import run as runs

    run(tmp_path / "whole", **HELD)

    def stop(*arguments):
        raise Stop

    monkeypatch.setattr(runs, "evaluate_clients", stop)
    with pytest.raises(Stop):
        run(tmp_path / "parts", **HELD)
    monkeypatch.undo()
    assert len(lines(tmp_path / "parts")) == 2
    resume(tmp_path / "parts", workers=1)
    same(tmp_path / "whole", tmp_path / "parts")
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path, workers):
    settings = {**FEEDBACK, **HELD, "rounds": 6, "evaluation": {"every": 1}, "checkpoint": {"memory_mb": 0}}
    run(tmp_path / "whole", "fedavg", **settings)
    for after in (0.1, 0.15, 0.2, 0.25, 0.3):
        if killed(tmp_path / "parts", "fedavg", workers, settings, after):
            break
    resume(tmp_path / "parts", workers=workers)
    same(tmp_path / "whole", tmp_path / "parts")
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


def test_a_finished_run_may_be_resumed(tmp_path):
    run(tmp_path / "run", **HELD)
    before = summary(tmp_path / "run"), lines(tmp_path / "run"), rows(tmp_path / "run")
    resume(tmp_path / "run")
    assert (summary(tmp_path / "run"), lines(tmp_path / "run"), rows(tmp_path / "run")) == before


# clients that fail ---------------------------------------------------------------------------------------------------


def test_a_client_that_lost_its_version_gets_a_keyframe():
    made = world("fedpm", Spy, **HELD)
    for _ in range(2):
        made.play()
    made.progress.records[2] = replace(made.progress.records[2], have=None)
    made.pool.up, made.pool.down = [], []
    found = evaluate(made)
    assert [score.client for score in found.scores] == [0, 1, 3, 4, 5, 2]
    assert found.crossed_bytes == sum(made.pool.up) + sum(made.pool.down)
    assert len(made.pool.down) == 7


def test_a_client_that_fails_is_named_and_left_out(tmp_path, monkeypatch):
    from thinwire.runtime import run as runs

    real = runs.Assembly.evaluation_data

    def load(assembly, client):
        if client == 1:
            raise OSError("disk on fire")
        return real(assembly, client)

    monkeypatch.setattr(runs.Assembly, "evaluation_data", load)
    result = run(tmp_path / "run", workers=2, **HELD)
    assert result.rounds[-1].dropped == [{"client": 1, "reason": "evaluation: OSError: disk on fire"}]
    assert [row["client"] for row in rows(tmp_path / "run")] == ["0", "2", "3", "4", "5"]
    assert result.summary["evaluated_clients"] == 5


def test_an_answer_that_ends_the_run_ends_it_in_an_evaluation_too():
    made = world(spy=lambda pool: Spy(pool, lambda answer: Answer(answer.client, "stop", reason="no model")), **HELD)
    with pytest.raises(TrainingError, match="no model"):
        evaluate(made)


def test_when_no_client_answers_there_is_no_number(tmp_path, monkeypatch):
    from thinwire.runtime import run as runs

    monkeypatch.setattr(runs.Assembly, "evaluation_data", lambda assembly, client: 1 / 0)
    result = run(tmp_path / "run", **HELD)
    assert result.rounds[-1].personal_accuracy is None
    assert len(result.rounds[-1].dropped) == 6
    assert rows(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "result: 0 bytes, 24 needed"),
        (RESULT.pack(1, 5, 0.5, 1.0)[:-1], "result: 23 bytes, 24 needed"),
        (RESULT.pack(1, 5, 0.5, 1.0) + b"\0", "result: 25 bytes, 24 needed"),
        (RESULT.pack(0, 5, 0.5, 1.0), "result: of version 0, not 1"),
        (RESULT.pack(1, 0, 0.5, 1.0), "result: accuracy 0.5 over 0 samples"),
        (RESULT.pack(1, 5, 1.5, 1.0), "result: accuracy 1.5 over 5 samples"),
        (RESULT.pack(1, 5, float("nan"), 1.0), "result: accuracy nan over 5 samples"),
    ],
)
def test_an_answer_that_is_none_is_refused(frame, reason):
    made = world(**HELD)
    made.play()
    made.simulation.pool = Spy(made.pool, lambda a: replace(a, frame=frame) if a.client == 3 else a)
    found = evaluate(made)
    assert found.dropped == [{"client": 3, "reason": f"evaluation: {reason}"}]
    assert len(found.scores) == 5


def test_a_client_that_never_stops_asking_is_dropped():
    from thinwire import frame as frames

    request = frames.write(frames.Frame(Kind.REQUEST, 0, 0, 0, bytes(8)))
    made = world(spy=lambda pool: Spy(pool), **HELD)
    made.play()
    made.pool.change = lambda a: Answer(1, "keyframe", request, Record()) if a.client == 1 else a
    found = evaluate(made)
    assert found.dropped == [{"client": 1, "reason": "evaluation: asked for a keyframe twice"}]


def test_tasks_of_an_evaluation_say_so():
    made = world(spy=lambda pool: Spy(pool), **HELD)
    made.play()
    purposes, answers = [], made.pool.answers
    made.pool.answers = lambda tasks, enough: purposes.extend(task.purpose for task in tasks) or answers(tasks)
    found = evaluate(made)
    assert purposes == [EVALUATE] * 6
    assert found.crossed_bytes > 6 * (ENVELOPE_BYTES + RESULT.size)
