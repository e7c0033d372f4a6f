"""A resumed run has the settings, the data and the model that it began with; what is another one is named."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest
from test_run_determinism import Stop, same, stop_after
from toyworld import TwoLayers, blobs, edit_manifests, run

from thinwire.console import print_result
from thinwire.data import Dataset, Split
from thinwire.errors import ConfigError, DataError, ThinwireError
from thinwire.report import read_run, write_report
from thinwire.runtime import origin
from thinwire.runtime.experiment import Experiment
from thinwire.runtime.run import export, resume

MORE = {"data": {"load": "changing:data"}, "model": {"build": "changing:model"}}


@pytest.fixture
def changing(monkeypatch):
    """A module of the user's own: `changing.data` and `changing.model` are what a test sets."""
    module = ModuleType("changing")
    module.data, module.model = blobs, TwoLayers
    module.model = lambda: TwoLayers()
    monkeypatch.setitem(sys.modules, "changing", module)
    return module


@pytest.fixture
def half(tmp_path, changing):
    with pytest.raises(Stop):
        run(tmp_path / "run", "fedavg", on_round=stop_after(1), uplink={"id": "topk", "keep": 0.5}, **MORE)
    return tmp_path / "run"


def refused(out):
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ThinwireError) as caught:
        resume(out, workers=1)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert "\n" not in str(caught.value)
    return caught.value


def changed_data(change):
    (x, y), (test_x, test_y) = blobs()
    parts = {"x": x.copy(), "y": y.copy(), "test_x": test_x.copy(), "test_y": test_y.copy()}
    change(parts)
    return (parts["x"], parts["y"]), (parts["test_x"], parts["test_y"])


def longer(parts):
    parts["x"], parts["y"] = np.concatenate([parts["x"]] * 2), np.concatenate([parts["y"]] * 2)


def wider(parts):
    for name in ("x", "test_x"):
        parts[name] = np.concatenate([parts[name]] * 2, axis=1)


def reordered(parts):
    parts["x"], parts["y"] = parts["x"][::-1].copy(), parts["y"][::-1].copy()


def one_value(name, value):
    def change(parts):
        parts[name][5] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (longer, "train had 60 samples and has 120"),
        (wider, "samples of train had shape (6,) and have (12,)"),
        (reordered, "x of train has changed"),
        (one_value("x", 0.125), "x of train has changed"),
        (one_value("y", 1), "labels of train have changed"),
        (one_value("test_x", 0.125), "x of test has changed"),
        (one_value("test_y", 0), "labels of test have changed"),
        (one_value("y", 3), "labels of train have changed"),
    ],
)
def test_other_data_are_refused(half, changing, change, said):
    changing.data = lambda: changed_data(change)
    error = refused(half)
    assert isinstance(error, DataError)
    assert str(error) == f"{half}: the data changing:data are not those that the run began with: {said}"


def test_other_classes_are_refused(half, changing):
    (x, y), (test_x, test_y) = blobs()
    changing.data = lambda: Dataset("mine", Split(x, y), Split(test_x, test_y), classes=5)
    assert "there were 3 classes and are 5" in str(refused(half))


@pytest.mark.parametrize(
    ("hidden", "inputs", "said"),
    [(7, 6, "tensor first.weight: shape (7, 6), shape (5, 6) when the run began")],
)
def test_a_model_of_another_shape_is_refused(half, changing, hidden, inputs, said):
    changing.model = lambda: TwoLayers(inputs, hidden)
    error = refused(half)
    assert isinstance(error, ConfigError)
    assert str(error) == f"model = 'changing:model': the model that the run began with ({said})"


class HalfFrozen(TwoLayers):
    """Its first layer is not trained."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.first.requires_grad_(False).weight *= scale


@pytest.mark.parametrize("name", ["fedavg", "fedpm"])
def test_a_model_with_other_frozen_values_is_refused(tmp_path, changing, name):
    changing.model = lambda: HalfFrozen()
    with pytest.raises(Stop):
        run(tmp_path / "run", name, on_round=stop_after(1), **MORE)
    changing.model = lambda: HalfFrozen(2.0)
    assert "its initial or frozen values are others" in str(refused(tmp_path / "run"))
    with pytest.raises(ConfigError, match="initial or frozen values"):
        export(tmp_path / "run", tmp_path / "model")
    changing.model = lambda: HalfFrozen()
    assert len(resume(tmp_path / "run", workers=1).rounds) == 3


def test_a_model_with_tensors_of_other_names_is_refused(half, changing):
    from torch import nn

    class Renamed(TwoLayers):
        def __init__(self):
            super().__init__()
            self.third, self.second = self.second, nn.Identity()

        def forward(self, x):
            return self.third(self.first(x).tanh())

    changing.model = lambda: Renamed()
    assert "tensor third.weight: shape (3, 5), none when the run began" in str(refused(half))


@pytest.mark.parametrize(
    ("old", "new", "field", "value", "before"),
    [
        ("seed = 3", "seed = 4", "seed", 4, "3"),
        ("lr = 0.1", "lr = 0.2", "local.lr", 0.2, "0.1"),
        ("keep = 0.5", "keep = 0.4", "uplink.keep", 0.4, "0.5"),
        ('partition = "iid"', 'partition = "shards:1"', "data.partition", "shards:1", "'iid'"),
        ("clients = 4", "clients = 5", "data.clients", 5, "4"),
        ('name = "fedavg"', 'name = "fedavg"\nsend_initial = true', "method.send_initial", True, "not set"),
        ("drop = 0.0", "drop = 0.1", "faults.drop", 0.1, "0.0"),
    ],
)
def test_an_edited_setting_is_named(half, old, new, field, value, before):
    config = half / "config.toml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new, 1))
    error = refused(half)
    assert isinstance(error, ConfigError)
    assert (
        str(error) == f"{config}: {field} = {value!r}: {before}, as when the run began; other settings need a new run"
    )


def test_fewer_rounds_than_were_played_are_refused(tmp_path, changing):
    with pytest.raises(Stop):
        run(tmp_path / "run", "fedavg", on_round=stop_after(2), uplink={"id": "topk", "keep": 0.5}, **MORE)
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace("rounds = 3", "rounds = 1"))
    assert str(refused(tmp_path / "run")) == f"{config}: rounds = 1: at least 2, the rounds that the run has played"
    config.write_text(config.read_text().replace("rounds = 1", "rounds = 2"))
    assert len(resume(tmp_path / "run", workers=1).rounds) == 2


def test_a_run_that_ends_where_it_was_stopped_may_have_no_score(tmp_path, changing):
    with pytest.raises(Stop):
        run(tmp_path / "run", "fedavg", on_round=stop_after(2), evaluation={"server_every": 3}, **MORE)
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace("rounds = 3", "rounds = 2"))
    found = resume(tmp_path / "run", workers=1)
    assert found.summary["best_accuracy"] is None
    assert found.summary["model_accuracy"] > 0
    assert read_run(found.out).summary["rounds"] == 2
    print_result(found.out)
    write_report([found.out], found.out / "report.html")


def test_of_several_edits_all_are_named(half):
    config = half / "config.toml"
    config.write_text(config.read_text().replace("lr = 0.1", "lr = 0.2").replace("epochs = 1", "epochs = 2"))
    assert "local.epochs = 2: 1, as when the run began (local.lr changed too)" in str(refused(half))


def test_what_shapes_no_byte_may_be_edited(tmp_path, half):
    config = half / "config.toml"
    text = config.read_text()
    for old, new in (
        ("rounds = 3", "rounds = 5"), ("every = 1", "every = 2"), ("server_every = 1", "server_every = 2"),
        ("memory_mb = 512", "memory_mb = 0"), ("min_replies = 1", "min_replies = 2"), ("torch = ", "other = "),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new, 1)
    config.write_text(text + "\n[link]\nup_mbps = 1\ndown_mbps = 10\nlatency_ms = 50\n")
    resume(half, workers=1)
    whole = run(tmp_path / "whole", "fedavg", rounds=5, uplink={"id": "topk", "keep": 0.5}, **MORE)
    assert (half / "model.safetensors").read_bytes() == (whole.out / "model.safetensors").read_bytes()


def test_every_free_setting_is_a_setting():
    cohort = {"keys": {"ecdsa-sha2-nistp384 " + 40 * "A": 0}, "worker_timeout": 60}
    known = {"link", "versions"} | {key for key, _ in origin._flat(Experiment(cohort=cohort).model_dump())}
    for free in origin.FREE:
        assert any(f"{key}.".startswith(f"{free}.") for key in known), free


def test_a_run_of_before_has_nothing_to_compare_with(half, changing):
    (half / "checkpoint" / origin.ORIGIN).unlink()
    changing.data = lambda: changed_data(reordered)
    assert len(resume(half, workers=1).rounds) == 3


def test_a_setting_that_the_version_of_before_did_not_have_is_its_default(half):
    path = half / "checkpoint" / origin.ORIGIN
    began = json.loads(path.read_text())
    del began["settings"]["local.clip"]
    path.write_text(json.dumps(began))
    resume(half, workers=1)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"settings": 1, "data": {}, "model": {}}', "\xff"])
def test_a_broken_file_is_named(half, text):
    (half / "checkpoint" / origin.ORIGIN).write_text(text, encoding="latin-1")
    assert str(refused(half)).startswith(f"{half / 'checkpoint' / origin.ORIGIN}: cannot be read (")


def test_a_run_that_has_not_committed_a_round_begins_anew(tmp_path, changing):
    with pytest.raises(Stop):
        run(tmp_path / "run", "fedavg", on_round=stop_after(1), checkpoint={"every": 3}, **MORE)
    changing.data = lambda: changed_data(longer)
    result = resume(tmp_path / "run", workers=1)
    same(result.out, run(tmp_path / "whole", "fedavg", checkpoint={"every": 3}, **MORE).out)


def test_another_deal_is_refused(half, monkeypatch):
    """As by a natural column, which no digest of the samples sees."""
    real = origin._partition
    monkeypatch.setattr(origin, "_partition", lambda parts: real(parts) + "!")
    assert "partition iid deals the samples otherwise than when the run began" in str(refused(half))


def test_export_and_report_read_a_run_whose_data_have_changed(half, changing):
    changing.data = lambda: changed_data(reordered)
    assert export(half, half.parent / "model.safetensors")[1] > 0
    assert len(read_run(half).rounds) == 1


# the ledger ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "number", "of"), [("doubled", 2, 1), ("late", 1, 2), ("gap", 2, 3)])
def test_a_ledger_whose_rounds_do_not_count_is_refused(tmp_path, change, number, of):
    from hashlib import sha256

    out = run(tmp_path / "run", "fedavg").out
    one, two, three = (out / "rounds.jsonl").read_text().splitlines(keepends=True)
    text = {"doubled": one + one + two + three, "late": two + three, "gap": one + three}[change].encode()
    for path in out.rglob("rounds.jsonl"):
        path.write_bytes(text)
    mark = {"bytes": len(text), "sha256": sha256(text).hexdigest()}
    edit_manifests(out / "checkpoint", lambda manifest: manifest.update(ledger=mark))
    with pytest.raises(DataError, match=rf"rounds\.jsonl, line {number}: is of round {of}, lines must count rounds"):
        resume(out, workers=1)
