"""The experiment: every wrong setting is named in one line with what is allowed; TOML out and in again."""

import sys
from types import ModuleType

import pytest
from torch import nn
from toyworld import experiment, run

from thinwire.errors import ConfigError, DataError
from thinwire.runtime.experiment import Experiment, assignment, dotted, merge, parse, read_file, to_toml
from thinwire.runtime.run import assemble, start


def refused(settings):
    with pytest.raises(ConfigError) as caught:
        parse(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speed": 9}, "speed = 9: unknown field, known: seed, rounds, device, data, model"),
        ({"data": {"client": 5}}, "data.client = 5: unknown field, known: name, path, load, clients, partition"),
        ({"model": {"width": 5}}, "model.width = 5: unknown field, known: name, build"),
        ({"cohort": {"share": 1}}, "cohort.share = 1: unknown field, known: fraction, size"),
        ({"local": {"rate": 1}}, "local.rate = 1: unknown field, known: epochs, batch_size"),
        ({"server": {"rate": 1}}, "server.rate = 1: unknown field, known: lr"),
        ({"parameterisation": {"name": "lora"}}, "parameterisation.name = 'lora': one of dense, fedpara"),
        ({"parameterisation": {"name": "fedpara", "gamma": 2}}, "parameterisation.gamma = 2.0: "),
        ({"checkpoint": {"each": 1}}, "checkpoint.each = 1: unknown field, known: every, memory_mb"),
        ({"method": {"name": "fedsgd"}}, "method.name = 'fedsgd': one of client-masks, dispfl, drive, "),
        ({"method": {"name": ["fedpm"]}}, "method.name = ['fedpm']: one of"),
        ({"method": "fedpm"}, "method = 'fedpm': a table with a name"),
        ({"uplink": "mask"}, "uplink = 'mask': input should be a valid dictionary"),
        ({"data": "digits"}, "data = 'digits': input should be"),
        ({"local": 5}, "local = 5: input should be"),
        ({"rounds": "many"}, "rounds = 'many': input should be a valid integer"),
        ({"rounds": 0}, "rounds = 0: input should be greater than or equal to 1"),
        ({"rounds": 2.5}, "rounds = 2.5: input should be a valid integer"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**56}, f"seed = {2**56}"),
        ({"device": "tpu"}, "device = 'tpu': input should be 'auto', 'cpu' or 'cuda'"),
        ({"data": {"clients": 0}}, "data.clients = 0"),
        (
            {"data": {"name": "digits", "load": "a:b"}},
            "data = {'name': 'digits', 'load': 'a:b'}: one of name, path, load",
        ),
        ({"model": {"name": "mlp", "build": "a:b"}}, "model = {'name': 'mlp', 'build': 'a:b'}: one of name, build"),
        ({"cohort": {"fraction": 0}}, "cohort.fraction = 0: input should be greater than 0"),
        ({"cohort": {"fraction": 1.1}}, "cohort.fraction = 1.1: input should be less than or equal to 1"),
        ({"cohort": {"fraction": float("nan")}}, "cohort.fraction = nan"),
        ({"cohort": {"size": 0}}, "cohort.size = 0"),
        ({"local": {"lr": -0.1}}, "local.lr = -0.1"),
        ({"local": {"lr": float("nan")}}, "local.lr = nan"),
        ({"local": {"lr": float("inf")}}, "local.lr = inf"),
        ({"local": {"optimizer": "lbfgs"}}, "local.optimizer = 'lbfgs': input should be 'sgd' or 'adam'"),
        ({"local": {"momentum": 1.0}}, "local.momentum = 1.0"),
        ({"local": {"lr_decay": 0}}, "local.lr_decay = 0"),
        ({"server": {"optimizer": "adam"}}, "server.optimizer = 'adam': one of mean, majority"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(settings, message):
    assert refused(settings).startswith(message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": {"density": 0.1}}, "method.density = 0.1: unknown field, known: gain"),
        ({"method": {"gain": "big"}}, "method.gain = 'big': a value of type float"),
        ({"uplink": {"id": "zip"}}, "uplink.id = 'zip': one of"),
        ({"uplink": {"level": 3}}, "uplink.id = 'None': one of"),
        ({"uplink": {"id": "mask", "level": 3}}, "uplink.level = 3: unknown field, known: none"),
        ({"downlink": {"id": "mask"}}, "downlink = 'mask': a codec for uint32 arrays"),
        ({"uplink": {"id": "mask", "error_feedback": "yes"}}, "uplink.error_feedback = 'yes': true, false, or"),
        ({"uplink": {"id": "mask", "error_feedback": 1.5}}, "uplink.error_feedback = 1.5: true, false, or"),
        ({"device": "cuda"}, "device = 'cuda': cpu or auto: no CUDA device"),
        ({"data": {"partition": "random"}}, "partition"),
        ({"data": {"clients": 61}}, "clients = 61: 1 to 60"),
        ({"model": {"build": "toyworld:nothing"}}, "model = 'toyworld:nothing': cannot be imported"),
        ({"model": {"build": "toyworld:CLASSES"}}, "model = 'toyworld:CLASSES': must be a function"),
        ({"model": {"build": "toyworld:no_model"}}, "model = 'toyworld:no_model': must return a torch.nn.Module"),
        ({"data": {"load": "toyworld:nothing"}}, "data = 'toyworld:nothing': cannot be imported"),
    ],
)
def test_what_shows_when_the_parts_are_built_leaves_no_directory(tmp_path, monkeypatch, settings, message):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        start(experiment("fedpm", **settings), tmp_path / "run")
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "nearest"),
    [
        ({"method": {"name": "fedavgg"}}, "fedavg or fedavgm"),
        ({"method": {"name": "FedPM"}}, "fedpm"),
        ({"method": {"gian": 1.0}}, "gain"),
        ({"uplink": {"id": "masks"}}, "mask"),
        ({"uplink": {"id": "votess"}}, ""),  # no codec of masks
        ({"downlink": {"id": "votess"}}, "votes"),
        ({"method": {"name": "fedavg"}, "uplink": {"id": "topkk"}}, "topk"),
        ({"method": {"name": "fedavg"}, "uplink": {"id": "maskk"}}, ""),  # no codec of changes
        ({"method": {"name": "fedavg"}, "uplink": {"id": "topk", "positions": {"id": "bitmapp"}}}, "bitmap"),
        ({"method": {"name": "fedavg"}, "uplink": {"id": "topk", "positions": {"id": "float32s"}}}, ""),
        ({"method": {"name": "fedavg"}, "uplink": {"id": "topk", "scop": "global"}}, "scope"),
        ({"method": {"name": "fedavg"}, "uplink": {"id": "topk", "scope": "globl"}}, "global"),
        ({"method": {"name": "fedavg"}, "uplink": {"id": "topk", "error_feedbak": True}}, "error_feedback"),
        ({"method": {"name": "fedavg"}, "downlink": {"id": "topk", "error_feedbak": True}}, ""),  # only of an uplink
        ({"model": {"build": None, "name": "mlpp"}}, "mlp or mlp2"),
        ({"data": {"load": None, "name": "digts"}}, "digits"),
        ({"data": {"partition": "dirichlett:1"}}, "dirichlet"),
        ({"data": {"partition": "natural:sit"}}, ""),
        ({"data": {"cleints": 3}}, "clients"),
        ({"data": {"fraction": 0.5}}, "cohort.fraction"),
        ({"local": {"epoch": 3}}, "epochs"),
        ({"epochs": 3}, "local.epochs"),
        ({"locl": {"lr": 0.1}}, "local"),
        ({"lr": 0.1}, "local.lr"),
        ({"batchsize": 3}, "local.batch_size"),
        ({"sede": 3}, "seed"),
        ({"server": {"optimizer": "fedadm"}}, "fedadam or fedavgm"),
        ({"server": {"optimiser": "mean"}}, "optimizer"),
        ({"server": {"agregate": "median"}}, "aggregate"),
        ({"server": {"aggregate": "medain"}}, "median or mean"),
        ({"server": {"optimizer": "fedadam", "beta": 0.5}}, "beta2 or beta1"),
        ({"parameterisation": {"name": "fedpar"}}, "fedpara or pfedpara"),
        ({"parameterisation": {"name": "fedpara", "gama": 0.5}}, "gamma"),
        ({"zzzzz": 3}, ""),
    ],
)
def test_a_misspelt_name_is_told_from_the_nearest_that_may_stand_there(settings, nearest):
    base = {
        "device": "cpu",
        "data": {"load": "toyworld:blobs", "clients": 4},
        "model": {"build": "toyworld:two_layers"},
    }
    with pytest.raises(ConfigError) as caught:
        assemble(parse(merge(base, settings)))
    assert str(caught.value).partition("; did you mean ")[2] == (f"{nearest}?" if nearest else "")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("narrow", r"must give \(2, 3\) for inputs of shape \(2, 6\): an output for each class, not \(2, 2\)"),
        ("flat", r"must give \(2, 3\) for inputs of shape \(2, 6\): .* not \(6,\)"),
        ("pair", r"must give \(2, 3\) .*: an output for each class, not tuple"),
        ("picky", r"must take inputs of shape \(2, 6\) \(RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("needy", r"must be called as \(shape, classes\) or without arguments, not \(shape, classes, width\)"),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_refused_before_anything_trains(monkeypatch, tmp_path, model, message):
    class Flat(nn.Linear):
        def forward(self, x):
            return super().forward(x).flatten()

    class Pair(nn.Linear):
        def forward(self, x):
            return super().forward(x), None

    module = ModuleType("misfits")
    module.narrow, module.flat, module.pair = (lambda: nn.Linear(6, 2)), (lambda: Flat(6, 3)), (lambda: Pair(6, 3))
    module.picky, module.needy = (lambda: nn.Linear(7, 3)), (lambda shape, classes, width: nn.Linear(6, 3))
    monkeypatch.setitem(sys.modules, "misfits", module)
    with pytest.raises(ConfigError, match=rf"^model = 'misfits:{model}': {message}"):
        start(experiment("fedavg", model={"build": f"misfits:{model}"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_may_have_arguments_of_its_own_with_defaults(monkeypatch):
    module = ModuleType("fitting")
    module.one = lambda width=4: nn.Sequential(nn.Linear(6, width), nn.Linear(width, 3))
    module.three = lambda shape, classes, width=4: nn.Sequential(nn.Linear(*shape, width), nn.Linear(width, classes))
    monkeypatch.setitem(sys.modules, "fitting", module)
    for name in ("one", "three"):
        assert assemble(experiment("fedavg", model={"build": f"fitting:{name}"})).method.parameters == 43


def test_defaults():
    plain = parse({})
    assert (plain.method, plain.data.name, plain.model.name) == ({"name": "fedpm"}, "digits", "mlp")
    # what FedPM needs differs from the general defaults
    assert (plain.local.optimizer, plain.local.lr, plain.local.batch_size) == ("adam", 0.1, 128)
    fedavg = parse({"method": {"name": "fedavg"}})
    assert (fedavg.local.optimizer, fedavg.local.lr, fedavg.local.batch_size) == ("sgd", 0.05, 32)
    assert Experiment().data.source == "digits"


def test_presets_unfold_and_give_way():
    authors = parse({"method": {"name": "fedpm-authors"}})
    assert authors.method["name"] == "fedpm"
    assert authors.method["straight_through"] == "probability"
    assert authors.method["epsilon"] == 0.01
    assert authors.local.optimizer == "adam"
    changed = parse({"method": {"name": "fedpm-authors", "epsilon": 0.2}, "local": {"lr": 0.3}})
    assert changed.method["epsilon"] == 0.2
    assert changed.method["straight_through"] == "probability"
    assert (changed.local.lr, changed.local.optimizer) == (0.3, "adam")


def test_cohorts_are_a_fraction_or_a_number():
    assert parse({"cohort": {"size": 3}}).cohort.share(30) == 0.1
    assert parse({"cohort": {"size": 99}}).cohort.share(30) == 1.0
    assert parse({"cohort": {"fraction": 0.3}}).cohort.share(30) == 0.3


@pytest.mark.parametrize(
    ("text", "nested"),
    [
        ("rounds=3", {"rounds": 3}),
        ("method.epsilon=0.01", {"method": {"epsilon": 0.01}}),
        ("method.epsilon = 1e-3", {"method": {"epsilon": 1e-3}}),
        ("method.share_counts=false", {"method": {"share_counts": False}}),
        ("data.partition=dirichlet:0.3", {"data": {"partition": "dirichlet:0.3"}}),
        ('data.partition="iid"', {"data": {"partition": "iid"}}),
        ("data.load=a:b=c", {"data": {"load": "a:b=c"}}),
        ("x=", {"x": ""}),
        ("x=[1, 2]", {"x": [1, 2]}),
    ],
)
def test_assignments(text, nested):
    assert assignment(text) == nested


@pytest.mark.parametrize("text", ["rounds", "=3", " =3", ""])
def test_an_assignment_needs_key_and_value(text):
    with pytest.raises(ConfigError, match=r"--set.*key=value"):
        assignment(text)


def test_merge_and_dotted():
    assert dotted("a.b.c", 1) == {"a": {"b": {"c": 1}}}
    base = {"a": {"x": 1, "y": 2}, "b": 3}
    assert merge(base, {"a": {"y": 5}, "b": {"z": 1}}) == {"a": {"x": 1, "y": 5}, "b": {"z": 1}}
    assert base == {"a": {"x": 1, "y": 2}, "b": 3}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"seed": 2**56 - 1, "rounds": 7, "cohort": {"size": 3}},
        {"method": {"name": "fedpm-authors"}, "uplink": {"id": "mask"}},
        {"data": {"load": "a:b", "partition": "shards:2", "allow_empty": True}, "model": {"build": "a:c"}},
        {"method": {"name": "fedavg"}, "uplink": {"id": "float16", "error_feedback": True}, "local": {"lr": 1e-7}},
    ],
)
def test_toml_round_trip(tmp_path, settings):
    path = tmp_path / "experiment.toml"
    path.write_text(to_toml(parse(settings)))
    assert parse(read_file(path)) == parse(settings)


@pytest.mark.parametrize("text", [b"rounds = ", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_file_that_is_not_toml(tmp_path, text):
    path = tmp_path / "broken.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match="a readable TOML file"):
        read_file(path)
    with pytest.raises(ConfigError, match="a TOML file that exists"):
        read_file(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="a readable TOML file"):
        read_file(tmp_path)


def test_clients_without_samples_are_refused_unless_allowed(tmp_path):
    data = {"clients": 12, "partition": "dirichlet:0.05"}
    with pytest.raises(DataError, match=r"client \d+ has no samples .*--allow-empty"):
        assemble(experiment(data=data))
    result = run(tmp_path / "run", data={**data, "allow_empty": True}, rounds=2)
    assert 0 < result.rounds[0].clients < 12


def test_the_run_id_follows_what_shapes_the_frames():
    one = assemble(experiment()).run_id
    assert assemble(experiment(rounds=9, checkpoint={"every": 5})).run_id == one
    for other in ({"seed": 4}, {"local": {"lr": 0.2}}, {"method": {"gain": 1.0}}, {"data": {"clients": 5}}):
        assert assemble(experiment(**other)).run_id != one


def test_a_taken_directory_is_not_overwritten(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    run(out, rounds=1)  # an empty one is as good as none
    with pytest.raises(ConfigError, match="new or empty"):
        run(out, rounds=1)
    start(experiment(rounds=1, seed=9), out, workers=1, force=True)
    assert "seed = 9" in (out / "config.toml").read_text()
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.tex").write_text("!")
    with pytest.raises(ConfigError, match="a directory with a run in it: --force replaces nothing else"):
        start(experiment(rounds=1), precious, workers=1, force=True)
    assert (precious / "thesis.tex").exists()


@pytest.mark.parametrize("force", [False, True])
def test_a_file_in_the_directorys_place_is_refused(tmp_path, force):
    (tmp_path / "run").write_text("!")
    with pytest.raises(ConfigError, match="out = "):
        start(experiment(rounds=1), tmp_path / "run", workers=1, force=force)
