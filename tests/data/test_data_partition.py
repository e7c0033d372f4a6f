"""Partitions: cover, sizes, seeds, skew, and what is refused."""

import numpy as np
import pytest

from thinwire.data import Dataset, Split, partition, split_local
from thinwire.errors import ConfigError, DataError

SPECS = ["iid", "contiguous", "dirichlet:0.5", "shards:2"]


def labelled(samples=600, classes=10, columns=None):
    """Samples whose label is known and whose x is their row number."""
    y = np.random.default_rng(0).integers(0, classes, samples)
    split = Split(np.arange(samples, dtype=np.float32)[:, np.newaxis], y)
    return Dataset("labelled", split, split, classes, columns or {})


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def classes_held(dataset, parts):
    return [len(np.unique(dataset.train.y[part])) for part in parts]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("samples", "clients"), [(600, 1), (600, 7), (603, 10), (37, 17)])
def test_every_sample_goes_to_exactly_one_client(spec, samples, clients):
    parts = partition(labelled(samples), spec, clients, seed=3, allow_empty=True)
    assert len(parts) == clients
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(samples))
    for part in parts:
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("spec", SPECS)
def test_a_partition_is_a_function_of_its_arguments(spec):
    dataset = labelled()
    first, again = (partition(dataset, spec, 6, seed=11, allow_empty=True) for _ in range(2))
    assert same(first, again)
    other = partition(dataset, spec, 6, seed=12, allow_empty=True)
    assert same(first, other) == (spec == "contiguous")


def test_iid_parts_are_equal_and_mixed():
    dataset = labelled(605)
    parts = partition(dataset, "iid", 10, seed=0)
    assert sorted({len(part) for part in parts}) == [60, 61]
    assert min(classes_held(dataset, parts)) >= 8
    assert np.abs(np.diff([part.mean() for part in parts])).max() < 200


def test_iid_is_pinned():
    parts = partition(labelled(12), "iid", 3, seed=0)
    assert [part.tolist() for part in parts] == [[1, 4, 7, 11], [3, 5, 8, 10], [0, 2, 6, 9]]


def test_contiguous_parts_follow_each_other():
    parts = partition(labelled(10), "contiguous", 3, seed=0)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_a_smaller_alpha_is_more_unequal():
    dataset = labelled(5000)

    def largest_share(alpha):
        parts = partition(dataset, f"dirichlet:{alpha}", 5, seed=2, allow_empty=True)
        counts = np.array([np.bincount(dataset.train.y[part], minlength=10) for part in parts])
        return (counts.max(axis=0) / counts.sum(axis=0)).mean()

    shares = [largest_share(alpha) for alpha in (0.05, 0.5, 5, 500)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.7
    assert shares[-1] < 0.25


def test_dirichlet_shares_have_the_right_mean_and_variance():
    clients, alpha = 4, 0.7
    dataset = labelled(20_000, classes=50)
    shares = []
    for seed in range(8):
        parts = partition(dataset, f"dirichlet:{alpha}", clients, seed, allow_empty=True)
        counts = np.array([np.bincount(dataset.train.y[part], minlength=50) for part in parts])
        shares.append(counts / counts.sum(axis=0))
    values = np.stack(shares)  # (seeds, clients, classes): each column one draw from Dirichlet(alpha, ..., alpha)
    variance = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    assert abs(values[:, 0].mean() - 1 / clients) < 0.05
    assert abs(values.var() / variance - 1) < 0.15


@pytest.mark.parametrize("alpha", ["1e-6", "1e6"])
def test_extreme_alphas_work(alpha):
    parts = partition(labelled(), f"dirichlet:{alpha}", 20, seed=0, allow_empty=True)
    assert sum(len(part) for part in parts) == 600


def test_shards_bound_the_classes_of_a_client():
    dataset = labelled(1003)
    parts = partition(dataset, "shards:2", 20, seed=0)
    assert max(classes_held(dataset, parts)) <= 4  # a shard of 25 spans two labels at most
    assert {len(part) for part in parts} <= {50, 51, 52}


@pytest.mark.parametrize("spec", SPECS)
def test_a_thousand_clients_are_quick_and_need_no_retries(spec, recwarn):
    parts = partition(labelled(6000), spec, 1000, seed=0, allow_empty=True)
    assert sum(len(part) for part in parts) == 6000
    assert not recwarn


def test_as_many_clients_as_samples():
    parts = partition(labelled(30), "iid", 30, seed=0)
    assert all(len(part) == 1 for part in parts)


@pytest.mark.parametrize(
    "values",
    [
        np.array(["b", "a", "c", "a", "b", "a"], dtype=object),
        np.array([7, -1, 9, -1, 7, -1]),
        np.array(["2021-02-02", "2020-01-01", "2022-01-01", "2020-01-01", "2021-02-02", "2020-01-01"], "datetime64[D]"),
    ],
)
def test_natural_clients_are_the_distinct_values_in_sorted_order(values, capsys):
    dataset = labelled(6, columns={"user": values})
    parts = partition(dataset, "natural:user", 3, seed=5)
    assert [part.tolist() for part in parts] == [[1, 3, 5], [0, 4], [2]]
    assert capsys.readouterr().err == ""


def test_natural_refuses_another_number_of_clients():
    dataset = labelled(6, columns={"user": np.array([1, 2, 3, 1, 2, 3])})
    with pytest.raises(
        ConfigError, match="clients = 5: 3, the number of distinct values of user, for partition natural"
    ):
        partition(dataset, "natural:user", 5, seed=0)


def test_natural_refuses_an_unknown_column_and_lists_those_there_are():
    dataset = labelled(6, columns={"user": np.arange(6), "city": np.arange(6)})
    with pytest.raises(ConfigError, match="natural:COLUMN with a further column of train; it has user, city"):
        partition(dataset, "natural:town", 6, seed=0)
    with pytest.raises(ConfigError, match=r"it has user, city; did you mean user\?$"):
        partition(dataset, "natural:users", 6, seed=0)
    with pytest.raises(ConfigError, match="it has none"):
        partition(labelled(6), "natural:town", 6, seed=0)


@pytest.mark.parametrize("values", [np.array(["a", None, "b"], dtype=object), np.array([1.0, np.nan, 2.0])])
def test_natural_refuses_a_missing_value(values):
    with pytest.raises(DataError, match="column user, row 1: is missing, so it has no client"):
        partition(labelled(3, columns={"user": values}), "natural:user", 3, seed=0)


def test_an_empty_client_is_named_unless_allowed():
    dataset = labelled(40, classes=2)
    parts = partition(dataset, "dirichlet:0.01", 20, seed=1, allow_empty=True)
    empty = [client for client, part in enumerate(parts) if len(part) == 0]
    message = rf"client {empty[0]} has no samples \({len(empty)} of 20 clients are empty .*: use --allow-empty or fewer"
    with pytest.raises(DataError, match=message):
        partition(dataset, "dirichlet:0.01", 20, seed=1)


WRONG_NUMBERS = [f"dirichlet{alpha}" for alpha in ("", ":", ":-1", ":0", ":nan", ":inf", ":x")]
WRONG_NUMBERS += [f"shards{count}" for count in ("", ":", ":x", ":0", ":-2", ":1.5")]


@pytest.mark.parametrize("spec", ["foo", "", "IID", "iid:3", "contiguous:", "natural", *WRONG_NUMBERS])
def test_a_wrong_spec_lists_what_is_allowed(spec):
    with pytest.raises(ConfigError, match=r"iid, contiguous, dirichlet:ALPHA \(ALPHA > 0\), shards:K") as caught:
        partition(labelled(20), spec, 2, seed=0)
    assert (caught.value.field, caught.value.value) == ("partition", spec)


@pytest.mark.parametrize("clients", [0, -1, 21])
@pytest.mark.parametrize("spec", SPECS)
def test_a_number_of_clients_that_the_data_do_not_allow_is_refused(spec, clients):
    with pytest.raises(ConfigError, match=f"clients = {clients}: 1 to 20, the number of training samples"):
        partition(labelled(20), spec, clients, seed=0, allow_empty=True)


def test_more_shards_than_samples_are_refused():
    with pytest.raises(ConfigError, match="'shards:5': 25 shards are more than the 20 training samples"):
        partition(labelled(20), "shards:5", 5, seed=0)


@pytest.fixture
def text():
    windows = Split(np.zeros((10, 80), np.int64), np.zeros((10, 80), np.int64))
    return Dataset("text", windows, windows, classes=1, columns={"play": np.repeat([3, 5], 5)})


@pytest.mark.parametrize("spec", ["dirichlet:1", "shards:2"])
def test_text_has_no_labels_to_split_by(text, spec):
    with pytest.raises(ConfigError, match="iid, contiguous or natural:COLUMN for text, which has no labels"):
        partition(text, spec, 2, seed=0)


def test_text_splits_by_parts_by_chance_or_by_column(text):
    halves = [list(range(5)), list(range(5, 10))]
    assert [part.tolist() for part in partition(text, "contiguous", 2, seed=0)] == halves
    assert [part.tolist() for part in partition(text, "natural:play", 2, seed=0)] == halves
    assert sorted(np.concatenate(partition(text, "iid", 2, seed=0)).tolist()) == list(range(10))


@pytest.mark.parametrize(
    ("samples", "fraction", "held"),
    [(10, 0.2, 2), (10, 0.0, 0), (1, 0.9, 0), (2, 0.9, 1), (0, 0.5, 0), (7, 0.5, 4), (3, 0.1, 0)],
)
def test_a_clients_own_split_has_the_size_asked_for(samples, fraction, held):
    indices = np.arange(samples) * 3 + 1
    train, test = split_local(indices, fraction, seed=0, client=2)
    assert len(test) == held
    assert train.dtype == test.dtype == np.int64
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), indices)
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()


def test_a_clients_own_split_depends_on_seed_and_client_alone():
    indices = np.arange(100)
    held = split_local(indices, 0.2, seed=1, client=4)[1]
    np.testing.assert_array_equal(held, split_local(indices, 0.2, seed=1, client=4)[1])
    assert not np.array_equal(held, split_local(indices, 0.2, seed=1, client=5)[1])
    assert not np.array_equal(held, split_local(indices, 0.2, seed=2, client=4)[1])


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ConfigError, match=r"test_fraction = .*: at least 0 and below 1"):
        split_local(np.arange(5), fraction, seed=0, client=0)
