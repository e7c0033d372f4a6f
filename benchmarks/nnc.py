"""The opponent of `thin`: NNC (ISO 15938-17, nncodec 2.1.3), run by an interpreter that has it, without thinwire.

    python -m venv nnc && nnc/bin/pip install numpy && nnc/bin/pip install --no-deps nncodec==2.1.3
    nnc/bin/python benchmarks/nnc.py sweep runs/updates      # what `python -m benchmarks thin` compares with

Tuned: rate-distortion optimised quantisation (lambda_scale = 1), dependent quantisation, the whole update in one
stream, one-dimensional tensors at the same step. `sweep` finds, for every update and target, the whole quantisation
parameter whose error is next to the target, and writes FOLDER/nnc.json; `serve` answers lines "FILE QP" with bytes,
error, seconds. Its front ends for frameworks import torchvision and more; they are not used and stand empty here.
"""

import contextlib
import io
import json
import os
import sys
import time
import types
from pathlib import Path

import numpy as np

FRAMEWORKS = ("tensorflow_model", "pytorch_model", "use_case_init")
TARGETS = (0.5, 0.25, 0.1, 0.05, 0.01)
LAMBDA = 1.0


def _compression():
    framework = types.ModuleType("nncodec.framework")
    framework.__path__ = []
    sys.modules["nncodec.framework"] = framework
    for name in FRAMEWORKS:
        module = types.ModuleType(f"nncodec.framework.{name}")
        sys.modules[module.__name__] = module
        setattr(framework, name, module)
    from nncodec.nnc import compression

    return compression


def tensors(path):
    """The tensors of a recorded update by name."""
    stored, found, offset = np.load(path), {}, 0
    for name, shape, _ in json.loads(str(stored["shapes"])):
        size = int(np.prod(shape))
        found[name] = np.ascontiguousarray(stored["x"][offset : offset + size].reshape(shape or (1,)))
        offset += size
    return found


def coded(compression, parameters, qp):
    """Bytes, error relative to the energy, seconds to encode and to decode."""
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        stream = compression.compress(
            dict(parameters), bitstream_path=None, qp=qp, nonweight_qp=qp, use_dq=True, lambda_scale=LAMBDA,
            return_bitstream=True,
        )  # fmt: skip
        middle = time.perf_counter()
        back = compression.decompress(bytearray(stream))
        end = time.perf_counter()
    error = sum(float(((back[n].astype(np.float64) - x) ** 2).sum()) for n, x in parameters.items())
    energy = sum(float((x.astype(np.float64) ** 2).sum()) for x in parameters.values())
    return len(stream), error / energy, middle - start, end - middle


def sweep(folder):
    """Play what FOLDER/nnc.json lacks."""
    compression, out = _compression(), folder / "nnc.json"
    found = json.loads(out.read_text()) if out.exists() else {}
    for path in sorted(folder.glob("*.npz")):
        points = found.setdefault(path.stem, {"points": {}, "targets": {}})
        missing = [t for t in TARGETS if str(t) not in points["targets"]]
        parameters, qp = tensors(path) if missing else None, -30
        for target in missing:
            low = high = None
            while not (low is not None and high is not None and high - low == 1) and qp > -110:
                if str(qp) not in points["points"]:
                    points["points"][str(qp)] = coded(compression, parameters, qp)
                error = points["points"][str(qp)][1]
                low, high = (low, qp) if error > target else (qp, high)
                stride = max(1, min(16, int(abs(np.log2(max(error, 1e-9) / target)) * 2)))
                if low is not None and high is not None:
                    qp = (low + high) // 2
                else:
                    qp += stride if high is None else -stride
            points["targets"][str(target)] = min(
                (low, high), key=lambda q: abs(np.log(points["points"][str(q)][1] / target))
            )
            qp = points["targets"][str(target)] - 4
            out.with_suffix(".part").write_text(json.dumps(found))
            os.replace(out.with_suffix(".part"), out)
        print(path.stem, flush=True)


def serve():
    """Answer lines until there are none."""
    compression, kept = _compression(), {}
    for line in sys.stdin:
        path, qp = line.split()
        if path not in kept:
            kept = {path: tensors(path)}
        print(json.dumps(coded(compression, kept[path], int(qp))), flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else sweep(Path(sys.argv[2]))
