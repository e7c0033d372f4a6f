"""What is tried: the known good candidates, those that fit, and requests that are refused before anything trains."""

import pytest

from thinwire import compare
from thinwire.api import settings
from thinwire.codecs import CODECS
from thinwire.errors import ConfigError
from thinwire.runtime.experiment import read_file
from thinwire.suggest import Budget, prepare
from thinwire.suggest.trial import CANDIDATES

TOY = settings(data="toyworld:blobs", model="toyworld:two_layers", clients=3, rounds=8)


def toy(out, options=TOY, budget="1MB", **more):
    return prepare(options, out, budget=budget, **more)


def test_every_known_candidate_is_an_experiment_of_its_own():
    found = compare.entries(read_file(CANDIDATES))
    assert len(found) >= 10
    assert len({experiment.model_dump_json() for experiment in found.values()}) == len(found)
    assert found["float32"].uplink == {}
    for name, experiment in found.items():
        up, down = experiment.uplink.get("id", "float32"), experiment.downlink.get("id", "float32")
        assert {up, down} <= set(CODECS), name
        biased = up in ("thin", "stc", "m22", "fedzip")
        assert experiment.uplink.get("error_feedback", False) == biased, name


def test_all_of_them_are_tried_where_they_fit(tmp_path):
    trial = prepare(settings(data="digits", model="mlp"), tmp_path, budget="5MB")
    assert set(trial.runs) == set(read_file(CANDIDATES)["entries"])
    assert not trial.left_out
    assert trial.budget == Budget(5e6)
    assert trial.limits == [3, 6, 12, 24, 30]
    assert not list(tmp_path.iterdir())  # nothing is written before it is played


def test_those_that_do_not_fit_the_model_are_left_out_with_the_reason(tmp_path):
    trial = toy(tmp_path)
    assert {name.partition("-")[0] for name in trial.left_out} == {"fedpara", "lowrank"}
    assert trial.left_out["fedpara"] == (
        "parameterisation.name = 'fedpara': only for a model that has fewer parameters with factors"
    )
    assert {"float32", "fedpm", "ssfl"} <= set(trial.runs)
    normed = toy(tmp_path, settings(data="toyworld:blobs", model="toyworld:weight_normed", clients=3))
    assert "weight_norm" in normed.left_out["fedpm"]
    assert "float32" in normed.runs


def test_options_hold_for_all_but_what_a_candidate_says_itself(tmp_path):
    options = settings(data="digits", model="mlp", clients=5, lr=0.2, batch_size=16, local_epochs=2, seed=3, rounds=4)
    runs = toy(tmp_path, options | {"link": {"up_mbps": 1, "down_mbps": 2, "latency_ms": 3}}).runs
    for name, run in runs.items():
        experiment = run.experiment
        assert (experiment.data.clients, experiment.seed, experiment.rounds) == (5, 3, 4), name
        assert (experiment.local.batch_size, experiment.local.epochs) == (16, 2), name
        assert experiment.link.down_mbps == 2
        assert (experiment.local.optimizer, experiment.local.lr) == (
            ("adam", 0.1) if name == "fedpm" else ("sgd", 0.2)
        ), name


def test_candidates_by_name_and_from_a_file(tmp_path, suite):
    assert list(toy(tmp_path, candidates=["fedavg", "stc"]).runs) == ["fedavg", "stc"]
    assert list(toy(tmp_path, candidates=[suite]).runs) == ["floor", "half", "thin", "masks"]
    with pytest.raises(ConfigError, match="suite = 'zip': a TOML file, or some of"):
        toy(tmp_path, candidates=["zip"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 1}, r"^speed = 1: unknown field"),
        ({"data": {"clints": 3}}, r"^data\.clints = 3: unknown field"),
        ({"data": {"name": "nothing", "load": None}}, r"^data = 'nothing': one of digits"),
        ({"model": {"name": "nothing", "build": None}}, r"^model = 'nothing': one of linear"),
        ({"data": {"clients": 0}}, r"^data\.clients = 0: "),
        ({"device": "abacus"}, r"^device = 'abacus': "),
    ],
)
def test_what_is_wrong_with_all_is_wrong_with_the_request(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        toy(tmp_path, {**TOY, **{key: {**TOY.get(key, {}), **value} if isinstance(value, dict) else value
                                 for key, value in options.items()}})  # fmt: skip


def test_a_setting_that_only_some_take_leaves_the_others_out(tmp_path):
    trial = toy(tmp_path, TOY | {"method": {"density": 0.5}})
    assert all(name.startswith("ssfl") for name in trial.runs)
    assert trial.left_out["float32"].startswith("method.density = 0.5: ")


def test_one_seed(tmp_path):
    for options in (TOY | {"seeds": [0, 1]}, TOY | {"seeds": [0]}):
        with pytest.raises(ConfigError, match=r"seeds = \[0.*\]: no list: candidates are tried with one seed"):
            toy(tmp_path, options)


def test_a_deadline_needs_links(tmp_path):
    with pytest.raises(ConfigError, match="deadline = '10min': only with links: --link UP/DOWN/LATENCY, or a section"):
        toy(tmp_path, budget=None, deadline="10min")
    linked = TOY | {"link": {"up_mbps": 1.0, "down_mbps": 10.0, "latency_ms": 50.0}}
    assert toy(tmp_path, linked, budget=None, deadline="10min").budget == Budget(600, "seconds")


def test_runs_of_other_settings_are_refused(tmp_path, suite):
    trial = toy(tmp_path / "out", candidates=[suite])
    trial.plan.ask()
    (tmp_path / "out" / "floor").mkdir()
    (tmp_path / "out" / "floor" / "config.toml").write_text("")
    assert toy(tmp_path / "out", candidates=[suite], budget="2MB").runs  # another budget asks for the same runs
    with pytest.raises(ConfigError, match="a directory without runs of other settings; choose another --out"):
        toy(tmp_path / "out", TOY | {"seed": 1}, candidates=[suite])
