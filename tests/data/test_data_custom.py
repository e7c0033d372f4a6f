"""Data from `module:function`."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

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
    made = own(given)
    assert (made.name, made.classes, made.columns["user"].tolist()) == ("mine", 5, Y.tolist())
    np.testing.assert_array_equal(made.train.x, X)
    assert made.train.x.dtype == np.float32


def test_targets_of_two_axes_make_text(own):
    dataset = own(((IDS, IDS + 6), (IDS, IDS)))
    assert dataset.is_text
    assert dataset.train.x.dtype == np.int64
    assert dataset.classes == 7


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, r"must return a Dataset or \(\(x, y\), \(x, y\)\) for train and test, not NoneType"),
        ((X, Y, X, Y), r"must return a Dataset or .*, not tuple of \(ndarray, ndarray, ndarray, ndarray\)"),
        ((X, Y), r"\(train\): must be \(x, y\) or a data set of such pairs, not ndarray"),
        (((X, Y), (X,)), r"\(test\): must be \(x, y\) or a data set of such pairs, not tuple of \(ndarray\)"),
        (({"x": X, "y": Y}, (X, Y)), r"\(train\): must be \(x, y\) or a data set of such pairs, not dict"),
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
    with pytest.raises(
        DataError, match=r"own_data:make \(train\), column label, row 1: is 2, must be below the 2 classes"
    ):
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


class Unreadable:
    """Three pairs, one of which is in a file that is not there."""

    def __init__(self, row):
        self.row = row

    def __len__(self):
        return 3

    def __getitem__(self, row):
        if row == self.row:
            raise OSError("gone\nfor good")
        return X[row], Y[row]


@pytest.mark.parametrize(("function", "reason"), [
    (lambda: {}["x"], r"own_data:make: must return train and test .*\(KeyError: 'x'\)"),
    (lambda folder: folder, r"when called without arguments \(TypeError: .*argument"),
    (lambda: sys.exit(0), r"when called without arguments \(SystemExit: 0\)"),
    (lambda: (Unreadable(0), Unreadable(0)), r"Unreadable, row 0: cannot be read \(OSError: gone for good\)"),
    (lambda: (Unreadable(2), Unreadable(2)), r"Unreadable, row 2: cannot be read \(OSError: gone for good\)"),
])  # fmt: skip
def test_a_function_that_fails_is_one_line(own, function, reason):
    own.module.make = function
    with pytest.raises(DataError, match=reason) as caught:
        load("own_data:make")
    assert "\n" not in str(caught.value)


# labels as people have them ------------------------------------------------------------------------------------------

HOT = np.eye(3, dtype=int)[Y]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y[:, None], r"y has shape \(3, 1\) of int64, must be integers \(n,\): y\[:, 0\]"),
        (X.astype(np.uint8), Y[:, None], r"y has shape \(3, 1\) of int64, must be integers \(n,\): y\[:, 0\]"),
        (X[:, :1].astype(int), Y[:, None], r"y has shape \(3, 1\)"),
        (X, HOT, r"y has shape \(3, 3\) of int64 and is one-hot, must be integers \(n,\): y\.argmax\(1\)"),
        (HOT, HOT, "one-hot"),
        (X, HOT.astype(np.float32), "of float32 and is one-hot"),
        (X, HOT.astype(bool), "of bool and is one-hot"),
        (X, Y * 1.0, r"of float64, must be integers \(n,\): y\.astype\(int\)"),
        (X, Y + 0.5, r"of float64, must be integers \(n,\)$"),
        (X, Y > 0, r"of bool, must be integers \(n,\): y\.astype\(int\)"),
        (X, list("abc"), r"of <U1, must be integers \(n,\): number the classes 0, 1, … in the same way for train"),
        (X, np.array(["a", "b", "c"], object), r"of object, must be integers \(n,\): number the classes"),
        (np.ma.masked_greater(X, 4), Y, "x is a masked array with masked entries, must have them all"),
        (X, np.ma.masked_equal(Y, 2), "y is a masked array with masked entries, must have them all"),
        (list(np.ma.masked_greater(X, 4)), Y, "x is a masked array with masked entries, must have them all"),
        (X, 3, r"y has shape \(\) of int64, must be integers"),
        (X, [], "x has 3 rows, y has 0"),
        (np.zeros((3, 0)), Y, r"x has shape \(3, 0\)"),
        (X * 1j, Y, "of complex128, must be numbers"),
        (
            IDS,
            IDS[:, :7],
            r"y has shape \(2, 7\) of int64, must be integers \(n,\), or for text of the shape of x, \(2, 80\)",
        ),
        (IDS - 1, IDS, r"column x, row 0: is negative \(-1\), tokens are not"),
        (X * 1e300, Y, r"column x, row 0: holds NaN or infinity \(inf\), must be finite as float32"),
        (torch.tensor(X).to_sparse(), Y, "x is no array"),
    ],
)
def test_labels_that_people_have_are_refused_by_what_they_are(own, x, y, message):
    for result in (((x, y), (X, Y)), Dataset("d", Split(x, y), Split(X, Y), 9)):
        with pytest.raises(DataError, match=rf"^own_data:make \(train\).*{message}") as caught:
            own(result)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (torch.tensor(X).bfloat16(), np.float32),
        (torch.tensor(X).half(), np.float32),
        (torch.tensor(X, requires_grad=True), np.float32),
        (torch.nn.Parameter(torch.tensor(X)), np.float32),
        (torch.tensor(X).double(), np.float32),
        (X.astype(bool), np.float32),
    ],
)
def test_tensors_of_every_kind_become_arrays(own, x, dtype):
    made = own(((x, torch.tensor(Y)), (X, Y)))
    assert made.train.x.dtype == dtype
    assert made.train.y.tolist() == Y.tolist()


class Items(torch.utils.data.Dataset):
    """A torch data set of the items given."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


def test_a_pair_of_torch_data_sets_is_read(own):
    pairs = [(torch.tensor(x).float(), int(y)) for x, y in zip(X, Y, strict=True)]
    for train in (
        torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y)),
        Items(pairs),
        torch.utils.data.Subset(Items([*pairs, (torch.zeros(2), 9)]), range(3)),
        Items(pairs[:2]),  # of two items, and yet no (x, y)
    ):
        made = own((train, (X, Y)))
        np.testing.assert_array_equal(made.train.x, X[: len(train)])
        assert made.train.y.tolist() == Y[: len(train)].tolist()
        assert not made.is_text


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Items([]), r"\(train\): has no samples"),
        (Items([(torch.zeros(2), 0), (torch.zeros(3), 1)]), "the items of Items are not of one shape"),
        (Items([(torch.zeros(2), 0), 5]), r"Items, row 1: must be a pair \(x, y\), not int"),
        (
            Items([(object(), 0)]),
            "Items, row 0: x must be an array or a tensor, not object; a transform can make it one",
        ),
        (Items([{"x": 1}]), r"must be \(x, y\) or a data set of such pairs, not Items"),
        (torch.utils.data.DataLoader(Items([(X[0], 0)])), "not DataLoader: return its .dataset"),
        (Items([(np.ma.masked_greater(X[2], 4), 0)]), "Items, row 0: x is a masked array with masked entries"),
        (torch.tensor(X), "not Tensor"),
        (iter([(X, Y)]), "not list_iterator"),
    ],
)
def test_a_data_set_that_holds_no_pairs_is_refused(own, part, message):
    with pytest.raises(DataError, match=message):
        own((part, (X, Y)))


def test_tables_of_pandas_are_refused_with_what_to_return(own):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=["a", "b"])
    for part, name in ((table, "DataFrame"), (table["a"], "Series")):
        with pytest.raises(DataError, match=rf"not {name}: return \(table\[columns\]\.to_numpy\(\), table\[label\]"):
            own((part, (X, Y)))
    made = own(((table, pandas.Series(Y)), (table.to_numpy(), Y)))
    np.testing.assert_array_equal(made.train.x, X)


def test_a_masked_array_without_masked_entries_is_taken(own):
    made = own(((np.ma.masked_greater(X, 9), np.ma.array(Y)), (X, Y)))
    assert type(made.train.x) is type(made.train.y) is np.ndarray
    np.testing.assert_array_equal(made.train.x, X)


@pytest.mark.parametrize("order", [np.asfortranarray, lambda x: x[::-1, ::-1], lambda x: np.repeat(x, 2, 1)[:, ::2]])
def test_arrays_in_any_order_become_contiguous_once(own, order):
    x, ids = order(X.astype(np.float32)), order(np.arange(160).reshape(2, 80))
    for made, given in ((own(((x, Y), (x, Y))), x), (own(((ids, ids), (ids, ids))), ids)):
        for split in (made.train, made.test):
            assert split.x.flags.c_contiguous
            assert split.y.flags.c_contiguous
            np.testing.assert_array_equal(split.x, given)


def test_what_is_changed_afterwards_does_not_reach_the_run(own):
    x, ids, y = X.astype(np.float32), IDS.copy(), Y.astype(np.int64)
    for given in (((x, y), (x, y)), ((ids, ids), (ids, ids)), Dataset("d", Split(x, y), Split(x, y), 3, {"user": y})):
        made = own(given)
        kept = [made.train.x, made.train.y, made.test.x, made.test.y, *made.columns.values()]
        assert not any(np.shares_memory(mine, theirs) for mine in kept for theirs in (x, ids, y))


# stray labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "dtype"), [(10**9, np.int64), (10**7, np.int32), (65536, np.int64)])
def test_one_stray_label_is_refused_with_its_row(own, value, dtype):
    labels = np.tile(Y, 3).astype(dtype)
    labels[7] = value
    x = np.tile(X, (3, 1))
    with pytest.raises(DataError, match=rf"\(test\), column label, row 7: is {value}, must be 0 to 65535 for so few"):
        own(((X, Y), (x, labels)))


def test_a_label_that_no_whole_number_of_64_bits_holds_is_refused(own):
    with pytest.raises(DataError, match=r"column label, row 1: is 9223372036854775807, must be 0 to 65535"):
        own(((X, np.array([0, 2**63 + 5, 1], np.uint64)), (X, Y)))


def test_many_classes_are_no_mistake(own):
    """Extreme classification has as many classes as samples, a tokeniser 262,144 tokens, a Dataset what it says."""
    x, y = np.zeros((100_000, 1), np.int8), np.arange(100_000)
    assert own(((x, y), (x[:1], y[:1]))).classes == 100_000
    assert own(((X, Y + 65_533), (X, Y))).classes == 65_536
    assert own(((IDS, IDS + 2**18 - 1), (IDS, IDS))).classes == 2**18
    assert own(Dataset("mine", Split(X, Y + 10**6), Split(X, Y), classes=10**6 + 3)).classes == 10**6 + 3
    with pytest.raises(DataError, match=r"column label, row 0: is 262144, must be 0 to 262143"):
        own(((IDS, IDS + 2**18), (IDS, IDS)))
    with pytest.raises(DataError, match=r"column x, row 0: is 262144, must be 0 to 262143"):
        own(((IDS + 2**18, IDS), (IDS, IDS)))


def test_tokens_that_are_only_read_count_among_the_classes(own):
    """A model embeds them: a token that is never a target is one all the same."""
    assert own(((IDS + 9, IDS), (IDS, IDS))).classes == 10
