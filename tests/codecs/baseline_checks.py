"""What every baseline codec is held to, in one place: odd inputs, hostile bytes, seeds, unbiasedness."""

import numpy as np
import pytest

from thinwire.codecs import Context
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

MIXED = Layout.of({"conv": (4, 3, 3, 3), "none": (0, 5), "scale": (), "bias": (7,), "fc": (20, 11), "last": (0,)})
LAYOUTS = (Layout.of({}), Layout.of({"a": (0,), "b": (3, 0)}), Layout.of({"a": ()}), Layout.of({"a": (1,)}), MIXED)


def flat(n, seed=0):
    """Context of one tensor of n entries."""
    return Context(Layout.of({"a": (n,)}), seed=seed)


def gaussian(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def sent(codec, x, context):
    """What arrives."""
    return codec.decode(codec.encode(x, context), context)


def nmse(codec, x, context):
    """‖x̂ − x‖² / ‖x‖²."""
    error = sent(codec, x, context).astype(np.float64) - x
    return float((error**2).sum() / (x.astype(np.float64) ** 2).sum())


def odd_inputs(n):
    """Named finite arrays that break careless codecs."""
    most, draw = np.finfo(np.float32).max, np.random.default_rng(1)
    made = {"zeros": np.zeros(n), "minus zeros": np.full(n, -0.0), "constant": np.full(n, -0.37)}
    made |= {"largest": np.full(n, most), "both ends": np.where(np.arange(n) % 2, most, -most)}
    made |= {f"normal {scale:g}": scale * gaussian(n) for scale in (1e-30, 1.0, 1e30)}
    made |= {"tiny": np.full(n, 1e-45), "one": np.arange(n) == n - 1, "heavy": draw.standard_cauchy(n)}
    return {name: np.asarray(x).astype(np.float32) for name, x in made.items()}


def check_odd_inputs(codec):
    """Every layout, every odd input: right size, finite, the same bytes twice, the input untouched, zero stays zero."""
    for layout in LAYOUTS:
        for name, x in odd_inputs(layout.size).items():
            context, before = Context(layout, seed=3), x.copy()
            payload = codec.encode(x, context)
            back = codec.decode(payload, context)
            assert (back.shape, back.dtype) == (x.shape, np.float32), name
            assert np.isfinite(back).all(), name
            assert x.tobytes() == before.tobytes(), name
            assert codec.encode(x, context) == payload, name
            assert codec.decode(payload, context).tobytes() == back.tobytes(), name
            assert x.any() or not back.any(), name


def check_not_finite_is_refused(codec):
    for odd in (np.nan, np.inf, -np.inf):
        x = np.ones(MIXED.size, np.float32)
        x[5:] = odd
        with pytest.raises(ConfigError, match=r"NaN or infinity at entry 5.*finite entries"):
            codec.encode(x, Context(MIXED))
    with pytest.raises(ConfigError, match=r"a float32 array of shape"):
        codec.encode(np.ones(MIXED.size), Context(MIXED))


def check_shared_is_left_alone(codec):
    """A float32 `shared`, as weight updates bring along, neither fails nor changes a byte."""
    x = gaussian(MIXED.size)
    assert codec.encode(x, Context(MIXED, gaussian(MIXED.size, 1), 3)) == codec.encode(x, Context(MIXED, None, 3))


def check_hostile(codec, tries=200):
    """Mutated payloads raise DecodeError or give the right size; longer ones always raise."""
    draw = np.random.default_rng(7)
    payloads = [codec.encode(x, Context(MIXED, seed=3)) for x in odd_inputs(MIXED.size).values()]
    for _ in range(tries):
        payload = bytearray(payloads[draw.integers(len(payloads))])
        kind = draw.integers(4)
        if kind == 0:
            payload[draw.integers(len(payload))] ^= 1 << draw.integers(8)
        elif kind == 1:
            payload = payload[: draw.integers(len(payload))]
        elif kind == 2:
            start = draw.integers(len(payload))
            payload[start : start + 8] = draw.bytes(len(payload[start : start + 8]))
        else:
            payload = bytearray(draw.bytes(int(draw.integers(len(payload) + 20))))
        _decoded_or_refused(codec, bytes(payload), Context(MIXED, seed=3))
    for payload in payloads:
        for tail in (b"\0", b"\xff", bytes(4), bytes(100)):
            with pytest.raises(DecodeError):
                codec.decode(payload + tail, Context(MIXED, seed=3))
    for layout in LAYOUTS[:2]:
        with pytest.raises(DecodeError):
            codec.decode(b"\0\0\0\0\7", Context(layout))


def _decoded_or_refused(codec, payload, context):
    try:
        back = codec.decode(payload, context)
    except DecodeError:
        return
    assert (back.shape, back.dtype) == ((context.layout.size,), np.float32)


def check_bad_scales(codec, context):
    """A first scale that is NaN, infinite or negative is refused."""
    payload = codec.encode(np.ones(context.layout.size, np.float32), context)
    for odd in (np.nan, np.inf, -np.inf, -1.0):
        with pytest.raises(DecodeError, match="scale"):
            codec.decode(np.float32(odd).tobytes() + payload[4:], context)


def means(codec, x, draws=500):
    """Mean over seeds of what arrives, and its standard error.  # (n,) float64 twice"""
    layout = Layout.of({"a": (x.size,)})
    made = np.stack([sent(codec, x, Context(layout, seed=seed)) for seed in range(draws)]).astype(np.float64)
    return made.mean(axis=0), made.std(axis=0, ddof=1) / np.sqrt(draws)


def check_rounds_to(codec, x, target, step, draws=500):
    """Stochastic rounding to multiples of `step` that has the mean `target`: five true standard errors, every entry.

    Entries that are hardly ever sent have skewed means: Bernstein's inequality at five sigma adds 5² step / 6 draws.
    """
    part = np.abs(target.astype(np.float64)) / step % 1
    bound = 5 * step * np.sqrt(part * (1 - part) / draws) + 25 / 6 * step / draws
    mean, _ = means(codec, x, draws)
    assert (np.abs(mean - target) <= bound + 1e-6 * np.abs(x).max()).all()
    assert abs((mean - target).sum()) <= 5 * step * np.sqrt((part * (1 - part)).sum() / draws)


def check_seed_matters(codec, x=None):
    x = gaussian(600) if x is None else x
    payloads = {codec.encode(x, flat(x.size, seed)) for seed in range(5)}
    assert len(payloads) == 5


def entropy_bytes(labels):
    """Bytes of the labels at their empirical entropy."""
    p = np.bincount(labels) / labels.size
    return float(-(p[p > 0] * np.log2(p[p > 0])).sum() * labels.size / 8)


COMMON = (check_odd_inputs, check_not_finite_is_refused, check_shared_is_left_alone, check_hostile)
