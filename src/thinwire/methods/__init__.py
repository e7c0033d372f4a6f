"""Methods: what is broadcast, what a client does, how updates are merged. One algorithm a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import e
from typing import Any

from thinwire.methods.base import Data, Method, Setup, Update
from thinwire.methods.clientmasks import client_masks, dispfl
from thinwire.methods.fedavg import fedavg
from thinwire.methods.feddyn import feddyn
from thinwire.methods.fedper import fedper, local
from thinwire.methods.fedpm import fedpm
from thinwire.methods.fedprox import fedprox
from thinwire.methods.scaffold import scaffold
from thinwire.methods.sparsyfed import sparsyfed
from thinwire.methods.ssfl import ssfl

METHODS: dict[str, Callable[[Setup, Mapping[str, Any]], Method]] = {
    "fedavg": fedavg, "fedprox": fedprox, "scaffold": scaffold, "feddyn": feddyn,
    "fedper": fedper, "local": local, "fedpm": fedpm, "ssfl": ssfl,
    "client-masks": client_masks, "dispfl": dispfl, "sparsyfed": sparsyfed,
}  # fmt: skip

# What an experiment file may leave out, where a method needs something else than the general defaults.
DEFAULTS: dict[str, dict[str, Any]] = {"fedpm": {"local": {"optimizer": "adam", "lr": 0.1, "batch_size": 128}}}


def _fed(codec: str, error_feedback: bool = False) -> dict[str, Any]:
    """FedAvg through an uplink codec; error feedback for the biased ones."""
    return {"method": {"name": "fedavg"}, "uplink": {"id": codec, "error_feedback": error_feedback}}


def _factored(name: str, gamma: float) -> dict[str, Any]:
    """FedAvg of a parameterised model."""
    return {"method": {"name": "fedavg"}, "parameterisation": {"name": name, "gamma": gamma}}


def _masked(selection: str) -> dict[str, Any]:
    """SSFL's training under a mask that needs no saliencies."""
    return {"method": {"name": "ssfl", "selection": selection}}


# Named experiment fragments: `--method NAME` is the same as writing the fragment into the experiment file.
PRESETS: dict[str, dict[str, Any]] = {
    **{
        name: _fed(name, error_feedback=True)
        for name in ("thin", "fedzip", "m22", "tinyscript", "stc", "signsgd", "fp8")
    },
    **{name: _fed(name) for name in ("qsgd", "terngrad", "drive", "eden")},
    "mv-signsgd": {**_fed("signsgd"), "downlink": {"id": "signsgd"}, "server": {"optimizer": "majority"}},
    "fedpaq": {**_fed("qsgd"), "local": {"epochs": 5}, "cohort": {"fraction": 0.5}},
    **{name: _factored(name, gamma=0.1) for name in ("fedpara", "lowrank", "tucker")},
    "pfedpara": _factored("pfedpara", gamma=0.5),
    **{
        name: {"method": {"name": "fedavg"}, "server": {"optimizer": name}}
        for name in ("fedavgm", "fedadam", "fedyogi", "fedadagrad")
    },
    **{f"{name}-mask": _masked(name) for name in ("random", "layerwise", "magnitude")},
    "local-topk": {
        "method": {"name": "fedavg"},
        "uplink": {"id": "topk", "keep": 0.1, "scope": "global", "values": {"id": "float32"}, "error_feedback": False},
    },
    "fedpm-authors": {"method": {"name": "fedpm", "gain": e, "epsilon": 0.01, "straight_through": "probability"}},
}

__all__ = ["DEFAULTS", "METHODS", "PRESETS", "Data", "Method", "Setup", "Update"]
