"""Populations: clients whose samples are drawn when they are asked for, and partitions of thousands of clients."""

import numpy as np
import pytest
from test_data_partition import labelled

from thinwire.data import partition
from thinwire.data.parts import Dealt, Drawn
from thinwire.errors import ConfigError
from thinwire.rng import generator


def test_a_client_draws_its_samples_without_replacement():
    parts = partition(labelled(600), "drawn:10", 50, seed=3)
    assert isinstance(parts, Drawn)
    for client, rows in enumerate(parts):
        assert rows.dtype == np.int64
        assert len(rows) == parts.size(client) == 10
        assert (np.diff(rows) > 0).all()
        assert rows.min() >= 0
        assert rows.max() < 600


def test_a_draw_depends_on_seed_and_client_alone():
    few, many = (partition(labelled(600), "drawn:10", clients, seed=3) for clients in (50, 10**9))
    for client in (0, 7, 49):
        np.testing.assert_array_equal(few[client], many[client])
        expected = np.sort(generator(3, client=client, purpose="drawn").choice(600, 10, replace=False))
        np.testing.assert_array_equal(few[client], expected)
    other = partition(labelled(600), "drawn:10", 50, seed=4)
    assert not np.array_equal(few[0], few[1])
    assert not np.array_equal(few[0], other[0])


def test_draws_are_pinned():
    """A run that is repeated on another day has the clients that it had."""
    parts = partition(labelled(600), "drawn:4", 2, seed=0)
    assert [part.tolist() for part in parts] == [[71, 162, 531, 583], [106, 150, 199, 399]]


def test_every_sample_is_as_likely():
    parts = partition(labelled(20), "drawn:5", 4000, seed=1)
    counts = np.bincount(np.concatenate(parts), minlength=20)
    assert abs(counts / 1000 - 1).max() < 0.15


def test_a_population_may_be_larger_than_the_data_and_costs_nothing(monkeypatch):
    parts = partition(labelled(60), "drawn:1", 2**31, seed=0)
    assert len(parts) == 2**31
    assert parts.holders == range(2**31)
    assert parts[2**31 - 1].size == 1
    assert parts.size(12345) == 1
    for client in (-1, 2**31):
        with pytest.raises(IndexError):
            parts[client]


def test_a_client_may_have_all_samples():
    (rows,) = partition(labelled(60), "drawn:60", 1, seed=0)
    np.testing.assert_array_equal(rows, np.arange(60))


@pytest.mark.parametrize("spec", ["drawn", "drawn:", "drawn:0", "drawn:-1", "drawn:2.5", "drawn:x", "drawn:nan"])
def test_a_wrong_spec_is_refused(spec):
    with pytest.raises(ConfigError, match=r"partition = '?drawn.*drawn:N.*N = 1, 2, \.\.\."):
        partition(labelled(20), spec, 2, seed=0)


def test_more_than_there_is_cannot_be_drawn():
    with pytest.raises(ConfigError, match=r"drawn:1 to drawn:20, the number of training samples"):
        partition(labelled(20), "drawn:21", 2, seed=0)
    with pytest.raises(ConfigError, match=r"clients = 0.*at least 1"):
        partition(labelled(20), "drawn:5", 0, seed=0)


def test_holders_of_a_dealt_population_have_samples():
    parts = Dealt([np.arange(3), np.arange(0), np.arange(1)])
    assert parts.holders == [0, 2]
    assert [parts.size(client) for client in range(3)] == [3, 0, 1]
    assert len(parts) == 3


@pytest.mark.parametrize("alpha", [0.05, 0.3, 10])
def test_five_thousand_dirichlet_clients(alpha, recwarn):
    dataset = labelled(60_000)
    parts = partition(dataset, f"dirichlet:{alpha}", 5000, seed=0, allow_empty=True)
    assert len(parts) == 5000
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(60_000))
    sizes = np.array([len(part) for part in parts])
    assert (sizes == 1).any() == (alpha < 1)
    assert len(parts.holders) == (sizes > 0).sum()
    assert not recwarn


def test_a_partition_is_what_it_was():
    """Every partitioner's rows, digested: what was dealt before is dealt for ever."""
    from hashlib import sha256

    def digest(spec, clients, **columns):
        parts = partition(labelled(600, columns=columns), spec, clients, seed=5, allow_empty=True)
        return sha256(b"|".join(part.tobytes() for part in parts)).hexdigest()[:12]

    users = np.random.default_rng(2).integers(0, 9, 600)
    found = [digest(spec, 7) for spec in ("iid", "contiguous", "dirichlet:0.3", "shards:3")]
    assert [*found, digest("natural:user", 9, user=users)] == PINNED


PINNED = ["eabd65efb4e1", "66df09dbd13b", "eebf905958ac", "18fbf0c3050a", "117f63933f54"]
