"""count-sketch: the table against a plain one, linear, unbiased, its variance, heavy entries."""

import numpy as np
import pytest
from baseline_checks import (
    COMMON,
    check_seed_matters,
    flat,
    gaussian,
    means,
    nmse,
    sent,
)

from thinwire import rng
from thinwire.codecs import Context
from thinwire.codecs.sketch import CountSketch
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

FORMS = [CountSketch(), CountSketch(1, 1.0), CountSketch(3, 0.01), CountSketch(5, 0.5, keep=0.1)]
forms = pytest.mark.parametrize("codec", FORMS, ids=str)


def table(codec, x, seed=0):
    return np.frombuffer(codec.encode(x, flat(x.size, seed)), "<f4").reshape(codec.rows, -1)


def plain(codec, x, seed):
    """Table and estimates by the words of the docstring, one entry at a time."""
    n, columns = x.size, int(np.ceil(codec.width * x.size / codec.rows))
    cells = [[0.0] * columns for _ in range(codec.rows)]
    places = []
    for row in range(codec.rows):
        words = rng.raw_words(seed, f"count-sketch-{row}", (n + 1) // 2)
        numbers = [int(word) >> shift & 0xFFFFFFFF for word in words for shift in (0, 32)][:n]
        places.append([((w >> 1) * columns >> 31, -1 if w % 2 else 1) for w in numbers])
        for value, (column, sign) in zip(x.tolist(), places[row], strict=True):
            cells[row][column] += sign * value
    cells = np.array(cells).astype(np.float32)
    reads = [
        [cells[row, place] * sign for row in range(codec.rows) for place, sign in [places[row][i]]] for i in range(n)
    ]
    return cells, [sorted(read)[codec.rows // 2] for read in reads]


@pytest.mark.parametrize("codec", [CountSketch(), CountSketch(1, 1.0), CountSketch(7, 0.3)], ids=str)
@pytest.mark.parametrize("n", [1, 2, 99, 500])
def test_against_a_plain_one(codec, n):
    cells, estimates = plain(codec, gaussian(n), seed=4)
    assert table(codec, gaussian(n), 4).tobytes() == cells.tobytes()
    assert sent(codec, gaussian(n), flat(n, 4)).tolist() == estimates


@pytest.mark.parametrize(
    ("n", "rows", "width", "columns"),
    [(0, 5, 0.1, 0), (1, 5, 0.1, 1), (1000, 5, 0.1, 20), (1001, 5, 0.1, 21), (1000, 1, 1.0, 1000), (10, 31, 0.01, 1)],
)
def test_size(n, rows, width, columns):
    assert len(CountSketch(rows, width).encode(gaussian(n), flat(n))) == 4 * rows * columns


def test_one_table_for_the_whole_vector():
    split = Context(Layout.of({"a": (500,), "none": (0,), "b": (20, 25)}), seed=1)
    assert CountSketch().encode(gaussian(1000), split) == CountSketch().encode(gaussian(1000), flat(1000, 1))


def test_linear():
    x, y = gaussian(5000, 1), gaussian(5000, 2)
    assert table(CountSketch(), 2 * x - y) == pytest.approx(
        2 * table(CountSketch(), x) - table(CountSketch(), y), abs=1e-4
    )


def test_unbiased_and_variance_of_one_row():
    """Var x̂_i = (‖x‖² − x_i²) / columns."""
    x, codec = gaussian(400), CountSketch(1, 0.25)
    mean, error = means(codec, x)
    assert (np.abs(mean - x) <= 5 * error).all()
    theory = ((x**2).sum() - x**2) / 100
    assert (error**2 * 500).mean() == pytest.approx(theory.mean(), rel=0.05)


def test_unbiased_medians():
    x = gaussian(400)
    mean, error = means(CountSketch(), x)
    assert (np.abs(mean - x) <= 5 * error).all()


def test_error_without_large_entries_is_noise():
    assert nmse(CountSketch(1, 0.1), gaussian(100_000), flat(100_000)) == pytest.approx(10, rel=0.05)
    assert nmse(CountSketch(5, 0.1), gaussian(100_000), flat(100_000)) == pytest.approx(14.1, rel=0.05)


def test_large_entries_are_found():
    """Ten of 20,000 entries carry the vector: the ten largest estimates are those, at a quarter of the cells."""
    x = 0.01 * gaussian(20_000)
    heavy = np.random.default_rng(3).choice(20_000, 10, replace=False)
    x[heavy] = np.where(np.arange(10) % 2, 5, -5)
    back = sent(CountSketch(5, 0.25, keep=0.0005), x, flat(20_000))
    assert set(np.flatnonzero(back)) == set(heavy)
    assert back[heavy] == pytest.approx(x[heavy], abs=0.5)


def test_keep_zeroes_the_smallest_estimates():
    x = gaussian(1000)
    every, some = sent(CountSketch(), x, flat(1000)), sent(CountSketch(keep=0.2), x, flat(1000))
    least = np.sort(np.abs(every))[-200]
    assert some.tolist() == np.where(np.abs(every) >= least, every, 0).tolist()
    assert np.count_nonzero(some) >= 200


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_cells_that_are_not_finite_are_refused(odd):
    payload = CountSketch().encode(gaussian(100), flat(100))
    with pytest.raises(DecodeError, match="cell"):
        CountSketch().decode(payload[:8] + np.float32(odd).tobytes() + payload[12:], flat(100))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"rows": 0}, "rows = 0"),
        ({"rows": 4}, "rows = 4: an odd number"),
        ({"rows": 33}, "rows = 33"),
        ({"width": 0.0}, "width = 0.0"),
        ({"width": 1.1}, "width = 1.1"),
        ({"width": np.nan}, "width = nan"),
        ({"keep": 0.0}, "keep = 0.0"),
        ({"keep": 2.0}, "keep = 2.0"),
    ],
)
def test_fields_out_of_range(fields, named):
    with pytest.raises(ConfigError, match=f"count-sketch.{named}"):
        CountSketch(**fields)


@forms
@pytest.mark.parametrize("check", COMMON)
def test_common(codec, check):
    check(codec)


@forms
def test_seed_matters(codec):
    check_seed_matters(codec)
