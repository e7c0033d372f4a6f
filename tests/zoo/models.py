"""All models of the zoo: name -> (builder, kind of data, what training must come to, what of its state)."""

from tests.zoo.families import constants, frozen, layers, norms, oddities, randomness, sharing, state
from tests.zoo.families.pieces import Entry

FAMILIES: dict[str, dict[str, Entry]] = {
    "random draws": randomness.ZOO,
    "normalisation": norms.ZOO,
    "sharing": sharing.ZOO,
    "frozen and unused": frozen.ZOO,
    "state that changes": state.ZOO,
    "constants": constants.ZOO,
    "layers": layers.ZOO,
    "types, shapes, outputs": oddities.ZOO,
}
MODELS: dict[str, Entry] = {name: entry for family in FAMILIES.values() for name, entry in family.items()}
