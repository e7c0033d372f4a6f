"""Data from `module:function`."""

import sys
from types import ModuleType

import numpy as np
import pytest

from thinwire.data import Dataset, Split, load
from thinwire.errors import ConfigError, DataError

X, Y = np.arange(6.0).reshape(3, 2), np.array([0, 2, 1])
IDS = np.zeros((2, 80), np.int64)


@pytest.fixture
def own(monkeypatch):
    """`own(result)` makes `own_data:make` return it, and loads it."""
    module = ModuleType("own_data")
    monkeypatch.setitem(sys.modules, "own_data", module)

    def loaded(result):
        module.make = lambda: result
        return load("own_data:make")

    module.constant = 3
    loaded.module = module
    return loaded


def test_two_pairs_of_arrays_make_a_data_set(own):
    dataset = own(((X, Y), (X[:1], Y[:1])))
    assert (dataset.name, dataset.classes, dataset.shape) == ("own_data:make", 3, (2,))
    assert dataset.train.x.dtype == np.float32
    assert dataset.train.y.dtype == np.int64
    assert len(dataset.test) == 1


def test_plain_lists_do_too(own):
    assert own([[[[1, 2], [3, 4]], [0, 1]], [[[5, 6]], [1]]]).train.x.tolist() == [[1, 2], [3, 4]]


def test_a_data_set_is_taken_as_it_is(own):
    given = Dataset("mine", Split(X, Y), Split(X, Y), classes=5, columns={"user": Y})
    assert own(given) is given


def test_targets_of_two_axes_make_text(own):
    dataset = own(((IDS, IDS + 6), (IDS, IDS)))
    assert dataset.is_text
    assert dataset.train.x.dtype == np.int64
    assert dataset.classes == 7


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, r"must return a Dataset or \(\(x, y\), \(x, y\)\), not NoneType"),
        ((X, Y), r"must return a Dataset or \(\(x, y\), \(x, y\)\), not tuple"),
        (((X, Y), (X,)), r"must return a Dataset or"),
        (((X, Y), (X, Y[:2])), r"\(test\): x has 3 rows, y has 2"),
        (((X, Y), (X[:0], Y[:0])), r"\(test\): has no samples"),
        (((X[:0], Y[:0]), (X, Y)), r"\(train\): has no samples"),
        (((X, Y * 1.0), (X, Y)), r"\(train\): y has shape \(3,\) of float64, must be integers \(n,\)"),
        (((X, Y.reshape(3, 1, 1)), (X, Y)), r"\(train\): y has shape \(3, 1, 1\)"),
        (((X[:, 0], Y), (X, Y)), r"\(train\): x has shape \(3,\) of float64, must be numbers \(n, ...\)"),
        ((([["a"]], [0]), (X, Y)), r"\(train\): x has shape \(1, 1\) of <U1, must be numbers"),
        ((([[1], [2, 3]], [0, 1]), (X, Y)), r"\(train\): x is no array of one shape"),
        (((X, Y - 1), (X, Y)), r"\(train\), column label, row 0: is negative"),
        (((X, Y), (X[:, :1], Y)), r"\(test\): samples have shape \(1,\), those of train \(2,\)"),
        (((X * np.nan, Y), (X, Y)), r"\(train\), column x, row 0: holds NaN or infinity"),
        (((IDS * 1.0, IDS), (IDS, IDS)), r"\(train\): x holds float64, must hold integers where y has two axes"),
    ],
)
def test_a_bad_result_is_refused_by_name(own, result, message):
    with pytest.raises(DataError, match=f"^own_data:make.*{message}"):
        own(result)


def test_a_bad_data_set_object_is_refused(own):
    with pytest.raises(DataError, match=r"own_data:make \(train\), column label, row 1: is not below the 2 classes"):
        own(Dataset("mine", Split(X, Y), Split(X, Y), classes=2))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("no_such_module_at_all:make", "No module named 'no_such_module_at_all'"),
        ("own_data:missing", "cannot be imported: .*missing"),
        ("own data:make", "cannot be imported"),
        ("own_data:constant", "must be a function, not int"),
    ],
)
def test_a_function_that_is_not_there_is_refused(own, spec, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        load(spec)
    assert caught.value.field == "data"
