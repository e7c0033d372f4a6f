"""Initial values with the same bits on every machine: torch's random fills, made of integer draws and exact arithmetic.

Torch's own fills differ in the last bit from processor to processor: a·b + c is rounded once where there is a fused
instruction and twice where there is none, and vectors have logarithms of their own. Inside `exact_draws` the draws stay
torch's (MT19937, the same on every machine) and so does what is made of them, but by correctly rounded float64
operations, one at a time, as numpy does them: the values are torch's to the last bit or two. A uniform is
lo + (hi − lo) · k / 2²⁴, k the lower 24 bits of a draw. Normals come in groups of 16 draws u = k / 2²⁴ (the last 16
entries again, of new draws, where they are no whole group), by Box and Muller: for j below 8,
r = √(−2 ln(1 − uⱼ)), entry j is mean + std · r cos 2πuⱼ₊₈ and entry j + 8 has the sine.

Left to torch are fills from a generator of the caller's own, fewer than 16 normals (made in float64 and rounded, which
hides the differences), other dtypes than float32, and operations such as permutations or orthogonal matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
BLOCK = 2**16  # entries that are filled together

# AS 241, PPND16: numerators and denominators, lowest power first, for the middle and for the two parts of the tails.
_MIDDLE = (
    (3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
     45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727),
    (1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
     21213.794301586595867, 39307.895800092710610, 28729.085735721942674, 5226.4952788528545610),
)  # fmt: skip
_NEAR = (
    (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
     1.27045825245236838258, 0.241780725177450611770, 0.0227238449892691845833, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550,
     0.148103976427480074590, 0.0151986665636164571966, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_FAR = (
    (6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 0.296560571828504891230,
     0.0265321895265761230930, 0.00124266094738807843860, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 0.599832206555887937690, 0.136929880922735805310, 0.0148753612908506148525,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def _ratio(x: np.ndarray, polynomials: Sequence[Sequence[float]]) -> np.ndarray:
    """Numerator over denominator by Horner's rule."""
    above, below = (np.zeros_like(x) for _ in range(2))
    for top, bottom in zip(*map(reversed, polynomials), strict=True):
        above, below = above * x + top, below * x + bottom
    return above / below


def _log(x: np.ndarray) -> np.ndarray:
    """ln x of positive numbers by basic arithmetic: e ln 2 + 2 artanh((m − 1) / (m + 1)), m in [√½, √2)."""
    mantissa, exponent = np.frexp(x)  # x = m 2ᵉ, m in [½, 1)
    low = mantissa < np.sqrt(0.5)
    mantissa, exponent = np.where(low, 2 * mantissa, mantissa), exponent - low
    ratio = (mantissa - 1) / (mantissa + 1)
    square, total = ratio * ratio, np.zeros_like(ratio)
    for power in range(25, 0, -2):
        total = total * square + 1 / power
    return exponent * 0.69314718055994530942 + 2 * ratio * total


def normal_quantile(p: np.ndarray) -> np.ndarray:
    """Φ⁻¹(p) for p in (0, 1), to about 1e-15, with the same bits on every machine."""
    q = p - 0.5
    found = np.empty_like(p)
    middle = np.abs(q) <= 0.425
    found[middle] = q[middle] * _ratio(0.180625 - q[middle] * q[middle], _MIDDLE)
    tail = ~middle
    r = np.sqrt(-_log(np.minimum(p[tail], 1 - p[tail])))
    sizes = np.where(r <= 5, _ratio(r - 1.6, _NEAR), _ratio(r - 5, _FAR))
    found[tail] = np.where(q[tail] < 0, -sizes, sizes)
    return found


def _turn(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cos 2πu and sin 2πu for u in [0, 1), by basic arithmetic: Taylor's series within an eighth of a turn."""
    quarter = np.floor(4 * u + 0.5)
    x = 6.28318530717958647693 * (u - quarter / 4)  # the difference is exact
    square, cosine, sine = x * x, np.zeros_like(x), np.zeros_like(x)
    for power in range(18, 0, -2):
        cosine = 1 - cosine * square / (power * (power - 1))
        sine = 1 - sine * square / (power * (power + 1))
    sine = sine * x
    odd, half = quarter % 2 == 1, (quarter % 4 >= 2)
    first, second = np.where(odd, -sine, cosine), np.where(odd, cosine, sine)
    return np.where(half, -first, first), np.where(half, -second, second)


def _draws(count: int) -> np.ndarray:
    """k / 2²⁴ for the lower 24 bits k of so many draws of torch's generator.  # (count,) float64"""
    return torch.empty(count, dtype=torch.int32).random_(0, 2**24).numpy() / 2.0**24


def _blocks(x: torch.Tensor, make: Callable[[int], np.ndarray]) -> torch.Tensor:
    """Fill a tensor in order with what is made for so many entries."""
    flat = torch.empty(x.numel())
    for block in flat.split(BLOCK):
        block.copy_(torch.from_numpy(make(len(block))))
    return x.copy_(flat.view(x.shape))


def _uniform_(x: torch.Tensor, lo: float = 0.0, hi: float = 1.0) -> torch.Tensor:
    return _blocks(x, lambda count: lo + (hi - lo) * _draws(count))


def _normal_(x: torch.Tensor, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
    rest = x.numel() % 16
    flat = torch.empty(x.numel() - rest)
    whole = _blocks(flat, lambda count: mean + std * _box_muller(_draws(count)))
    if rest:  # torch makes the last 16 again
        _draws(rest)
        last = torch.from_numpy(mean + std * _box_muller(_draws(16)))
        whole = torch.cat([whole[: len(whole) + rest - 16], last.float()])
    return x.copy_(whole.view(x.shape))


def _box_muller(u: np.ndarray) -> np.ndarray:
    """Standard normals from draws in groups of 16.  # (16 g,) -> (16 g,)"""
    groups = u.reshape(-1, 2, 8)
    radius = np.sqrt(-2 * _log(1 - groups[:, 0]))
    cosine, sine = _turn(groups[:, 1])
    return np.stack([radius * cosine, radius * sine], axis=1).reshape(-1)


def _erfinv_(x: torch.Tensor) -> torch.Tensor:
    """erf⁻¹(x) = Φ⁻¹((x + 1) / 2) / √2: how torch truncates normals. ±∞ at ±1, as there."""
    p = (x.detach().double().cpu().numpy() + 1) / 2
    inside = np.clip(p, 2.0**-54, 1 - 2.0**-53)
    values = normal_quantile(np.atleast_1d(inside)).reshape(p.shape) / np.sqrt(2.0)
    return x.copy_(torch.from_numpy(np.where(p <= 0, -np.inf, np.where(p >= 1, np.inf, values))))


def _fresh(fill: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The operation that makes a tensor of a size and fills it."""

    def make(size: Sequence[int], **how: Any) -> torch.Tensor:
        return fill(torch.empty(list(size), **how))

    return make


def _like(fill: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def make(other: torch.Tensor, **how: Any) -> torch.Tensor:
        return fill(torch.empty_like(other, **how))

    return make


_UNIFORM: Mapping[Any, Callable[..., torch.Tensor]] = {
    _aten.uniform_.default: _uniform_,
    _aten.rand.default: _fresh(_uniform_),
    _aten.rand_like.default: _like(_uniform_),
    _aten.erfinv_.default: _erfinv_,
    _aten.erfinv.default: lambda x: _erfinv_(x.clone()),
}
_NORMAL: Mapping[Any, Callable[..., torch.Tensor]] = {
    _aten.normal_.default: _normal_,
    _aten.randn.default: _fresh(_normal_),
    _aten.randn_like.default: _like(_normal_),
}


class exact_draws(TorchDispatchMode):
    """Within it, torch's uniform and normal fills on the processor have the same bits on every machine."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: asking torch's compiler to skip us would import it, which takes a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation itself, or ours for a fill of floats."""
        options = dict(kwargs or {})
        ours = _UNIFORM.get(func) or _NORMAL.get(func)
        if ours is None or options.pop("generator", None) is not None or not _fits(func, args, options):
            return func(*args, **(kwargs or {}))
        with torch.no_grad():
            return ours(*args, **options)


def _fits(func: Any, args: Sequence[Any], options: Mapping[str, Any]) -> bool:
    """Is what is filled made of float32 in the processor's memory, and if of normals, not below 16?"""
    if isinstance(args[0], torch.Tensor):
        device, size = args[0].device, args[0].numel()
        dtype = options.get("dtype") or args[0].dtype
    else:
        device, size = torch.device(options.get("device") or "cpu"), prod(args[0])
        dtype = options.get("dtype") or torch.get_default_dtype()
    return device.type == "cpu" and dtype == torch.float32 and not (func in _NORMAL and size < 16)
