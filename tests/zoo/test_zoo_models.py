"""Every model of the zoo gives the same bytes again or is refused in one line before the run begins."""

import pytest
import torch
from tests.zoo.harness import outcome
from tests.zoo.models import MODELS
from tests.zoo.table import OPEN, load, right
from tests.zoo.ways import NAMES, rotation

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")  # a model of the zoo

EXPECTED = load()
TURNS = [(name, way) for number, name in enumerate(MODELS) for way in rotation(number)]
SPAWNED = [(name, rotation(number, 1)[0]) for number, name in enumerate(MODELS) if MODELS[name].right == "same"][::3]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_zoo_is_large_and_every_way_has_its_turn():
    assert len(MODELS) >= 100
    assert {way for _, way in TURNS} == set(NAMES)


def test_the_table_has_every_cell_and_nothing_else():
    assert set(EXPECTED) == {(name, way) for name in MODELS for way in NAMES}


def test_the_table_says_of_every_model_what_a_run_of_it_must_come_to():
    assert not [cell for cell, found in EXPECTED.items() if found != OPEN and not right(*cell, found, EXPECTED)]


@pytest.mark.parametrize(("name", "way"), TURNS)
def test_a_model_is_trained_to_the_same_bytes_or_refused(name, way):
    found = outcome(name, way)
    assert right(name, way, found, EXPECTED), f"{found} (expected: {EXPECTED.get((name, way), OPEN)})"


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_trained_to_the_same_bytes_or_refused_in_every_way(name):
    found = {way: outcome(name, way) for way in NAMES}
    assert {way: what for way, what in found.items() if not right(name, way, what, EXPECTED)} == {}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), SPAWNED)
def test_workers_that_are_spawned_give_the_bytes_of_one_process(name, way):
    found = outcome(name, way, start_method="spawn")
    assert right(name, way, found, EXPECTED), f"{found} (expected: {EXPECTED.get((name, way), OPEN)})"
