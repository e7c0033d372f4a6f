"""Data from one's own function, `module:function`."""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

import numpy as np

from thinwire.data.dataset import Dataset, Split, check_dataset
from thinwire.errors import ConfigError, DataError


def custom_dataset(spec: str) -> Dataset:
    """Call `module:function` without arguments; it returns a Dataset, or ((x, y), (x, y)) for train and test.

    Arrays or anything numpy reads. x becomes float32, (n, ...); y must be whole numbers from 0 on, (n,). When y has
    two axes the data are text and x too must be whole numbers. Classes = the largest target + 1.

    Raises:
        ConfigError: the function cannot be imported.
        DataError: what it returns is no data set; the message names what is wrong.
    """
    result = _function(spec)()
    where = f"{spec} (train)", f"{spec} (test)"
    if isinstance(result, Dataset):
        return check_dataset(result, where)
    try:
        (train_x, train_y), (test_x, test_y) = result
    except (TypeError, ValueError) as error:
        raise DataError(f"{spec}: must return a Dataset or ((x, y), (x, y)), not {type(result).__name__}") from error
    train, test = _split(train_x, train_y, where[0]), _split(test_x, test_y, where[1])
    if len(train) == 0 or len(test) == 0:
        raise DataError(f"{where[1] if len(train) else where[0]}: has no samples")
    classes = 1 + max(int(train.y.max()), int(test.y.max()))
    return check_dataset(Dataset(spec, train, test, classes), where)


def _function(spec: str) -> Callable[[], Any]:
    try:
        function = resolve_name(spec)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError("data", spec, f"cannot be imported: {error}") from error
    if not callable(function):
        raise ConfigError("data", spec, f"must be a function, not {type(function).__name__}")
    return function


def _split(x: object, y: object, where: str) -> Split:
    """Turn what a user gave into arrays of the right types."""
    targets = _array(y, "y", where)
    if targets.ndim not in (1, 2) or not np.issubdtype(targets.dtype, np.integer):
        raise DataError(f"{where}: y has shape {targets.shape} of {targets.dtype}, must be integers (n,)")
    samples = _array(x, "x", where)
    if samples.ndim < 2 or samples.dtype.kind not in "biuf":
        raise DataError(f"{where}: x has shape {samples.shape} of {samples.dtype}, must be numbers (n, ...)")
    if targets.ndim == 2 and samples.dtype.kind not in "iu":
        raise DataError(f"{where}: x holds {samples.dtype}, must hold integers where y has two axes (text)")
    return Split(samples.astype(np.int64 if targets.ndim == 2 else np.float32), targets.astype(np.int64))


def _array(values: object, name: str, where: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(f"{where}: {name} is no array of one shape ({error})") from error
