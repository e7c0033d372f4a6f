"""Lloyd–Max codebooks against textbook tables and against integrals done by summation; the fit against samples."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import gamma

from thinwire.codecs import Context, Votes, varint
from thinwire.codecs.codebooks import (
    CUTS,
    FAMILIES,
    SHAPES,
    Law,
    codebook,
    fit,
    pack,
    read_book,
    solve,
    unpack,
    write_book,
)
from thinwire.errors import DecodeError
from thinwire.layout import Layout

# Max 1960, table I (unit variance); Laplacian: Adams and Giesler 1978 (unit variance).
GAUSS = {
    1: [0.7980],
    2: [0.4528, 1.510],
    3: [0.2451, 0.7560, 1.344, 2.152],
    4: [0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733],
}
GAUSS_ERROR = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497}
LAPLACE = {1: [0.7071], 2: [0.4196, 1.8340], 3: [0.2334, 0.8330, 1.6725, 3.0867]}
LAPLACE_ERROR = {1: 0.5, 2: 0.1762, 3: 0.0545, 4: 0.0154}
UNIT = {2.0: np.sqrt(2), 1.0: 1 / np.sqrt(2)}  # scale α of unit variance


def grid(law, low, high, points=20001):
    """Nodes x, and log(x f dx/d log x) up to a constant: equidistant in log x, where the integrands are smooth."""
    last = np.log(800.0) / law.shape if high == np.inf else np.log(high)
    z = np.linspace(np.log(low) if low > 0 else last - 200, last, points)
    power = 1.0 if law.family == "gennorm" else law.shape
    return z, power * z - np.exp(law.shape * z)


def integral(law, low, high, power):
    """∫ xᵖ f over [low, high], f not normalised, by the trapezoidal rule."""
    z, log = grid(law, low, high)
    return np.trapezoid(np.exp(log + power * z), z)


def edges_of(law, centres):
    return np.concatenate([[law.start()], (centres[1:] + centres[:-1]) / 2, [np.inf]])


def error(law, centres, magnitude=0.0):
    """Σ over cells of ∫ xᴹ (x − c)² f, over ∫ xᴹ⁺² f."""
    edges = edges_of(law, centres)
    lost = 0.0
    for c, low, high in zip(centres, edges[:-1], edges[1:], strict=True):
        m0, m1, m2 = (integral(law, low, high, magnitude + i) for i in range(3))
        lost += m2 - 2 * c * m1 + c * c * m0
    return lost / integral(law, law.start(), np.inf, magnitude + 2)


# Against tables.


@pytest.mark.parametrize("bits", GAUSS)
def test_gaussian_centres_are_those_of_max(bits):
    centres = solve(Law("gennorm", 2.0), 0.0, bits) * UNIT[2.0]
    assert centres == pytest.approx(GAUSS[bits], rel=6e-4)
    assert error(Law("gennorm", 2.0), centres / UNIT[2.0]) == pytest.approx(GAUSS_ERROR[bits], rel=1e-3)


@pytest.mark.parametrize("bits", LAPLACE)
def test_laplacian_centres_are_those_of_the_table(bits):
    assert solve(Law("gennorm", 1.0), 0.0, bits) * UNIT[1.0] == pytest.approx(LAPLACE[bits], rel=6e-4)


@pytest.mark.parametrize("bits", LAPLACE_ERROR)
def test_laplacian_error_is_that_of_the_table(bits):
    law = Law("gennorm", 1.0)
    assert error(law, solve(law, 0.0, bits)) == pytest.approx(LAPLACE_ERROR[bits], rel=4e-3)


def test_weibull_of_shape_one_is_the_laplacian():
    for magnitude in (0.0, 1.5, 4.0):
        pair = [solve(Law(family, 1.0, 0.3), magnitude, 3) for family in FAMILIES]
        assert pair[0] == pytest.approx(pair[1], rel=1e-9)


@pytest.mark.parametrize("shape", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("magnitude", [0.0, 0.7, 2.0, 6.0])
def test_one_bit_in_closed_form(shape, magnitude):
    """c = α Γ((M + 2)/β) / Γ((M + 1)/β); Weibull: λ Γ(1 + (M + 1)/k) / Γ(1 + M/k)."""
    gennorm = gamma((magnitude + 2) / shape) / gamma((magnitude + 1) / shape)
    weibull = gamma(1 + (magnitude + 1) / shape) / gamma(1 + magnitude / shape)
    assert solve(Law("gennorm", shape), magnitude, 1) == pytest.approx([gennorm], rel=1e-10)
    assert solve(Law("weibull", shape), magnitude, 1) == pytest.approx([weibull], rel=1e-10)


# Against summation.


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("magnitude", [0.0, 1.0, 2.0, 4.0, 6.0])
@pytest.mark.parametrize("cut", [0.0, 4.0])
def test_centres_are_the_weighted_means_of_their_cells(family, shape, magnitude, cut):
    law = Law(family, shape, cut)
    centres = solve(law, magnitude, 3)
    assert (np.diff(centres, prepend=law.start()) > 0).all()
    edges = edges_of(law, centres)
    means = [
        integral(law, low, high, magnitude + 1) / integral(law, low, high, magnitude) for low, high in pairwise(edges)
    ]
    assert centres == pytest.approx(means, rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("cut", [0.0, 1.0, 30.0])
def test_moments_by_summation(family, shape, cut):
    law = Law(family, shape, cut)
    whole = integral(law, law.start(), np.inf, 0.0)
    for power in (1.0, 2.0, 2.5):
        assert law.moment(power) == pytest.approx(integral(law, law.start(), np.inf, power) / whole, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("magnitude", [0.0, 0.3, 6.0, 64.0])
def test_every_corner_of_the_grid_has_a_codebook(family, bits, magnitude):
    for shape in (0, 40, 112, len(SHAPES) - 1):
        for cut in (0, 1, 16, CUTS - 1):
            centres = codebook(family, shape, cut, magnitude, bits)
            assert centres.shape == (2 ** (bits - 1),)
            assert np.isfinite(centres).all()
            assert (np.diff(centres, prepend=0.0) > 0).all()


def test_solutions_are_fixed_points_of_lloyds_iteration():
    for law in (Law("gennorm", 0.15), Law("weibull", 5.0, 2.0), Law("gennorm", 0.5, 20.0)):
        for magnitude in (0.0, 2.0, 11.0):
            centres = solve(law, magnitude, 8)
            assert law.centroids(edges_of(law, centres), magnitude) == pytest.approx(centres, rel=1e-7)


def test_neighbouring_centres_do_worse():
    law, draw = Law("gennorm", 0.5), np.random.default_rng(0)
    centres = solve(law, 2.0, 2)
    best = error(law, centres, 2.0)
    for _ in range(10):
        assert error(law, centres * (1 + 0.05 * draw.standard_normal(2)), 2.0) > best


def test_a_larger_magnitude_moves_every_centre_outwards():
    books = [codebook("gennorm", 112, 0, magnitude, 3) for magnitude in (0.0, 0.5, 1.0, 2.0, 4.0, 6.0)]
    assert all((after > before).all() for before, after in pairwise(books))


def test_normalised_codebooks_do_not_know_the_scale():
    """The published bug: a cache of thresholds that were scaled for the first tensor."""
    shape, cut = fit("gennorm", 0.0, 1.0, 2.0)
    assert (shape, cut) == fit("gennorm", 0.0, 1e-9, 2e-18)
    assert SHAPES[shape] == 1.0
    assert codebook("gennorm", shape, cut, 0.0, 1) == pytest.approx([1.0])
    assert codebook("gennorm", shape, cut, 0.0, 2) is codebook("gennorm", shape, cut, 0.0, 2)
    with pytest.raises(ValueError, match="read-only"):
        codebook("gennorm", shape, cut, 0.0, 2)[0] = 1


# The fit.


def moments(x):
    return float(x.min()), float(x.mean()), float((x**2).mean())


def draws(family, shape, n, seed=0):
    draw = np.random.default_rng(seed)
    return draw.gamma(1 / shape, 1, n) ** (1 / shape) if family == "gennorm" else draw.weibull(shape, n)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [0.3, 0.5, 1.0, 2.0, 4.0])
def test_fit_recovers_the_shape(family, shape):
    found, cut = fit(family, *moments(draws(family, shape, 400_000)))
    assert SHAPES[found] == pytest.approx(shape, rel=0.05)
    assert cut <= 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [0.5, 1.0])
@pytest.mark.parametrize("keep", [0.3, 0.1])
def test_fit_recovers_the_shape_from_survivors(family, shape, keep):
    """What a whole law gets badly wrong: the survivors of a Laplacian look like a shape of 2 and more."""
    x = np.sort(draws(family, shape, 2_000_000))[-int(2_000_000 * keep) :]
    found, _ = fit(family, *moments(x))
    assert SHAPES[found] == pytest.approx(shape, rel=0.15)
    assert SHAPES[fit(family, 0.0, *moments(x)[1:])[0]] > 1.5 * shape


@pytest.mark.parametrize("keep", [0.1, 0.01])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_survivors_are_coded_nearly_as_well_as_their_own_law_allows(keep, bits):
    """Against the codebook of the true law, cut at the true threshold."""
    for shape in (0.5, 1.0, 2.0):
        x = np.sort(draws("gennorm", shape, 1_000_000, seed=3))[-int(1_000_000 * keep) :]
        least, mean, square = moments(x)
        fitted = least + (mean - least) * codebook("gennorm", *fit("gennorm", least, mean, square), 2.0, bits)
        true = solve(Law("gennorm", shape, least**shape), 2.0, bits)
        costs = []
        for centres in (fitted, true):
            nearest = centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, x)]
            costs.append((x**2 * (x - nearest) ** 2).sum())
        assert costs[0] <= 1.06 * costs[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_fit_answers_whatever_the_moments(family):
    for least in (0.0, 1e-30, 0.5, 1 - 1e-7):
        for square in (1.0, 1.0 + 1e-15, 1.1, 50.0, 1e12):
            shape, cut = fit(family, least, 1.0, square)
            assert 0 <= shape < len(SHAPES)
            assert 0 <= cut < CUTS


# Bytes.


@pytest.mark.parametrize("centres", [[0.0], [3.5], [1e-45, 1e-45], [0.0, 1.0], [1e-9, 0.25, 0.5, 1.0], [1e38, 3.4e38]])
def test_books_come_back(centres):
    centres = np.array(centres, np.float32)
    book = write_book(centres)
    assert len(book) == 2 + 2 * centres.size
    back = read_book(book)
    assert back.dtype == np.float32
    assert back == pytest.approx(centres, rel=2**-11, abs=float(centres[-1]) * 2**-25)
    assert write_book(back) == book


@pytest.mark.parametrize("top", [np.nan, np.inf, -1.0, -np.inf])
def test_books_with_a_bad_scale_are_refused(top):
    with pytest.raises(DecodeError, match="scale is negative, NaN or infinite"):
        read_book(np.float32(top).tobytes())


@pytest.mark.parametrize("fraction", [np.nan, np.inf, -0.5, -0.0, 1.001])
def test_books_with_a_bad_fraction_are_refused(fraction):
    with pytest.raises(DecodeError, match="not from 0 to 1"):
        read_book(np.float32(1).tobytes() + np.float16([0.5, fraction]).tobytes())


def test_labels_beyond_the_levels_are_refused():
    context = Context(Layout.of({"a": (5,)}))
    payload = pack(np.array([0, 1, 2, 3, 4], np.uint32), Votes(), context, [b"ab", b"c"])
    labels, reader = unpack(payload, Votes(), context, 5)
    assert labels.tolist() == [0, 1, 2, 3, 4]
    assert reader.rest() == b"abc"
    with pytest.raises(DecodeError, match="4 is above 3"):
        unpack(payload, Votes(), context, 4)
    with pytest.raises(DecodeError, match="bytes left"):
        unpack(varint.write([200]) + payload[1:], Votes(), context, 5)
