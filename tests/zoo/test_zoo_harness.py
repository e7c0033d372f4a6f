"""The harness finds every kind of fault: a check that finds none would pass all models."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from tests.zoo import harness, table
from tests.zoo.families.norms import batchnorm1d
from tests.zoo.harness import Evidence, outcome, run_once
from tests.zoo.models import MODELS
from tests.zoo.ways import NAMES

from thinwire.errors import ConfigError, DataError, TrainingError


@pytest.fixture(scope="module")
def sound():
    return run_once("plain", "fedavg")


def judged(monkeypatch, *runs, name="plain"):
    """The outcome of a cell whose runs left this."""
    left = iter(runs)
    monkeypatch.setattr(harness, "run_once", lambda *cell, **how: next(left))
    return outcome(name, "fedavg")


def test_a_sound_run_has_two_rounds_of_three_clients_and_a_model(sound):
    assert sound.error is None
    assert sound.begun == len(sound.rounds) == 2
    assert len(sound.crossed) == 2 * (3 + 1)
    assert sound.shipped
    assert [line.clients for line in sound.rounds] == [3, 3]


def test_the_same_evidence_is_the_same(monkeypatch, sound):
    assert judged(monkeypatch, sound, sound) == "same"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crossed": ["round-1-client-0-up.tw 00"]}, "other bytes in round-1-client-0-up.tw"),
        ({"shipped": "00"}, "another model file"),
        ({"rounds": []}, "other losses or accuracies"),
        ({"error": ValueError("no")}, "ValueError: no"),
    ],
)
def test_a_difference_is_found_and_told_apart(monkeypatch, sound, change, words):
    other = replace(sound, **change)
    for again, which in ((sound, "two workers"), (other, "a second run")):
        found = judged(monkeypatch, sound, other, again)
        assert found.startswith(f"fault: {which}: ")
        assert words in found


@pytest.mark.parametrize(
    ("error", "begun", "words"),
    [
        (KeyError("weight"), 0, "fault: KeyError in round 0"),
        (ConfigError("model", "x", "no"), 1, "fault: refused in round 1, not before"),
        (DataError("model:\nno"), 0, "fault: refused in several lines"),
        (TrainingError("it does not work"), 0, "fault: refused without a name"),
        (TrainingError("layer 0.weight: no"), 0, "refused: layer 0.weight: no"),
        (ConfigError("local.lr", 7, "below"), 0, "refused: local.lr = 7: below"),
        (DataError("Linear cannot be trained"), 0, "refused: Linear cannot be trained"),
    ],
)
def test_a_refusal_is_early_in_one_line_and_names_something(monkeypatch, error, begun, words):
    assert judged(monkeypatch, Evidence(begun, error=error)).startswith(words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dropped": [{"client": 2, "reason": "ValueError: no"}]}, "round 1: dropped"),
        ({"skipped": "1 update"}, "round 1: dropped 1 update"),
        ({"loss": float("nan")}, "round 1: loss is nan"),
        ({"train_loss": float("inf")}, "round 1: train_loss is inf"),
    ],
)
def test_a_round_with_a_loss_is_a_fault(monkeypatch, sound, change, words):
    bad = replace(sound, rounds=[replace(sound.rounds[0], **change), sound.rounds[1]])
    assert words in judged(monkeypatch, bad)


def _shipped(name, key, value):
    """A run whose model has this tensor."""
    entry = MODELS[name]
    model = harness.seeded(lambda: entry.build(*harness.SHAPES[entry.data]), harness.SEED)
    model.load_state_dict(model.state_dict() | {key: value})
    return Evidence(2, shipped="0", model=model)


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("plain", "0.bias", torch.full((16,), torch.nan), "0.bias: 16 numbers are no longer finite"),
        ("a frozen layer", "2.bias", torch.zeros(16), "frozen 2.bias changed"),
        ("a mask of -inf", "constant", torch.zeros(16, 16), "constant constant changed"),
        ("a step counter from 2**62 on", "steps", torch.tensor(2**62), "counter steps: was"),
        ("BatchNorm1d", "1.num_batches_tracked", torch.tensor(0), "counter 1.num_batches_tracked: was 0, is 0"),
        ("BatchNorm without affine", "1.running_var", torch.full((16,), -1.0), "1.running_var: a negative variance"),
    ],
)
def test_a_model_that_lost_something_is_a_fault(monkeypatch, name, key, value, words):
    assert judged(monkeypatch, _shipped(name, key, value), name=name).startswith(f"fault: {words}")


def test_a_tensor_of_another_type_or_missing_is_a_fault(monkeypatch, sound):
    shape, classes = harness.SHAPES["vectors"]
    assert "is torch.float64" in judged(monkeypatch, replace(sound, model=deepcopy(sound.model).double()))
    assert "missing in the shipped model" in judged(
        monkeypatch, replace(sound, model=batchnorm1d(shape, classes)), name="LSTM with dropout"
    )


def test_the_table_comes_back_as_it_was_written(monkeypatch, tmp_path):
    monkeypatch.setattr(table, "FILE", tmp_path / "outcomes.json")
    cells = {("plain", way): "same" for way in NAMES} | {("dropout", way): "same" for way in NAMES}
    cells |= {("dropout", "fedpm"): "refused: local.lr = 7: below", ("rrelu", "thin"): "fault: other bytes"}
    table.save(cells)
    assert json.loads(table.FILE.read_text())["plain"] == {"same": "all"}
    assert table.load() == cells | {("rrelu", "thin"): "open"}
    assert "| dropout | all but fedpm | fedpm: local.lr = 7: below |" in table.markdown(table.load())


@pytest.mark.parametrize(
    ("name", "way", "found", "recorded", "good"),
    [
        ("plain", "fedavg", "same", "open", True),
        ("plain", "fedavg", "refused: local.lr", "open", False),
        ("plain", "fedpm", "refused: local.lr", "open", True),
        ("plain", "fedpm", "refused: local.lr", "same", False),
        ("plain", "fedpm", "fault: other bytes", "open", False),
        ("no parameter", "fedpm", "same", "open", False),
        ("no parameter", "fedpm", "refused: model", "refused: model", True),
        ("no parameter", "fedpm", "refused: model", "refused: other words", False),
    ],
)
def test_what_is_right_depends_on_model_way_and_record(name, way, found, recorded, good):
    assert table.right(name, way, found, {(name, way): recorded}) is good
