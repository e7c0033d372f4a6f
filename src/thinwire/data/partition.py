"""Who holds which training samples: the partitions of flwr-datasets, as index arrays.

The partitioners see a table of row numbers and labels alone, so partitioning never touches the samples. The rows are
shuffled by (seed, "partition") first: IidPartitioner cuts blocks without a draw of its own, and DirichletPartitioner
takes a class's samples in table order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from thinwire.data.dataset import Dataset
from thinwire.data.parts import Dealt, Drawn, Parts
from thinwire.errors import ConfigError, DataError, did_you_mean
from thinwire.rng import generator, integer

PURPOSE = "partition"


@dataclass(frozen=True, eq=False)
class _Request:
    """What was asked for: `argument` is the part of the spec after the colon, empty if there is none."""

    dataset: Dataset
    spec: str
    argument: str
    clients: int
    seed: int

    def shuffled(self) -> np.ndarray:
        """All row numbers of train, in an order that the seed decides.  # (n,) int64."""
        return generator(self.seed, purpose=PURPOSE).permutation(len(self.dataset.train))


def partition(dataset: Dataset, spec: str, clients: int, seed: int, allow_empty: bool = False) -> Parts:
    """Split the training samples among `clients`: every sample goes to exactly one of them, but for the last spec.

    - `iid`: parts of equal size (±1), drawn at random.
    - `contiguous`: parts of equal size (±1), in the data's own order; for text the natural choice.
    - `dirichlet:ALPHA`: each class is divided by a draw from Dirichlet(ALPHA, ..., ALPHA); the smaller ALPHA > 0,
      the more unequal (Yurochkin et al., ICML 2019, arXiv 1905.12022, without its balancing).
    - `shards:K`: sorted by label, cut into clients · K shards of equal size (±1), K of them to each client (McMahan
      et al., AISTATS 2017, arXiv 1602.05629).
    - `natural:COLUMN`: one client for each distinct value of a column, in sorted order.
    - `drawn:N`: client i has N samples drawn at random by (seed, i), none of them twice, but perhaps one that another
      client has too. `clients` may be any number; a client's samples are drawn when it is asked.

    Returns one int64 array of ascending row numbers a client, in client order.

    Raises:
        ConfigError: an unknown spec, or a number of clients that the data do not allow.
        DataError: a client is left without samples and `allow_empty` is false.
    """
    kind, colon, argument = spec.partition(":")
    if kind not in (*SPECS, "drawn") or bool(colon) != (kind in TAKES_ARGUMENT):
        raise _refused(spec)
    request, samples = _Request(dataset, spec, argument, clients, seed), len(dataset.train)
    if kind == "drawn":
        return _drawn(request)
    if not 1 <= clients <= samples:
        raise ConfigError("clients", clients, f"1 to {samples}, the number of training samples")
    parts = SPECS[kind](request)
    if not allow_empty:
        _require_samples(parts, spec)
    return Dealt([np.sort(part) for part in parts])


def _drawn(request: _Request) -> Drawn:
    each, samples = int(_number(request, int)), len(request.dataset.train)
    if each > samples:
        raise ConfigError("partition", request.spec, f"drawn:1 to drawn:{samples}, the number of training samples")
    if request.clients < 1:
        raise ConfigError("clients", request.clients, "at least 1")
    return Drawn(samples, each, request.clients, request.seed)


def _refused(spec: str) -> ConfigError:
    allowed = "iid, contiguous, dirichlet:ALPHA (ALPHA > 0), shards:K, drawn:N (K, N = 1, 2, ...) or natural:COLUMN"
    kind, kinds = spec.partition(":")[0], (*SPECS, "drawn")
    return ConfigError("partition", spec, allowed + ("" if kind in kinds else did_you_mean(kind, kinds)))


def _require_samples(parts: list[np.ndarray], spec: str) -> None:
    empty = [client for client, part in enumerate(parts) if len(part) == 0]
    if empty:
        raise DataError(
            f"client {empty[0]} has no samples ({len(empty)} of {len(parts)} clients are empty under {spec}): "
            "use --allow-empty or fewer clients"
        )


def _iid(request: _Request) -> list[np.ndarray]:
    from flwr_datasets.partitioner import IidPartitioner

    from thinwire.data.dealing import deal

    rows = request.shuffled()
    return [rows[part] for part in deal(IidPartitioner(request.clients), rows)]


def _contiguous(request: _Request) -> list[np.ndarray]:
    from flwr_datasets.partitioner import IidPartitioner

    from thinwire.data.dealing import deal

    return deal(IidPartitioner(request.clients), np.arange(len(request.dataset.train)))


def _dirichlet(request: _Request) -> list[np.ndarray]:
    from flwr_datasets.partitioner import DirichletPartitioner

    from thinwire.data.dealing import deal

    alpha, labels, rows = _number(request, float), _labels(request), request.shuffled()
    partitioner = DirichletPartitioner(
        request.clients,
        partition_by="key",
        alpha=alpha,
        min_partition_size=0,  # else it draws anew up to ten times and then gives up: with many clients, always
        shuffle=False,
        seed=integer(request.seed, purpose=PURPOSE),
    )
    return [rows[part] for part in deal(partitioner, labels[rows])]


def _shards(request: _Request) -> list[np.ndarray]:
    """Deals whole shards, one row each: given the samples, ShardPartitioner would drop the odd ones at the end."""
    from flwr_datasets.partitioner import ShardPartitioner

    from thinwire.data.dealing import deal

    each, labels, rows = int(_number(request, int)), _labels(request), request.shuffled()
    count = each * request.clients
    if count > len(rows):
        raise ConfigError("partition", request.spec, f"{count} shards are more than the {len(rows)} training samples")
    shards = np.array_split(rows[np.argsort(labels[rows], kind="stable")], count)
    seed = integer(request.seed, purpose=PURPOSE)
    partitioner = ShardPartitioner(request.clients, partition_by="key", num_shards_per_partition=each, seed=seed)
    return [np.concatenate([shards[shard] for shard in part]) for part in deal(partitioner, np.arange(count))]


def _natural(request: _Request) -> list[np.ndarray]:
    from flwr_datasets.partitioner import NaturalIdPartitioner

    from thinwire.data.dealing import deal

    columns, column = request.dataset.columns, request.argument
    if column not in columns:
        names = ", ".join(columns) or "none"
        raise ConfigError(
            "partition",
            request.spec,
            f"natural:COLUMN with a further column of train; it has {names}{did_you_mean(column, columns)}",
        )
    values = columns[column]
    missing = np.flatnonzero(values != values) if values.dtype.kind != "O" else _nones(values)
    if len(missing):
        raise DataError(f"{request.dataset.name}, column {column}, row {missing[0]}: is missing, so it has no client")
    distinct, ids = np.unique(values, return_inverse=True)
    if len(distinct) != request.clients:
        allowed = f"{len(distinct)}, the number of distinct values of {column}, for partition {request.spec}"
        raise ConfigError("clients", request.clients, allowed)
    return deal(NaturalIdPartitioner(partition_by="key"), ids)


def _nones(values: np.ndarray) -> np.ndarray:
    return np.flatnonzero([value is None for value in values])


def _labels(request: _Request) -> np.ndarray:
    if request.dataset.is_text:
        raise ConfigError("partition", request.spec, "iid, contiguous or natural:COLUMN for text, which has no labels")
    return request.dataset.train.y


def _number(request: _Request, kind: Callable[[str], float]) -> float:
    """The spec's argument as a finite number above 0."""
    try:
        number = kind(request.argument)
    except ValueError:
        raise _refused(request.spec) from None
    if not 0 < number < np.inf:
        raise _refused(request.spec)
    return number


SPECS: dict[str, Callable[[_Request], list[np.ndarray]]] = {
    "iid": _iid,
    "contiguous": _contiguous,
    "dirichlet": _dirichlet,
    "shards": _shards,
    "natural": _natural,
}
TAKES_ARGUMENT = ("dirichlet", "shards", "natural", "drawn")


def held_back(samples: int, fraction: float) -> int:
    """How many of a client's samples `split_local` holds back."""
    return min(round(fraction * samples), max(samples - 1, 0))


def split_local(indices: np.ndarray, fraction: float, seed: int, client: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide a client's samples into those it trains on and those held back to evaluate its model.

    round(fraction · n) samples, drawn at random by (seed, client), are held back; a client with samples keeps at
    least one to train on. Both parts are in ascending order.

    >>> [len(part) for part in split_local(np.arange(10), fraction=0.2, seed=0, client=3)]
    [8, 2]

    Raises:
        ConfigError: `fraction` is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ConfigError("test_fraction", fraction, "at least 0 and below 1")
    if not (held := held_back(len(indices), fraction)):
        return np.sort(indices), indices[:0]
    order = generator(seed, client=client, purpose="test_fraction").permutation(indices)
    return np.sort(order[held:]), np.sort(order[:held])
