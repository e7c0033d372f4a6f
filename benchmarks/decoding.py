"""The slowest decode that a payload can cause, beside the slowest that an honest one does, per million parameters.

Honest: a codec's own payloads of updates as they occur: Gaussian and Laplace entries, few large ones, a few outer
products in noise, one magnitude. Hostile: payloads of the same codec under other settings (all efforts, all sizes of
levels, every entry kept, more labels), the parts of a nested codec exchanged in the same way, forged ones that honest
writers never make, and mutants of all of these. Each is decoded, or refused, with the codec's own settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.fuzz.mutators import mutations
from benchmarks.measure import save
from thinwire.codecs import (
    FP8,
    M22,
    QSGD,
    STC,
    Bitmap,
    ByRole,
    Codec,
    Context,
    Each,
    Eden,
    FedZip,
    Fixed,
    Float16,
    Gaps,
    Huffman,
    KMeans,
    LogScale,
    Mask,
    Members,
    Raw,
    SignSGD,
    TernGrad,
    Thin,
    TopK,
    Uniform,
    Votes,
    varint,
)  # fmt: skip
from thinwire.codecs.thin import passes, tensor
from thinwire.codecs.thin.model import Model
from thinwire.codecs.thin.stream import Stream
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

LAYOUT = Layout.of({"fc": (600, 500), "conv": (64, 64, 3, 3), "bias": (500,), "head": (10, 6000)})
MUTANTS = 60
REPEATS = 3

CODECS: dict[str, Codec] = {
    **{f"thin {speed}": Thin(speed=speed) for speed in passes.SPEEDS},
    "thin nmse .5": Thin(nmse=0.5),
    "thin nmse .001": Thin(nmse=0.001),
    "thin .5 bits": Thin(bits=0.5),
    "thin 3 bits": Thin(bits=3.0),
    "thin lossless": Thin(lossless=True),
    "topk 1 %": TopK(0.01),
    "topk 1 %, gaps": TopK(0.01, positions=Gaps()),
    "topk 1 %, addresses": TopK(0.01, positions=Fixed()),
    "topk 10 %, thin": TopK(0.1, values=Thin()),
    "fedzip pinned": FedZip(),
    "fedzip faithful": FedZip(variant="faithful", keep=0.2, encoding="huffman"),
    "m22": M22(),
    "stc": STC(),
    "kmeans 3": KMeans(3),
    "kmeans 3, huffman": KMeans(3, labels=Huffman()),
    "kmeans 3, members": KMeans(3, labels=Members()),
    "kmeans 16, raw": KMeans(16, labels=Raw()),
    "uniform 2": Uniform(2),
    "uniform 2, huffman": Uniform(2, labels=Huffman()),
    "qsgd 16": QSGD(),
    "logscale 8": LogScale(),
    "terngrad": TernGrad(),
    "signsgd": SignSGD(),
    "eden 2": Eden(bits=2.0),
    "fp8": FP8(),
    "float16": Float16(),
    "each topk": Each(TopK(0.01)),
    "by-role": ByRole(TopK(0.01), Float16()),
    "mask": Mask(),
    "bitmap": Bitmap(),
    "gaps": Gaps(),
    "votes": Votes(),
    "huffman": Huffman(),
}


def updates(n: int) -> dict[str, np.ndarray]:
    """Updates (n,) float32 as they occur."""
    draw = np.random.default_rng(0)
    normal = draw.standard_normal(n)
    few, many = draw.random(n) < 0.01, draw.random(n) < 0.5
    return {
        "gaussian": normal, "laplace": draw.laplace(size=n), "products": products(draw),
        "few large": normal * np.where(few, 30, 1), "sparse": normal * few,
        "signs": np.sign(normal), "two magnitudes": np.sign(normal) * np.where(many, 30, 1),
    }  # fmt: skip


def products(draw: np.random.Generator) -> np.ndarray:
    """Four outer products a tensor, in a third of noise.  # (n,)"""
    out = []
    for entry in LAYOUT:
        rows = entry.shape[0] if len(entry.shape) > 1 else 1
        core = draw.standard_normal((rows, 4)) @ draw.standard_normal((4, entry.size // rows))
        out.append(core.ravel() + 0.3 * draw.standard_normal(entry.size))
    return np.concatenate(out)


def inputs(codec: Codec, honest: bool = True) -> list[np.ndarray]:
    """Arrays of the codec's dtype; others than honest ones are of any kind."""
    n, draw = LAYOUT.size, np.random.default_rng(1)
    if codec.dtype == "uint8":
        return [(draw.random(n) < p).astype(np.uint8) for p in ((0.01, 0.3, 0.5) if honest else (0.9, 1.0))]
    if codec.dtype == "uint32":
        most = min(getattr(codec, "most", 2**24 - 1), 10 if honest else 2**24 - 1)
        return [
            draw.integers(0, most + 1, n).astype(np.uint32),
            np.minimum(draw.geometric(0.5, n) - 1, most).astype(np.uint32),
        ]
    found = [0.01 * x for x in updates(n).values()]
    if not honest:
        found = [np.full(n, 0.5), draw.standard_cauchy(n), np.arange(n) - n / 2, np.full(n, 3e38)]
    return [x.astype(np.float32) for x in found]


def contexts(codec: Codec) -> list[Context]:
    """With and without what both ends share."""
    draw = np.random.default_rng(2)
    shared = draw.standard_normal(LAYOUT.size).astype(np.float32)
    if codec.dtype != "float32":
        shared = draw.integers(0, 11, LAYOUT.size).astype(np.uint32)
    return [Context(LAYOUT), Context(LAYOUT, shared, 1)]


def seconds(codec: Codec, payload: bytes, context: Context, repeats: int = REPEATS) -> tuple[float, bool]:
    """The least time of a few decodes, and whether the payload was accepted."""
    times, accepted = [], True
    for _ in range(repeats):
        began = perf_counter()
        try:
            codec.decode(payload, context)
        except DecodeError:
            accepted = False
        times.append(perf_counter() - began)
    return min(times), accepted


SIBLINGS: dict[type, list[dict[str, Any]]] = {
    Thin: [{"nmse": 1e-2, "speed": "small"}, {"nmse": 1e-6}, {"lossless": True}],
    TopK: [{"keep": keep} for keep in (0.1, 1.0)],
    STC: [{"keep": keep} for keep in (0.1, 1.0)],
    FedZip: [{"keep": 1.0}, {"keep": 1.0, "variant": "faithful"}],
    M22: [{"keep": 1.0}, {"keep": 1.0, "bits": 8}],
    KMeans: [{"clusters": clusters} for clusters in (16, 256)],
    Uniform: [{"bits": 8}, {"bits": 16}],
    QSGD: [{"levels": 1000}, {"levels": 2**20, "norm": "max"}],
    LogScale: [{"bits": 2}],
    Eden: [{"bits": 1.0}, {"bits": 4.0}],
}  # fmt: skip


def siblings(codec: Codec) -> Iterator[Codec]:
    """The same codec, or one inside it, under other settings."""
    for fields in SIBLINGS.get(type(codec), []):
        with suppress(ConfigError):
            yield type(codec)(**fields) if isinstance(codec, Thin) else replace(codec, **fields)
    for name in ("values", "weights"):
        if isinstance(inner := getattr(codec, name, None), Thin | TopK):
            for other in siblings(inner):
                yield replace(codec, **{name: other})


def forged(codec: Codec, context: Context) -> Iterator[bytes]:
    """Payloads that no writer makes and that cost their reader most."""
    n = context.layout.size
    if isinstance(codec, Thin) and not codec.lossless:
        for mode in (tensor.LEVELS, tensor.PRODUCTS, tensor.BOTH):
            for size in (3, 14, 2**20):
                yield costly(codec, context, mode, size, 64)
                yield costly(codec, context, mode, size, passes.SPEEDS[codec.speed].rank)
    if codec.id == "huffman":
        lengths, words = bytes([*range(1, 32), 31]), np.full(31 * n // 8 + 1, 255, np.uint8).tobytes()
        yield varint.write([32]) + lengths + words


def costly(codec: Thin, context: Context, mode: int, size: int, most: int) -> bytes:
    """Every tensor as so many products, levels, or both, all of one size: few bytes, many bits to learn."""
    stream, model, draw = Stream(), Model(), np.random.default_rng(3)
    effort = list(passes.SPEEDS).index(codec.speed)
    for source in passes.sources(np.zeros(context.layout.size, np.float32), context, 0):
        rank = source.known.form.products(most)
        rows, cols = source.known.form.rows, source.known.form.cols
        kind = mode if rank or mode == tensor.LEVELS else tensor.LEVELS
        counts = [rank * rows, rank * cols] if kind != tensor.LEVELS else []
        counts += [rows * cols] if kind != tensor.PRODUCTS else []
        planes = [((size * draw.choice([-1, 1], count)).astype(np.int32), tensor.USUAL) for count in counts]
        tensor.code(
            stream,
            tensor.Piece(kind, 0, rank, planes),
            source.known,
            1e-6,
            passes.SPEEDS[codec.speed].contexts,
            64,
            model,
        )
    body = stream.close()
    return bytes([effort | len(body) % 64 << 2]) + (-2500).to_bytes(2, "little", signed=True) + body


def slowest(codec: Codec) -> tuple[float, float, bool]:
    """The slowest honest decode, the slowest hostile one, and whether that was accepted, in seconds."""
    honest, hostile = 0.0, (0.0, False)
    for context in contexts(codec):
        own = [codec.encode(x, context) for x in inputs(codec)]
        honest = max(honest, *(seconds(codec, payload, context)[0] for payload in own))
        others = [*forged(codec, context)]
        for x in inputs(codec, honest=False):
            with suppress(ConfigError):
                others.append(codec.encode(x, context))
        for other in siblings(codec):
            for x in inputs(codec)[:2]:
                with suppress(ConfigError):
                    others.append(other.encode(x, context))
        hostile = max(hostile, *(seconds(codec, payload, context) for payload in others))
        for mutant in mutations([*own, *others], MUTANTS, seed=4):
            if seconds(codec, mutant, context, 1) > hostile:  # not by the machine's moods alone
                hostile = max(hostile, seconds(codec, mutant, context))
    return honest, *hostile


def main() -> None:
    """The table: milliseconds per million parameters."""
    rows, unit = [], 1e9 / LAYOUT.size
    for name, codec in CODECS.items():
        honest, hostile, accepted = slowest(codec)
        rows.append({
            "codec": name, "honest ms/M": unit * honest, "hostile ms/M": unit * hostile,
            "ratio": hostile / honest, "accepted": accepted,
        })  # fmt: skip
        print(rows[-1], flush=True)
    save("decoding", rows)


if __name__ == "__main__":
    main()
