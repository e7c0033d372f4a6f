"""A matrix as a sum of few outer products, and what that takes; no BLAS: the number of threads changes nothing."""

from __future__ import annotations

import numpy as np

from thinwire.codecs.kernels import njit

LARGEST = float(np.finfo(np.float32).max)


def leading(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading directions of a matrix (m, n) float32: u (m, p) and b (n, p), p ≤ rank, matrix ≈ u bᵀ, ‖b‖ descending.

    Subspace iteration along the shorter side from fixed random signs, then a rotation by the eigenvectors of the longer
    side's Gram matrix; the columns of u are orthonormal. Reference: Halko, Martinsson, Tropp, SIAM Review 2011,
    Alg. 4.4 with one iteration, orthonormalised on the shorter side alone.
    """
    m, n = matrix.shape
    p = min(rank, m, n)
    to_short, to_long = (_times, _transposed_times) if m <= n else (_transposed_times, _times)
    short = _orthonormal(to_short(matrix, _signs(max(m, n), p)))
    short = _orthonormal(to_short(matrix, to_long(matrix, short)))
    long = to_long(matrix, short)
    turn = _eigenvectors(_gram(long))
    short, long = _small(short, turn), _small(long, turn)
    if m <= n:
        return short, long
    norms = _norms(long)
    return long / np.where(norms > 0, norms, 1), short * norms


@njit(cache=True)
def _norms(vectors):  # type: ignore[no-untyped-def]
    """Norms of the columns (n, p), float32."""
    out = np.zeros(vectors.shape[1])
    for i in range(vectors.shape[0]):
        for k in range(vectors.shape[1]):
            out[k] += np.float64(vectors[i, k]) * vectors[i, k]
    return np.sqrt(out).astype(np.float32)


@njit(cache=True)
def _signs(rows, columns):  # type: ignore[no-untyped-def]
    out = np.empty((rows, columns), np.float32)
    word = np.uint32(2463534242)
    for i in range(rows):
        for k in range(columns):
            word ^= word << np.uint32(13)
            word ^= word >> np.uint32(17)
            word ^= word << np.uint32(5)
            out[i, k] = 1.0 if word & np.uint32(256) else -1.0
    return out


@njit(cache=True)
def _times(matrix, right):  # type: ignore[no-untyped-def]
    """matrix (m, n) · right (n, p), four columns at a time."""
    m, n = matrix.shape
    p = right.shape[1]
    out = np.zeros((m, p), np.float32)
    for i in range(m):
        for j in range(0, n - 3, 4):
            a, b, c, d = matrix[i, j], matrix[i, j + 1], matrix[i, j + 2], matrix[i, j + 3]
            for k in range(p):
                out[i, k] += a * right[j, k] + b * right[j + 1, k] + c * right[j + 2, k] + d * right[j + 3, k]
        for j in range(n - n % 4, n):
            for k in range(p):
                out[i, k] += matrix[i, j] * right[j, k]
    return out


@njit(cache=True)
def _transposed_times(matrix, left):  # type: ignore[no-untyped-def]
    """matrixᵀ (n, m) · left (m, p), four rows at a time."""
    m, n = matrix.shape
    p = left.shape[1]
    out = np.zeros((n, p), np.float32)
    for i in range(0, m - 3, 4):
        for j in range(n):
            a, b, c, d = matrix[i, j], matrix[i + 1, j], matrix[i + 2, j], matrix[i + 3, j]
            for k in range(p):
                out[j, k] += a * left[i, k] + b * left[i + 1, k] + c * left[i + 2, k] + d * left[i + 3, k]
    for i in range(m - m % 4, m):
        for j in range(n):
            for k in range(p):
                out[j, k] += matrix[i, j] * left[i, k]
    return out


@njit(cache=True)
def _orthonormal(vectors):  # type: ignore[no-untyped-def]
    """Columns made orthonormal by Gram and Schmidt's method, twice; one that depends on those before it becomes 0."""
    n, p = vectors.shape
    work = vectors.T.astype(np.float64)
    for k in range(p):
        first = np.float64(0)
        for i in range(n):
            first += work[k, i] * work[k, i]
        for _ in range(2):
            for other in range(k):
                dot = np.float64(0)
                for i in range(n):
                    dot += work[k, i] * work[other, i]
                for i in range(n):
                    work[k, i] -= dot * work[other, i]
        norm = np.float64(0)
        for i in range(n):
            norm += work[k, i] * work[k, i]
        scale = 1 / np.sqrt(norm) if norm > 1e-10 * first else 0.0
        for i in range(n):
            work[k, i] *= scale
    return np.ascontiguousarray(work.T.astype(np.float32))


@njit(cache=True)
def _gram(vectors):  # type: ignore[no-untyped-def]
    n, p = vectors.shape
    out = np.zeros((p, p), np.float64)
    for i in range(n):
        for k in range(p):
            x = np.float64(vectors[i, k])
            for other in range(p):
                out[k, other] += x * vectors[i, other]
    return out


@njit(cache=True)
def _eigenvectors(symmetric):  # type: ignore[no-untyped-def]
    """Eigenvectors as columns, largest eigenvalue first: Jacobi's rotations."""
    p = symmetric.shape[0]
    a, v = symmetric.copy(), np.eye(p)
    for _ in range(30):
        off, whole = 0.0, 0.0
        for i in range(p):
            whole += a[i, i] * a[i, i]
            for j in range(i + 1, p):
                off += a[i, j] * a[i, j]
        if off <= 1e-20 * whole:
            break
        for i in range(p):
            for j in range(i + 1, p):
                if a[i, j] == 0:
                    continue
                theta = (a[j, j] - a[i, i]) / (2 * a[i, j])
                t = (1.0 if theta >= 0 else -1.0) / (abs(theta) + np.sqrt(theta * theta + 1))
                c = 1 / np.sqrt(t * t + 1)
                s = t * c
                for k in range(p):
                    x, y = a[k, i], a[k, j]
                    a[k, i], a[k, j] = c * x - s * y, s * x + c * y
                for k in range(p):
                    x, y = a[i, k], a[j, k]
                    a[i, k], a[j, k] = c * x - s * y, s * x + c * y
                    x, y = v[k, i], v[k, j]
                    v[k, i], v[k, j] = c * x - s * y, s * x + c * y
    order = np.argsort(-np.diag(a), kind="mergesort")
    out = np.empty((p, p))
    for k in range(p):
        for i in range(p):
            out[i, k] = v[i, order[k]]
    return out


@njit(cache=True)
def _small(vectors, turn):  # type: ignore[no-untyped-def]
    """vectors (n, p) · turn (p, p)."""
    n, p = vectors.shape
    out = np.zeros((n, p), np.float32)
    row = np.zeros(p)
    for i in range(n):
        row[:] = 0
        for other in range(p):
            x = np.float64(vectors[i, other])
            for k in range(p):
                row[k] += x * turn[other, k]
        for k in range(p):
            out[i, k] = row[k]
    return out


@njit(cache=True)
def unit_rows(values):  # type: ignore[no-untyped-def]
    """Rows (r, m) float64 divided by their norms; a row of zeros stays one."""
    out = values.copy()
    for k in range(out.shape[0]):
        norm = 0.0
        for i in range(out.shape[1]):
            norm += out[k, i] * out[k, i]
        if norm > 0:
            scale = 1 / np.sqrt(norm)
            for i in range(out.shape[1]):
                out[k, i] *= scale
    return out


@njit(cache=True)
def project(units, matrix):  # type: ignore[no-untyped-def]
    """units (r, m) · matrix (m, n), in float64, summed from the first row to the last."""
    m, n = matrix.shape
    r = units.shape[0]
    out = np.zeros((r, n))
    for i in range(m):
        for k in range(r):
            x = units[k, i]
            if x != 0:
                for j in range(n):
                    out[k, j] += x * matrix[i, j]
    return out


@njit(cache=True)
def fitted(units, matrix):  # type: ignore[no-untyped-def]
    """The b (r, n) with the least ‖matrix − unitsᵀ b‖: (units unitsᵀ + 10⁻⁹ I)⁻¹ units matrix, by Cholesky's method."""
    r, m = units.shape
    gram = np.zeros((r, r))
    for k in range(r):
        for other in range(r):
            for i in range(m):
                gram[k, other] += units[k, i] * units[other, i]
        gram[k, k] += 1e-9
    for k in range(r):
        for other in range(k + 1):
            total = gram[k, other]
            for i in range(other):
                total -= gram[k, i] * gram[other, i]
            gram[k, other] = np.sqrt(max(total, 1e-12)) if other == k else total / gram[other, other]
    b = project(units, matrix)
    n = b.shape[1]
    for k in range(r):
        for other in range(k):
            for j in range(n):
                b[k, j] -= gram[k, other] * b[other, j]
        for j in range(n):
            b[k, j] /= gram[k, k]
    for k in range(r - 1, -1, -1):
        for other in range(k + 1, r):
            for j in range(n):
                b[k, j] -= gram[other, k] * b[other, j]
        for j in range(n):
            b[k, j] /= gram[k, k]
    return b


@njit(cache=True)
def add_products(units, b, out):  # type: ignore[no-untyped-def]
    """out (m, n) float32 += unitsᵀ b, each row summed in float64 from the first product to the last."""
    m, n = out.shape
    row = np.empty(n)
    for i in range(m):
        used = False
        row[:] = 0
        for k in range(units.shape[0]):
            x = units[k, i]
            if x != 0:
                used = True
                for j in range(n):
                    row[j] += x * b[k, j]
        if used:
            for j in range(n):
                out[i, j] += np.float32(min(max(row[j], -LARGEST), LARGEST))
