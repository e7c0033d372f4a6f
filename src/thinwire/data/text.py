"""Character-level language data: documents cut into windows, the target being the next character everywhere."""

from __future__ import annotations

import numpy as np

from thinwire.data.columns import extras, require_no_nulls
from thinwire.data.dataset import Dataset, Split
from thinwire.data.tables import Table
from thinwire.errors import DataError

WINDOW = 80  # characters a sample, as in LEAF's Shakespeare task (arXiv 1812.01097)


def text_dataset(name: str, train: Table, test: Table) -> Dataset:
    """Build a data set from the column `text`, one document a row.

    A character's id is its rank among the distinct characters of both splits; classes = how many there are.
    A document of L characters gives ⌊(L − 1) / 80⌋ windows that follow each other; none crosses into the next.
    """
    documents = _documents(train), _documents(test)
    vocabulary = np.unique(np.concatenate([np.unique(document) for part in documents for document in part]))
    splits = _windows(documents[0], vocabulary, train.where), _windows(documents[1], vocabulary, test.where)
    counts = [_count(document) for document in documents[0]]
    columns = {key: np.repeat(values, counts) for key, values in extras(train, {"text"}).items()}
    return Dataset(name, splits[0], splits[1], len(vocabulary), columns)


def _documents(table: Table) -> list[np.ndarray]:
    """Unicode code points of every row.  # list of (length,) uint32."""
    import pyarrow as pa

    column, where = table.column("text"), f"{table.where}, column text"
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise DataError(f"{where}: holds {column.type}, must hold strings")
    require_no_nulls(column, where)
    return [np.frombuffer(text.encode("utf-32-le"), dtype="<u4") for text in column.to_pylist()]


def _count(document: np.ndarray) -> int:
    """Windows in a document; the last needs one character after it."""
    return max(len(document) - 1, 0) // WINDOW


def _windows(documents: list[np.ndarray], vocabulary: np.ndarray, where: str) -> Split:
    """Cut documents into samples and targets.  # -> x, y (n, 80) int64."""
    starts = [(document, _count(document) * WINDOW) for document in documents]
    x = [document[:end] for document, end in starts]
    y = [document[1 : end + 1] for document, end in starts if end]
    if not y:
        raise DataError(f"{where}, column text: no row is longer than {WINDOW} characters")
    ids = (np.searchsorted(vocabulary, np.concatenate(part)).reshape(-1, WINDOW) for part in (x, y))
    return Split(*(part.astype(np.int64) for part in ids))
