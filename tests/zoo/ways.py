"""The ways to train of the zoo: name -> settings of a run."""

from typing import Any

from thinwire.methods import METHODS, PRESETS

Settings = dict[str, Any]

_BOTH = {"id": "stc", "error_feedback": True}
MORE: dict[str, Settings] = {
    "stc both ways": {"method": "fedavg", "uplink": _BOTH, "downlink": {"id": "stc"}},
    "thin both ways": {"method": "thin", "downlink": {"id": "thin"}},
    "float16 both ways": {"method": "fedavg", "uplink": "float16", "downlink": "float16"},
    "momentum and decay": {"method": "fedavg", "local": {"momentum": 0.9, "weight_decay": 0.01, "clip": 1.0}},
    "adam": {"method": "fedavg", "local": {"optimizer": "adam", "lr": 0.01}},
    "median": {"method": "fedavg", "server": {"aggregate": "median"}},
    "fedper, first": {"method": "fedper", "method.side": "first"},
    "held back": {"method": "fedavg", "test_fraction": 0.2},
}
DENSE = {"method.density": 0.5}  # at their defaults, these masks may cut off a whole layer of a model this small
MASKED = dict.fromkeys(("ssfl", "random-mask", "layerwise-mask", "magnitude-mask"), DENSE)
WAYS: dict[str, Settings] = {
    **{name: {"method": name} | MASKED.get(name, {}) for name in [*METHODS, *PRESETS]},
    **MORE,
}
NAMES = list(WAYS)


def _is_plain(settings: Settings) -> bool:
    """Does every client train the whole model as it is?"""
    how = PRESETS.get(settings["method"], {"method": {"name": settings["method"]}})
    return how["method"]["name"] in ("fedavg", "fedprox", "scaffold", "feddyn") and "parameterisation" not in how


PLAIN = frozenset(name for name, settings in WAYS.items() if _is_plain(settings))


def rotation(number: int, each: int = 2) -> list[str]:
    """`each` ways for the model of this number, so that all take their turn and neighbours differ."""
    return [NAMES[(number + turn * len(NAMES) // each) % len(NAMES)] for turn in range(each)]
