"""`thin` against tuned NNC and against the other codecs, on real client updates.

First `python -m benchmarks.updates runs/updates`, then `nnc.py sweep` (see there). THINWIRE_NNC names the interpreter
that has NNC, for times beside it; without it times are thin's alone.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from math import exp, log
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks import updates
from benchmarks.measure import save
from thinwire.codecs import M22, QSGD, Context, Eden, FedZip, Float16, Thin, TopK
from thinwire.codecs.base import Codec
from thinwire.codecs.thin import passes, rate
from thinwire.layout import Layout

FOLDER = updates.FOLDER


def _size(update: updates.Update, context: Context, speed: str, nmse: float) -> int:
    """Bytes of thin at an error that is at most `nmse`: the step is made finer until it is."""
    sources = passes.sources(update.x, context, passes.SPEEDS[speed].rank)
    found = rate.search(sources, speed, "nmse", nmse)
    k, pieces, error = found.k, found.pieces, found.nmse
    energy = sum(float((source.x.astype(np.float64) ** 2).sum()) for source in sources)
    while error > nmse:
        k -= 1
        done = passes.choose(sources, k, speed)
        pieces, error = done.pieces, done.error / energy
    return 3 + len(passes.write(pieces, sources, k, speed))


def against_nnc() -> None:
    """Bytes at the error of tuned NNC, or below it."""
    opponent, rows = json.loads((FOLDER / "nnc.json").read_text()), []
    for update in updates.load(FOLDER):
        for target, qp in opponent.get(update.name, {"targets": {}})["targets"].items():
            nnc, nmse = opponent[update.name]["points"][str(qp)][:2]
            row: dict[str, Any] = {"update": update.name, "tuning": update.tuning, "target": float(target)}
            row |= {"nmse": nmse, "nnc": nnc}
            for speed in ("balanced", "fast"):
                row[f"{speed}, shared"] = _size(update, update.context, speed, nmse)
                row[f"{speed}, alone"] = _size(update, Context(update.context.layout), speed, nmse)
            rows.append(row)
            print(*row.values(), flush=True)
    save("thin_bytes", rows)
    for kind in ("balanced, shared", "balanced, alone", "fast, shared", "fast, alone"):
        for tuning in (True, False):
            ratios = [row[kind] / row["nnc"] for row in rows if row["tuning"] == tuning]
            mean = exp(sum(map(log, ratios)) / len(ratios))
            print(f"{kind}, {'tuning' if tuning else 'held out'}: geometric mean {mean:.3f}, worst {max(ratios):.3f}")


def speed() -> None:
    """Seconds at a fixed step, in turns with tuned NNC at about the same error."""
    nnc = os.environ.get("THINWIRE_NNC")
    server = None
    if nnc:
        command = [nnc, str(Path(__file__).parent / "nnc.py"), "serve"]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    opponent, rows = json.loads((FOLDER / "nnc.json").read_text()), []
    for name in ("lenet-dirichlet-r08", "conv4-iid-r06", "fedpara-dirichlet-r06", "lstm-b-r06", "vgg16-iid-r05"):
        update = updates.read(FOLDER / f"{name}.npz")
        for target in ("0.25", "0.05"):
            known = opponent.get(name, {"targets": {}})["targets"].get(target)
            if known is None:
                continue
            nmse = opponent[name]["points"][str(known)][1]
            steps = {}
            for effort in ("fast", "balanced"):
                sources = passes.sources(update.x, update.context, passes.SPEEDS[effort].rank)
                steps[effort] = rate.search(sources, effort, "nmse", nmse).k
            seconds: dict[str, list[float]] = {}
            for _ in range(7 if update.x.size < 10**7 else 3):  # NNC takes 20 s for VGG16
                if server:
                    print(FOLDER / f"{name}.npz", known, file=server.stdin, flush=True)
                    _, _, encode, decode = json.loads(server.stdout.readline())  # type: ignore[union-attr]
                    seconds.setdefault("nnc encode", []).append(encode)
                    seconds.setdefault("nnc decode", []).append(decode)
                for effort, k in steps.items():
                    start = perf_counter()
                    sources = passes.sources(update.x, update.context, passes.SPEEDS[effort].rank)
                    stream = passes.write(passes.choose(sources, k, effort).pieces, sources, k, effort)
                    middle = perf_counter()
                    passes.read(stream, update.context, k, effort)
                    seconds.setdefault(f"{effort} encode", []).append(middle - start)
                    seconds.setdefault(f"{effort} decode", []).append(perf_counter() - middle)
            middle_of = {what: median(values) for what, values in seconds.items()}
            row = {"update": name, "parameters": update.x.size, "nmse": nmse} | middle_of
            for effort in steps:
                for way in ("encode", "decode"):
                    row[f"{effort} {way} MB/s"] = 4e-6 * update.x.size / middle_of[f"{effort} {way}"]
                    if server:
                        pairs = zip(seconds[f"nnc {way}"], seconds[f"{effort} {way}"], strict=True)
                        row[f"{effort} {way} x nnc"] = median(a / b for a, b in pairs)
            rows.append(row)
            print(*row.values(), flush=True)
    save("thin_speed", rows)
    if server:
        server.terminate()


OTHERS: dict[str, list[Codec]] = {
    "EDEN": [Eden(bits=b, scale="mse") for b in (0.25, 0.5, 1.0, 2.0, 3.0, 4.0)],
    "QSGD, range-coded": [QSGD(levels=s) for s in (1, 4, 16, 64)],
    "FedZip pinned": [FedZip(keep=k) for k in (0.003, 0.01, 0.03, 0.1, 0.3)],
    "M22": [M22(keep=k, bits=b, magnitude=0.0) for k, b in ((0.01, 1), (0.03, 2), (0.1, 2), (0.3, 3), (1.0, 4))],
    "top-k, float16": [TopK(keep=k, values=Float16()) for k in (0.003, 0.01, 0.03, 0.1, 0.3)],
}
THIN = {"thin": True, "thin, nothing shared": False}
TARGETS = (0.7, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001)


def rate_distortion() -> None:
    """Bits a parameter and error of every codec; docs/figures.py draws them."""
    import pyarrow

    rows = []
    for name in ("lenet-dirichlet-r08", "fedpara-dirichlet-r06"):
        update = updates.read(FOLDER / f"{name}.npz")
        energy, n = float((update.x.astype(np.float64) ** 2).sum()), update.x.size

        def add(codec: str, payload: int, back: np.ndarray, u=update, energy=energy, n=n, name=name) -> None:  # type: ignore[no-untyped-def]
            nmse = float(((u.x.astype(np.float64) - back) ** 2).sum()) / energy
            rows.append({"update": name, "codec": codec, "bits a parameter": 8 * payload / n, "nmse": nmse})

        for label, codecs in OTHERS.items():
            for codec in codecs:
                payload = codec.encode(update.x, update.context)
                add(label, len(payload), codec.decode(payload, update.context))
        for label, given in THIN.items():
            context = update.context if given else Context(update.context.layout)
            for target in TARGETS:
                payload = Thin(nmse=target).encode(update.x, context)
                add(label, len(payload), Thin().decode(payload, context))
        half = update.x.astype(np.float16)
        add("zstd of float16", pyarrow.Codec("zstd", 19).compress(half.tobytes()).size, half.astype(np.float32))
        for nnc in json.loads((FOLDER / "nnc.json").read_text()).get(name, {"points": {}})["points"].values():
            rows.append({"update": name, "codec": "NNC, tuned", "bits a parameter": 8 * nnc[0] / n, "nmse": nnc[1]})
    save("thin_rate_distortion", rows)


def _one_scale(n: int) -> None:
    """MB/s and peak memory of one update of n entries, a product of rank 8 in noise; prints JSON."""
    rows = int(n**0.5) // 4
    draw = np.random.default_rng(0)
    x = draw.standard_normal((rows, 8), np.float32) @ draw.standard_normal((8, n // rows), np.float32)
    for i in range(rows):
        x[i] += draw.standard_normal(n // rows, np.float32)
    layout = Layout.of({"weight": x.shape})
    Thin().encode(x[: rows // 8].ravel()[:1000], Context(Layout.of({"a": (10, 100)})))  # compiled
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sources = passes.sources(x.reshape(-1), Context(layout), passes.SPEEDS["balanced"].rank)
    k = 256  # a step of 4 standard deviations of the noise
    start = perf_counter()
    stream = passes.write(passes.choose(sources, k, "balanced").pieces, sources, k, "balanced")
    middle = perf_counter()
    passes.read(stream, Context(layout), k, "balanced")
    end = perf_counter()
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    row = {"parameters": x.size, "bytes": len(stream), "encode MB/s": x.nbytes / 1e6 / (middle - start)}
    row |= {"decode MB/s": x.nbytes / 1e6 / (end - middle), "peak memory / update": peak / x.nbytes}
    print(json.dumps(row))


def scale() -> None:
    """1 M and 100 M entries, each in a process of its own."""
    rows = []
    for n in (1_000_000, 100_000_000):
        command = [sys.executable, "-m", "benchmarks.thin", str(n)]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    save("thin_scale", rows)


def main() -> None:
    """All of it, as far as updates and opponents have been recorded."""
    if not (FOLDER / "nnc.json").exists():
        print(f"thin: no {FOLDER}/nnc.json, see benchmarks/nnc.py")
        return
    against_nnc()
    speed()
    rate_distortion()
    scale()


if __name__ == "__main__":
    _one_scale(int(sys.argv[1]))
