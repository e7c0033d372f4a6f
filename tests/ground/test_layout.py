"""Layout: order, offsets, roles, and a digest that any difference changes."""

import numpy as np
import pytest

from thinwire.errors import ConfigError
from thinwire.layout import ROLES, Layout

SHAPES = {"fc.weight": (3, 2), "fc.bias": (3,), "scale": (), "none": (0, 4)}


def test_order_offsets_sizes_and_slices():
    layout = Layout.of(SHAPES)
    assert [entry.name for entry in layout] == list(SHAPES)
    assert [entry.offset for entry in layout] == [0, 6, 9, 10]
    assert [entry.size for entry in layout] == [6, 3, 1, 0] == layout.sizes.tolist()
    assert [entry.slice for entry in layout] == [slice(0, 6), slice(6, 9), slice(9, 10), slice(10, 10)]
    assert layout.size == 10
    assert len(layout) == 4


def test_roles_follow_the_axes_unless_given():
    assert [entry.role for entry in Layout.of(SHAPES)] == ["weight", "bias", "bias", "weight"]
    given = Layout.of(SHAPES, {"fc.bias": "norm", "scale": "buffer"})
    assert [entry.role for entry in given] == ["weight", "norm", "buffer", "weight"]


def test_empty_layout():
    layout = Layout.of({})
    assert layout.size == len(layout) == layout.sizes.size == 0
    assert len(layout.digest) == 8


def test_unknown_role_is_refused():
    with pytest.raises(ConfigError, match=f"role of a = 'filter': one of {', '.join(ROLES)}"):
        Layout.of({"a": (2,)}, {"a": "filter"})


@pytest.mark.parametrize("shape", [(-1,), (2, -3), (1.5,), ("3",)])
def test_sizes_are_whole_numbers_from_zero_on(shape):
    with pytest.raises(ConfigError, match="shape of a"):
        Layout.of({"a": shape})


def test_whole_numbers_of_numpy_are_fine():
    layout = Layout.of({"a": tuple(np.array([2, 3]))})
    assert layout == Layout.of({"a": (2, 3)})
    assert layout.digest == Layout.of({"a": (2, 3)}).digest


def test_digest_is_this_one():
    assert Layout.of({}).digest.hex() == "3bb0807ada97b54f"
    assert Layout.of({"fc.weight": (3, 2), "fc.bias": (3,)}).digest.hex() == "1ddabce5eac37b9e"
    assert Layout.of({"größe": (1,)}).digest.hex() == "97b739d2ac28ba39"


def test_digest_changes_with_everything():
    layouts = [
        Layout.of({"a": (2, 3), "b": (4,)}),
        Layout.of({"c": (2, 3), "b": (4,)}),
        Layout.of({"a": (3, 2), "b": (4,)}),
        Layout.of({"a": (6,), "b": (4,)}, {"a": "weight"}),
        Layout.of({"b": (4,), "a": (2, 3)}),
        Layout.of({"a": (2, 3), "b": (4,)}, {"b": "norm"}),
        Layout.of({"a": (2, 3)}),
        Layout.of({"a": (2, 3), "b": (4,), "c": (0,)}),
        Layout.of({"a": (2, 3), "b": (4,)}).restrict(np.ones(10, np.uint8)),
        Layout.of({"a": (2, 3), "b": (4,)}).restrict(np.arange(10) % 2),
        Layout.of({"a": (2, 3), "b": (4,)}).restrict(np.arange(1, 11) % 2),
    ]
    assert len({layout.digest for layout in layouts}) == len(layouts)


def test_layouts_are_values():
    assert Layout.of(SHAPES) == Layout.of(SHAPES)
    assert hash(Layout.of(SHAPES)) == hash(Layout.of(SHAPES))
    assert Layout.of(SHAPES) != Layout.of({})


def test_restrict_keeps_names_roles_and_counts():
    layout = Layout.of({"a": (2, 3), "b": (4,)}, {"b": "norm"})
    kept = layout.restrict(np.array([1, 0, 0, 1, 0, 0, 0, 0, 0, 1], np.uint8))
    assert [(e.name, e.shape, e.role, e.offset) for e in kept] == [("a", (2,), "weight", 0), ("b", (1,), "norm", 2)]
    assert kept.size == 3
    assert layout.restrict(np.zeros(10, bool)).size == 0
    assert layout.restrict(np.ones(10, bool)) == layout.restrict(np.ones(10, np.float32))


@pytest.mark.parametrize("shape", [(9,), (11,), (10, 1), ()])
def test_restrict_wants_one_flag_an_element(shape):
    with pytest.raises(ConfigError, match=r"mask = .*shape \(10,\)"):
        Layout.of({"a": (10,)}).restrict(np.ones(shape))
