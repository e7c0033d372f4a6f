"""Models by name and by `module:function`."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from thinwire.errors import ConfigError
from thinwire.methods.base import seeded
from thinwire.models import MLP, MODELS, build, builder


class Own(nn.Module):
    def __init__(self, shape=(4,), classes=2):
        super().__init__()
        self.fc = nn.Linear(shape[0], classes)


@pytest.fixture
def own_module(monkeypatch):
    module = ModuleType("own_models")
    module.sized = lambda shape, classes: nn.Linear(shape[0], classes)
    module.fixed = lambda: nn.Linear(7, 3)
    module.Own = Own
    module.wrong = lambda: "a string"
    module.constant = 3
    module.broken = lambda: 1 / 0
    module.leaves = lambda: sys.exit(0)
    module.builtin = dict  # has no signature
    monkeypatch.setitem(sys.modules, "own_models", module)


def test_a_name_builds_for_the_data():
    model = build("mlp", (1, 4, 4), 3)
    assert isinstance(model, MLP)
    assert (model.fc1.in_features, model.fc3.out_features) == (16, 3)


def test_a_function_with_arguments_gets_shape_and_classes(own_module):
    model = build("own_models:sized", (5,), 4)
    assert (model.in_features, model.out_features) == (5, 4)


def test_a_function_without_arguments_is_called_bare(own_module):
    assert build("own_models:fixed", (5,), 4).in_features == 7


def test_a_class_serves_as_a_function(own_module):
    assert build("own_models:Own", (9,), 4).fc.in_features == 9


@pytest.mark.parametrize("spec", ["resnet", "", "MLP"])
def test_an_unknown_name_lists_what_there_is(spec):
    with pytest.raises(ConfigError, match=f"one of {', '.join(MODELS)}, or module:function") as caught:
        build(spec, (1, 8, 8), 10)
    assert caught.value.field == "model"
    assert caught.value.value == spec


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("no_such_module_at_all:f", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("own_models:missing", "cannot be imported: .*missing"),
        ("own models:f", "cannot be imported"),
        ("own_models:constant", "must be a function, not int"),
        ("own_models:wrong", "must return a torch.nn.Module, not str"),
        ("own_models:broken", r"a function that makes a model \(ZeroDivisionError: division by zero\)"),
        ("own_models:leaves", r"a function that makes a model \(SystemExit: 0\)"),
        ("own_models:builtin", r"a function that makes a model \(TypeError: "),
    ],
)
def test_a_bad_function_is_refused_with_the_reason(own_module, spec, reason):
    with pytest.raises(ConfigError, match=reason):
        build(spec, (1, 8, 8), 10)


DRAWS = """
import torch
from torch import nn
scale = torch.rand(3)

def model():
    return nn.Linear(4, 2)
"""


@pytest.mark.parametrize(("text", "reason"), [
    ("1 / 0", "ZeroDivisionError"), ("def f(:", "SyntaxError: "), ("raise SystemExit(0)", "SystemExit: 0"),
])  # fmt: skip
def test_a_module_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch, text, reason):
    (tmp_path / "cannot_be.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=f"model = 'cannot_be:f': cannot be imported: {reason}") as caught:
        build("cannot_be:f", (4,), 2)
    assert "\n" not in str(caught.value)


def test_what_a_module_draws_while_it_is_imported_does_not_count(tmp_path, monkeypatch):
    (tmp_path / "draws_early.py").write_text(DRAWS)
    monkeypatch.syspath_prepend(tmp_path)
    made = []
    for _ in range(2):  # imported for the first, there already for the second
        make = builder("draws_early:model", (4,), 2)
        made.append(seeded(make, 1).weight)
    assert torch.equal(*made)
