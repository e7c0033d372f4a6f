"""Lloyd–Max codebooks under M22's distortion d_M(x, x̂) = |x|ᴹ (x − x̂)²: a law's fit, its centres, their bytes.

Laws, symmetric about 0, in units of their scale, with shape s: generalised normal f ∝ exp(−xˢ), two-sided Weibull
f ∝ xˢ⁻¹ exp(−xˢ); both cut off below at t, since the survivors of a top-K selection have |x| ≥ t. With u = xˢ and
a = (M + 1)/s (gennorm) or (M + s)/s (Weibull), every integral is a regularised incomplete gamma function:

    ∫ xᴹ⁺ⁱ f over a cell ∝ Γ(a + i/s) · [P(a + i/s, u₊) − P(a + i/s, u₋)]
    centre of a cell     = Γ(a + 1/s) [P(a + 1/s, u₊) − P(a + 1/s, u₋)] / (Γ(a) [P(a, u₊) − P(a, u₋)])

and thresholds are midpoints, because the weight does not depend on x̂. Shapes and cuts come from fixed grids and
codebooks are kept affinely normalised (t at 0, mean |x| at 1), so that one solution serves every tensor.

Reference: Liu, Rini, Salehkalaibar, Chen, "M22", arXiv 2301.09269 (d_M and the two families).
Differs from the paper: closed forms in place of numerical integration; shape by moments, E|x|² / (E|x|)², in place of
maximum likelihood; a law of what lies above t in place of a whole law fitted to the survivors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.linalg import solve_banded  # type: ignore[import-untyped]
from scipy.special import gammainc, gammaincc, gammainccinv, gammaln  # type: ignore[import-untyped]

from thinwire.codecs import trace, varint
from thinwire.codecs.base import Codec, Context
from thinwire.codecs.checks import take_labels, take_scales
from thinwire.errors import DecodeError

FAMILIES = ("gennorm", "weibull")
SHAPES = 2.0 ** (np.arange(-112, 97) / 32)  # 0.09 to 8, 2.2 % apart
CUTS = 33  # of t / E|x|: 0, 1/33, …, 32/33
ONE = 0x3C00  # 1 as float16; the numbers from 0 to 1 are the bits from 0 to this


@dataclass(frozen=True)
class Law:
    """One side of a law in units of its scale: family, shape s and where it is cut off, as u = tˢ."""

    family: str
    shape: float
    cut: float = 0.0

    def order(self, magnitude: float) -> float:
        """a of the module's formulas: ∫ xᴹ f ∝ Γ(a, u) / s."""
        return (magnitude + (1.0 if self.family == "gennorm" else self.shape)) / self.shape

    def start(self) -> float:
        """t, the least |x|."""
        return float(self.cut ** (1 / self.shape))

    def moment(self, power: float) -> float:
        """E|x|ᵖ given |x| ≥ t."""
        return float(_moment(self.order(0.0), self.shape, self.cut, power))

    def centroids(self, edges: np.ndarray, magnitude: float) -> np.ndarray:
        """∫ x xᴹ f / ∫ xᴹ f over each cell; its middle where that is 0 / 0.  # (cells + 1,) -> (cells,)."""
        a, u = self.order(magnitude), edges**self.shape
        mass, moment = _cells(a, u), _cells(a + 1 / self.shape, u)
        ratio = np.exp(gammaln(a + 1 / self.shape) - gammaln(a))
        middle = (edges[:-1] + np.minimum(edges[1:], 2 * edges[:-1] + 1)) / 2
        inside = np.divide(ratio * moment, mass, out=middle.copy(), where=mass > 0)
        return np.clip(inside, edges[:-1], edges[1:])

    def slopes(self, edges: np.ndarray, centroids: np.ndarray, magnitude: float) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of each centroid by the lower and by the upper edge of its cell: xᴹ f(x) |x − c| / ∫ xᴹ f."""
        a, u = self.order(magnitude), edges**self.shape
        mass = _cells(a, u)
        with np.errstate(divide="ignore", invalid="ignore"):
            density = self.shape * np.exp((a - 1 / self.shape) * np.log(u) - u - gammaln(a))
        density[[0, -1]] = 0.0  # t and infinity do not move
        weight = [np.divide(d, mass, out=np.zeros_like(mass), where=mass > 0) for d in (density[:-1], density[1:])]
        return weight[0] * (centroids - edges[:-1]), weight[1] * (np.minimum(edges[1:], 1e300) - centroids)

    def companding(self, magnitude: float, cells: int) -> np.ndarray:
        """Centres of high-rate theory, points of density (xᴹ f)^⅓: quantiles of a gamma law.  # (cells,)."""
        a = (self.order(magnitude) * self.shape + 2) / (3 * self.shape)
        left = gammaincc(a, self.cut / 3) * (1 - (np.arange(cells) + 0.5) / cells)
        return np.asarray((3 * gammainccinv(a, left)) ** (1 / self.shape))


def _cells(a: float, u: np.ndarray) -> np.ndarray:
    """Regularised mass between neighbouring u, as a difference of the smaller tails: no cancellation against 1."""
    return np.where(u[:-1] < a, np.diff(gammainc(a, u)), -np.diff(gammaincc(a, u)))


def _moment(a: np.ndarray | float, shape: np.ndarray | float, cut: np.ndarray | float, power: float) -> np.ndarray:
    """Γ(a + p/s, u) / Γ(a, u), by elements."""
    b = a + power / shape
    return np.asarray(np.exp(gammaln(b) - gammaln(a)) * gammaincc(b, cut) / gammaincc(a, cut))


def solve(law: Law, magnitude: float, bits: int, less: int = 0) -> np.ndarray:
    """The 2ᴿ⁻¹ − `less` positive Lloyd–Max centres, ascending, in units of the law's scale.

    Newton's method on c − centroid(c) = 0, whose derivative is tridiagonal, from the companding points; a step that
    would leave the order of the centres is replaced by a step of Lloyd's own iteration.
    """
    c = law.companding(magnitude, 2 ** (bits - 1) - less)
    for _ in range(100):
        edges = np.concatenate([[law.start()], (c[1:] + c[:-1]) / 2, [np.inf]])
        target = law.centroids(edges, magnitude)
        low, high = (slope / 2 for slope in law.slopes(edges, target, magnitude))
        bands = np.stack([np.append(0, -high[:-1]), 1 - low - high, np.append(-low[1:], 0)])
        new = c - solve_banded((1, 1), bands, c - target)
        if not (np.diff(new, prepend=law.start()) > 0).all():
            new = target
        if np.abs(new - c).max() <= 1e-10 * c[-1]:
            break
        c = new
    return new


@lru_cache(maxsize=len(FAMILIES))
def _table(family: str) -> tuple[np.ndarray, np.ndarray]:
    """Cuts u and spreads Var|x| / (E|x| − t)² of every shape and every t / E|x| of the grid.  # (shapes, CUTS)."""
    s, u = SHAPES[:, None], np.append(0.0, np.logspace(-13, np.log10(600), 400))
    a = (1 if family == "gennorm" else s) / s
    ratio = u ** (1 / s) / _moment(a, s, u, 1)
    cuts = np.stack([np.interp(np.arange(CUTS) / CUTS, row, u) for row in ratio])
    mean = _moment(a, s, cuts, 1)
    return cuts, (_moment(a, s, cuts, 2) - mean**2) / (mean - cuts ** (1 / s)) ** 2


def fit(family: str, least: float, mean: float, square: float) -> tuple[int, int]:
    """Grid points (shape, cut) of the law that has these t = min|x|, E|x| and E|x|²; t < E|x|."""
    cut = min(round(CUTS * least / mean), CUTS - 1)
    spread = max(square - mean**2, 1e-12 * mean**2) / (mean - least) ** 2
    return int(np.abs(np.log(_table(family)[1][:, cut] / spread)).argmin()), cut


@lru_cache(maxsize=4096)
def codebook(family: str, shape: int, cut: int, magnitude: float, bits: int, less: int = 0) -> np.ndarray:
    """Centres (2ᴿ⁻¹ − `less`,) of the law at these grid points, in units of E|x| − t above t."""
    law = Law(family, float(SHAPES[shape]), float(_table(family)[0][shape, cut]))
    centres = (solve(law, magnitude, bits, less) - law.start()) / (law.moment(1) - law.start())
    centres.setflags(write=False)
    return centres


def pack(labels: np.ndarray, codec: Codec, context: Context, books: list[bytes]) -> bytes:
    """Varint length of the coded labels, the coded labels, then the books of the tensors that have entries."""
    coded = codec.encode(labels, Context(context.layout))
    return varint.write([len(coded)]) + coded + b"".join(books)


def unpack(payload: bytes, codec: Codec, context: Context, levels: int) -> tuple[np.ndarray, varint.Reader]:
    """Labels (n,) uint32 and what reads the books; DecodeError when the labels do not fit or are not below `levels`."""
    reader = varint.Reader(payload)
    return take_labels(codec, reader.sized(), context, levels - 1, "labels"), reader


def write_book(centres: np.ndarray) -> bytes:
    """Ascending centres (m,) from 0 on: the last as float32, then m − 1 fractions of it as float16."""
    top = centres[-1:].astype("<f4")
    return top.tobytes() + (centres[:-1] / np.maximum(top, np.float32(1e-45))).astype("<f2").tobytes()


def read_book(book: bytes) -> np.ndarray:
    """Inverse of `write_book`, m from the length; DecodeError unless 0 ≤ last < ∞ and 0 ≤ fraction ≤ 1."""
    top, rest = take_scales(book, 1, "codebook", "centroids")
    trace.cut("centroids", len(rest))
    if (np.frombuffer(rest, dtype="<u2") > ONE).any():
        raise DecodeError("codebook: a fraction is not from 0 to 1")
    return np.append(np.frombuffer(rest, dtype="<f2").astype(np.float32) * top, top)
