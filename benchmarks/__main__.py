"""Run the benchmarks named on the command line, or all."""

from __future__ import annotations

import sys

from benchmarks import codecs, decoding, fedpara_step, local_step, overhead, reading, scale, sparse_step, thin
from benchmarks.wire import namespaces

ALL = {
    "codecs": codecs.main,
    "lossy": codecs.lossy,
    "decoding": decoding.main,
    "local_step": local_step.main,
    "fedpara_step": fedpara_step.main,
    "sparse_step": sparse_step.main,
    "thin": thin.main,
    "overhead": overhead.main,
    "reading": reading.main,
    "scale": scale.main,
    "wire": namespaces.main,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        if name not in ALL:
            sys.exit(f"unknown benchmark {name!r}, known: {', '.join(ALL)}")
        ALL[name]()
