"""Split, Dataset, the catalogue, and what importing thinwire.data costs."""

import subprocess
import sys

import numpy as np
import pytest

from thinwire.data import DATASETS, Dataset, Split
from thinwire.data.dataset import check_dataset
from thinwire.errors import DataError

WHERE = ("a.parquet", "b.parquet")


def small(x=None, y=None, **more):
    good = Split(np.zeros((3, 2), np.float32), np.array([0, 1, 1]))
    train = Split(good.x if x is None else x, good.y if y is None else y)
    return Dataset(**({"name": "small", "train": train, "test": good, "classes": 2} | more))


def test_take_keeps_the_order_asked_for():
    split = Split(np.arange(8.0).reshape(4, 2), np.arange(4))
    taken = split.take(np.array([3, 0, 3]))
    assert taken.y.tolist() == [3, 0, 3]
    assert taken.x.tolist() == [[6, 7], [0, 1], [6, 7]]
    assert (len(split), len(taken)) == (4, 3)


def test_shape_is_that_of_one_sample():
    dataset = small()
    assert dataset.shape == (2,)
    assert not dataset.is_text


def test_targets_at_every_position_make_text():
    windows = Split(np.zeros((2, 80), np.int64), np.zeros((2, 80), np.int64))
    assert Dataset("t", windows, windows, classes=5).is_text


def test_a_sound_data_set_passes_unchanged():
    dataset = small(columns={"user": np.arange(3)})
    assert check_dataset(dataset, WHERE) is dataset


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.array([0, 1])}, "a.parquet: x has 3 rows, y has 2"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0, np.int64)}, "a.parquet: has no samples"),
        (
            {"x": np.array([[0, 1], [0, 1], [np.nan, 0]])},
            r"a.parquet, column x, row 2: holds NaN or infinity \(nan\), must be finite as float32",
        ),
        (
            {"x": np.array([[0, 1], [-np.inf, 1], [0, 0]])},
            r"a.parquet, column x, row 1: holds NaN or infinity \(-inf\), must be finite as float32",
        ),
        ({"y": np.array([0, 1, -4])}, r"a.parquet, column label, row 2: is negative \(-4\)"),
        ({"y": np.array([0, 2, 1])}, "a.parquet, column label, row 1: is 2, must be below the 2 classes"),
        ({"x": np.zeros((3, 5))}, r"b.parquet: samples have shape \(2,\), those of train \(5,\)"),
        ({"columns": {"user": np.arange(2)}}, "a.parquet, column user: has 2 rows, x has 3"),
    ],
)
def test_an_unsound_data_set_is_refused_in_one_line(changes, message):
    with pytest.raises(DataError, match=f"^{message}$"):
        check_dataset(small(**changes), WHERE)


def test_every_named_data_set_is_described_in_one_line():
    assert list(DATASETS) == ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "emnist", "tinyshakespeare"]
    for info in DATASETS.values():
        assert info.description
        assert "\n" not in info.description
        assert len(info.mean) == len(info.std)
        assert info.repo or info.description.endswith("no network needed")


def test_importing_the_package_loads_neither_torch_nor_the_slow_libraries():
    slow = "torch", "flwr", "datasets", "flwr_datasets", "sklearn", "pyarrow"
    code = f"import sys, thinwire.data; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
