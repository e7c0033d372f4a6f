"""Columns of labels and of numbers: Arrow to numpy, with the row named when something is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thinwire.data.dataset import first, labels64
from thinwire.data.tables import Table
from thinwire.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


def require_no_nulls(column: pa.ChunkedArray | pa.Array, where: str) -> None:
    """Refuse a missing value."""
    if column.null_count:
        raise DataError(f"{where}, row {first(column.is_null().to_numpy(zero_copy_only=False))}: is missing")


def labels(table: Table) -> np.ndarray:
    """The column `label`: whole numbers.  # (n,) int64."""
    import pyarrow as pa

    column, where = table.column("label").combine_chunks(), f"{table.where}, column label"
    if not pa.types.is_integer(column.type):
        raise DataError(f"{where}: holds {column.type}, must hold integers from 0 on")
    require_no_nulls(column, where)
    return labels64(column.to_numpy(zero_copy_only=False))


def numbers(table: Table) -> np.ndarray:
    """The column `x`: lists of numbers, nested or not, all of one shape, taken as they are.  # (n, *shape) float32."""
    import pyarrow as pa

    values, where = table.column("x").combine_chunks(), f"{table.where}, column x"
    shape: tuple[int, ...] = (len(values),)
    while _is_list(values := getattr(values, "storage", values)):
        values, length = _unnest(values, shape[0], where)
        shape += (length,)
    numeric = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    if len(shape) == 1 or not numeric:
        raise DataError(f"{where}: holds {table.column('x').type}, must hold lists of numbers")
    _require_entries(values, shape[0], where)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which the data set's check names
        return values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(shape)


def _is_list(values: pa.Array) -> bool:
    import pyarrow as pa

    kind = values.type
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _unnest(lists: pa.Array, rows: int, where: str) -> tuple[pa.Array, int]:
    """Remove one level of lists that all have one length; returns the entries and that length."""
    import pyarrow.compute as pc

    _require_entries(lists, rows, where)
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    length = int(lengths[0]) if len(lengths) else 0
    if (lengths != length).any():
        wrong = first(lengths != length)
        row = wrong * rows // len(lengths)
        raise DataError(f"{where}, row {row}: holds a list of {lengths[wrong]} where row 0 holds {length}")
    return lists.flatten(), length


def _require_entries(values: pa.Array, rows: int, where: str) -> None:
    """Refuse a missing entry at any depth, naming the row it belongs to."""
    if values.null_count:
        flat = first(values.is_null().to_numpy(zero_copy_only=False))
        raise DataError(f"{where}, row {flat * rows // len(values)}: has a missing value")


def extras(table: Table, used: set[str]) -> dict[str, np.ndarray]:
    """All further columns of plain values (numbers, text, dates), for `natural:COLUMN`.  # each (n,)."""
    import pyarrow as pa

    plain = [
        field.name
        for field in table.rows.schema
        if field.name not in used and not pa.types.is_nested(field.type) and not pa.types.is_binary(field.type)
    ]
    return {name: table.rows.column(name).to_numpy() for name in plain}
