"""Classes: keys from counts or tensors, folding, and what a payload may name."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.codecs import Context
from thinwire.codecs.classes import BINS, MAX_COUNT, Keys, gather, information
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

LAYOUT = Layout.of({"a": (2, 2), "none": (0,), "b": (), "c": (3,)})


def keys_of(shared):
    return Keys.of(Context(Layout.of({"a": (len(shared),)}), np.array(shared, np.uint32)))


def test_without_counts_a_tensor_is_a_key():
    keys = Keys.of(Context(LAYOUT))
    assert keys.index.tolist() == [0, 0, 0, 0, 2, 3, 3, 3]
    assert keys.number == 4


def test_with_counts_the_count_is_the_key():
    keys = keys_of([0, 7, 3])
    assert keys.index.tolist() == [0, 7, 3]
    assert keys.number == 8


def test_an_empty_layout_has_one_key():
    assert Keys.of(Context(Layout.of({}))).number == 1
    assert keys_of([]).number == 1


@given(st.lists(st.integers(0, MAX_COUNT - 1), min_size=1, max_size=30), st.sampled_from(BINS))
@settings(max_examples=200, deadline=None)
def test_huge_counts_fold_as_if_tabled_one_by_one(shared, bins):
    """key · b // number, whether or not the keys were folded to 4096 before."""
    keys, number = keys_of(shared), max(shared) + 1
    assert keys.number == min(number, BINS[0])
    if bins in keys.choices():
        assert keys.fold(bins)[keys.index].tolist() == [count * bins // number for count in shared]


@pytest.mark.parametrize("number", [1, 255, 256, 257, 300, 5000, 2**24])
def test_a_coarser_finest_folds_alike(number):
    shared = np.linspace(0, number - 1, 500).astype(np.uint32)
    keys = Keys.of(Context(Layout.of({"a": (500,)}), shared), 256)
    assert keys.number == min(number, 256)
    for bins in keys.choices():
        assert np.array_equal(keys.fold(bins)[keys.index], shared.astype(np.int64) * bins // number)


@pytest.mark.parametrize("number", [1, 2, 3, 255, 256, 257, 4095, 4096, 4097, 2**24])
def test_choices_run_from_the_finest_to_one(number):
    choices = keys_of([number - 1]).choices()
    assert choices[0] == min(number, 4096)
    assert choices[-1] == 1
    assert sorted(set(choices), reverse=True) == choices
    assert all(a % b == 0 for a, b in pairwise(BINS))


@pytest.mark.parametrize("number", [1, 5, 300, 4096])
def test_every_class_of_a_fold_has_a_key(number):
    keys = keys_of([number - 1])
    for bins in keys.choices():
        fold = keys.fold(bins)
        assert fold.size == number
        assert np.unique(fold).tolist() == list(range(bins))


def test_gather_sums_rows_by_class():
    table = np.arange(12).reshape(6, 2)
    assert gather(np.array([0, 0, 1, 1, 1, 2]), table).tolist() == [[2, 4], [18, 21], [10, 11]]
    assert gather(np.zeros(4, np.int64), np.arange(4)[:, None]).tolist() == [[6]]


def test_information_is_the_conditional_entropy():
    assert information(np.array([[1, 1], [0, 9], [0, 0], [2, 2]])) == pytest.approx(2 + 4)
    assert information(np.zeros((3, 2), np.int64)) == 0


@pytest.mark.parametrize("bins", [0, 3, 7, 9, 4096, 2**40])
def test_only_numbers_of_classes_that_the_writer_tries_are_read(bins):
    keys = keys_of([7])
    assert keys.check_bins(8) == 8
    with pytest.raises(DecodeError, match=r"classes of 8 keys"):
        keys.check_bins(bins)


@pytest.mark.parametrize(
    ("shared", "allowed"),
    [
        (np.zeros(8, np.int32), "uint32 counts of shape"),
        (np.zeros(8, np.float32), "uint32 counts of shape"),
        (np.zeros(7, np.uint32), "uint32 counts of shape"),
        (np.zeros((4, 2), np.uint32), "uint32 counts of shape"),
        (np.full(8, MAX_COUNT, np.uint32), "counts below"),
    ],
)
def test_shared_counts_of_another_kind_are_refused(shared, allowed):
    with pytest.raises(ConfigError, match=allowed):
        Keys.of(Context(LAYOUT, shared))
