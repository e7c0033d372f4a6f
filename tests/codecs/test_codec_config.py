"""Codecs as configuration: what is refused, tags and names, and imports without the heavy libraries."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest

from thinwire.codecs import CODECS, Codec, Float32, Mask, codec_name, config, from_config, tag, to_config
from thinwire.errors import ConfigError


@dataclass(frozen=True)
class Nested:
    """A codec with a field of every type, as real ones have."""

    id: ClassVar[str] = "nested"
    dtype: ClassVar[str] = "float32"
    keep: float = 0.1
    levels: int = 4
    pinned: bool = True
    variant: str = "paper"
    runs: tuple[int, ...] = (1, 2)
    values: Codec = Float32()  # noqa: RUF009  frozen itself

    def encode(self, x, context):
        return b""

    def decode(self, payload, context):
        raise NotImplementedError


CLASSES = {**CODECS, "nested": Nested}


@pytest.mark.parametrize("settings", [{"id": "nothing"}, {}, {"id": None}, {"id": 3}, {"id": ["mask"]}])
def test_unknown_id(settings):
    with pytest.raises(ConfigError, match=r"codec id = .* one of .*float32.*mask"):
        from_config(settings)


def test_unknown_field():
    with pytest.raises(ConfigError, match=r"mask.colour = 'red': unknown field, known: none"):
        from_config({"id": "mask", "colour": "red"})
    with pytest.raises(ConfigError, match=r"nested.size = 3: unknown field, known: keep, levels, pinned"):
        config.from_config({"id": "nested", "size": 3}, CLASSES)


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("keep", "0.1", "float"),
        ("keep", True, "float"),
        ("levels", 4.0, "int"),
        ("levels", True, "int"),
        ("pinned", 1, "bool"),
        ("variant", 3, "str"),
        ("runs", 3, "tuple"),
        ("levels", None, "int"),
    ],
)
def test_wrong_type(field, value, kind):
    with pytest.raises(ConfigError, match=f"nested.{field} = .*: a value of type {kind}"):
        config.from_config({"id": "nested", field: value}, CLASSES)


def test_nested_codec_round_trip_through_json():
    codec = Nested(keep=0.5, runs=(3,), values=Nested(values=Mask()))
    described = json.loads(json.dumps(to_config(codec)))
    assert described["values"]["values"] == {"id": "mask"}
    assert config.from_config(described, CLASSES) == codec
    with pytest.raises(ConfigError, match="codec id = 'no'"):
        config.from_config({"id": "nested", "values": {"id": "no"}}, CLASSES)


def test_whole_numbers_serve_as_floats():
    codec = config.from_config({"id": "nested", "keep": 1}, CLASSES)
    assert type(codec.keep) is float


def test_tag_covers_id_and_configuration():
    assert tag(Nested()) == tag(Nested())
    assert tag(Nested()) != tag(Nested(keep=0.2))
    assert tag(Nested()) >> 16 == tag(Nested(keep=0.2)) >> 16
    assert len({tag(build()) >> 16 for build in CODECS.values()}) == len(CODECS)


def test_name_of_a_tag():
    for name, build in CODECS.items():
        assert codec_name(tag(build())) == name
    assert codec_name(0xDEADBEEF) == "unknown"


def test_codecs_import_without_heavy_libraries():
    script = (
        "import sys\n"
        "for name in ('torch', 'flwr', 'datasets', 'sklearn', 'pydantic', 'typer'): sys.modules[name] = None\n"
        "import numpy as np\n"
        "from thinwire.codecs import CODECS, Context\n"
        "from thinwire.layout import Layout\n"
        "context = Context(Layout.of({'a': (5,)}))\n"
        "for build in CODECS.values():\n"
        "    codec = build()\n"
        "    x = np.array([0, 1, 1, 0, 1], codec.dtype)\n"
        "    assert codec.decode(codec.encode(x, context), context).shape == x.shape\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
