"""Data from one's own function, `module:function`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pkgutil import resolve_name
from typing import Any

import numpy as np

from thinwire.data.dataset import Dataset, Split, check_dataset, count_classes, labels64
from thinwire.errors import ConfigError, DataError, ThinwireError, line

EXPECTED = "((x, y), (x, y)) for train and test"


def custom_dataset(spec: str) -> Dataset:
    """Call `module:function` without arguments. It returns a Dataset, or train and test: ((x, y), (x, y)).

    Each of the two may also be an object with a length whose items are pairs (x, y), a torch `Dataset` for example.
    x and y are arrays, tensors or anything numpy reads; they are copied, so that what becomes of them later does not
    reach the run. x becomes float32, (n, ...); y must be whole numbers from 0
    on, (n,). When y has two axes the data are text: x has the same shape and is whole numbers too. Classes = the
    largest target + 1, of text the largest number of x and y + 1.

    Raises:
        ConfigError: the function cannot be imported.
        DataError: what it returns is no data set; the message names what is wrong.
    """
    try:
        result = _function(spec)()
    except ThinwireError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise DataError(f"{spec}: must return train and test when called without arguments ({line(error)})") from error
    where = f"{spec} (train)", f"{spec} (test)"
    if isinstance(result, Dataset):
        train, test = _split(result.train, where[0]), _split(result.test, where[1])
        columns = {name: _array(values, f"column {name}", where[0]).copy() for name, values in result.columns.items()}
        return check_dataset(replace(result, train=train, test=test, columns=columns), where)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise DataError(f"{spec}: must return a Dataset or {EXPECTED}, not {_described(result)}")
    train, test = (_split(_pair(part, place), place) for part, place in zip(result, where, strict=True))
    return check_dataset(Dataset(spec, train, test, count_classes((train, test), where)), where)


def _function(spec: str) -> Callable[[], Any]:
    try:
        function = resolve_name(spec)
    except (Exception, SystemExit) as error:  # whatever the user's own module raises
        raise ConfigError("data", spec, f"cannot be imported: {line(error)}") from error
    if not callable(function):
        raise ConfigError("data", spec, f"must be a function, not {type(function).__name__}")
    return function


def _described(value: object) -> str:
    """A value's type, and the types in a short tuple or list."""
    name = type(value).__name__
    inner = [type(item).__name__ for item in value] if isinstance(value, tuple | list) else []
    return f"{name} of ({', '.join(inner)})" if 0 < len(inner) <= 8 else name


def _pair(part: Any, where: str) -> Split:
    """x and y of one split, as they were given."""
    if isinstance(part, tuple | list) and len(part) == 2:
        return Split(part[0], part[1])
    if isinstance(part, Split):
        return part
    if isinstance(part, tuple | list | dict | np.ndarray) or not _holds_pairs(part):
        raise DataError(f"{where}: must be (x, y) or a data set of such pairs, not {_described(part)}{_instead(part)}")
    items = [_item(_row(part, row, where), f"{where}, {type(part).__name__}, row {row}") for row in range(len(part))]
    try:
        return Split(np.stack([x for x, _ in items]), np.stack([y for _, y in items])) if items else Split(*_NOTHING)
    except ValueError as error:
        raise DataError(f"{where}: the items of {type(part).__name__} are not of one shape ({error})") from None


_NOTHING = np.zeros((0, 1), np.float32), np.zeros(0, np.int64)


def _holds_pairs(part: Any) -> bool:
    """Has it a length and items by number, and is its first item a pair? A tensor is none: its items are tensors."""
    if not hasattr(part, "__len__") or not hasattr(part, "__getitem__"):
        return False
    try:
        return len(part) == 0 or isinstance(part[0], tuple | list)
    except (KeyError, IndexError, TypeError):  # items by another key, as those of a table of pandas
        return False
    except Exception:  # whatever the user's own code raises: reading the row tells
        return True


def _instead(part: Any) -> str:
    """What to return in place of things that people have."""
    if hasattr(part, "to_numpy"):
        return ": return (table[columns].to_numpy(), table[label].to_numpy())"
    return ": return its .dataset" if hasattr(part, "batch_sampler") else ""


def _row(part: Any, row: int, where: str) -> Any:
    """An item of a data set of the user's own; DataError says which one cannot be read."""
    try:
        return part[row]
    except Exception as error:  # whatever the user's own code raises
        raise DataError(f"{where}, {type(part).__name__}, row {row}: cannot be read ({line(error)})") from error


def _item(item: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"{where}: must be a pair (x, y), not {_described(item)}")
    x, y = item
    if not hasattr(x, "shape"):  # a picture for example, whose axes are in another order than a model expects
        raise DataError(f"{where}: x must be an array or a tensor, not {type(x).__name__}; a transform can make it one")
    return _array(x, "x", where), _array(y, "y", where)


def _split(given: Split, where: str) -> Split:
    """Turn what a user gave into arrays of the right types."""
    samples, targets = _array(given.x, "x", where), _array(given.y, "y", where)
    if samples.ndim and targets.ndim and len(samples) != len(targets):
        raise DataError(f"{where}: x has {len(samples)} rows, y has {len(targets)}")
    if not targets.size:
        raise DataError(f"{where}: has no samples")
    _check_targets(samples, targets, where)
    if samples.ndim < 2 or samples.dtype.kind not in "biuf" or not samples.size:
        raise DataError(f"{where}: x has shape {samples.shape} of {samples.dtype}, must be numbers (n, ...)")
    if targets.ndim == 2:
        return Split(np.ascontiguousarray(labels64(samples)), np.ascontiguousarray(labels64(targets)))
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which the data set's check names
        return Split(samples.astype(np.float32, order="C"), labels64(targets))


def _check_targets(samples: np.ndarray, targets: np.ndarray, where: str) -> None:
    """DataError unless y is whole numbers, one a sample, or for text one a position of x."""
    found = f"{where}: y has shape {targets.shape} of {targets.dtype}"
    if targets.ndim == 2 and _one_hot(targets):
        raise DataError(f"{found} and is one-hot, must be integers (n,): y.argmax(1)")
    if targets.ndim == 2 and targets.shape[1] == 1:
        raise DataError(f"{found}, must be integers (n,): y[:, 0]")
    if targets.ndim not in (1, 2) or not np.issubdtype(targets.dtype, np.integer):
        raise DataError(f"{found}, must be integers (n,){_hint(targets)}")
    if targets.ndim == 2 and samples.dtype.kind not in "iu":
        raise DataError(
            f"{where}: x holds {samples.dtype}, must hold integers where y has two axes (text); else y (n,)"
        )
    if targets.ndim == 2 and samples.shape != targets.shape:
        raise DataError(f"{found}, must be integers (n,), or for text of the shape of x, {samples.shape}")


def _one_hot(targets: np.ndarray) -> bool:
    """Is every row one 1 among zeros? Rows of a single entry are not looked at."""
    if targets.shape[1] < 2 or targets.dtype.kind not in "biuf":
        return False
    return bool(((targets == 0) | (targets == 1)).all() and (targets.sum(axis=1) == 1).all())


def _hint(targets: np.ndarray) -> str:
    """How labels of another type become right ones, where they can."""
    if targets.dtype.kind in "USO":
        return ": number the classes 0, 1, … in the same way for train and test"
    whole = targets.ndim == 1 and targets.dtype.kind in "bf" and bool((targets == np.floor(targets)).all())
    return ": y.astype(int)" if whole else ""


def _array(values: Any, name: str, where: str) -> np.ndarray:
    """As an array. Tensors come from their device and their graph; numbers that numpy lacks, bfloat16, as float32.

    DataError for a masked array with masked entries: behind the mask stands anything.
    """
    if any(map(np.ma.is_masked, values if isinstance(values, tuple | list) else [values])):
        raise DataError(
            f"{where}: {name} is a masked array with masked entries, must have them all: fill them or leave them out"
        )
    try:
        if hasattr(values, "detach"):
            values = values.detach().cpu()
            values = values.float() if "bfloat16" in str(values.dtype) else values
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{where}: {name} is no array of one shape ({line(error)})") from error
    return array
