"""Plain settings to records: types follow the defaults, one line says what is wrong."""

from dataclasses import dataclass, field

import pytest

from thinwire.errors import ConfigError
from thinwire.settings import record


@dataclass(frozen=True)
class Options:
    rate: float = 0.5
    rounds: int = 3
    pinned: bool = False
    name: str = "a"
    pairs: tuple = ()
    seed: int | None = None
    extra: dict = field(default_factory=dict)


def test_nothing_given_is_the_defaults():
    assert record(Options, {}, "method") == Options()


def test_every_field():
    values = {"rate": 2, "rounds": 4, "pinned": True, "name": "b", "pairs": [[1, 2], 3], "seed": 7, "extra": {"x": 1}}
    made = record(Options, values, "method")
    assert made == Options(2.0, 4, True, "b", ((1, 2), 3), 7, {"x": 1})
    assert type(made.rate) is float


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("rate", "1", "float"),
        ("rate", False, "float"),
        ("rounds", 1.0, "int"),
        ("rounds", True, "int"),
        ("rounds", "3", "int"),
        ("pinned", 1, "bool"),
        ("name", 5, "str"),
        ("name", ["a"], "str"),
        ("pairs", "ab", "tuple"),
        ("rounds", None, "int"),
    ],
)
def test_wrong_type_names_field_value_and_type(name, value, kind):
    with pytest.raises(ConfigError, match=rf"method\.{name} = .*: a value of type {kind}") as caught:
        record(Options, {name: value}, "method")
    assert caught.value.field == f"method.{name}"


def test_unknown_field_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"uplink\.ratio = 1: unknown field, known: rate, rounds, pinned, name"):
        record(Options, {"ratio": 1}, "uplink")


def test_a_record_without_fields_knows_none():
    @dataclass(frozen=True)
    class Empty:
        pass

    with pytest.raises(ConfigError, match="known: none"):
        record(Empty, {"x": 1}, "method")
