"""The command line as a user meets it: what it prints, what it leaves, how it ends."""

import json
import sys
from pathlib import Path

import pytest
from toyworld import World, lines, model_bytes
from typer.testing import CliRunner

import thinwire
from thinwire import cli
from thinwire.runtime.experiment import parse, read_file
from thinwire.runtime.inspection import inspect

TINY = ["--data", "ownset:clouds", "--model", "ownset:net", "--clients", "3", "--rounds", "2", "--workers", "1"]
OWN = """
import numpy as np
from torch import nn

def clouds():
    y = np.arange(60) % 3
    x = np.random.default_rng(0).normal(size=(60, 6)) + 3 * np.eye(3, 6)[y]
    return (x[:45], y[:45]), (x[45:], y[45:])

def net(shape, classes):
    return nn.Sequential(nn.Linear(shape[0], 5), nn.Tanh(), nn.Linear(5, classes))

def diverging():
    x, y = np.full((60, 6), 1e33), np.arange(60) % 3
    return (x, y), (x, y)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory with a module of the user's own, and a clean import path afterwards."""
    (tmp_path / "ownset.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "160")
    sys.modules.pop("ownset", None)
    yield tmp_path
    sys.modules.pop("ownset", None)


@pytest.fixture
def thin(monkeypatch, capfd):
    """Run the command in this process. -> exit code, standard output, standard error."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["thinwire", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code
        captured = capfd.readouterr()
        return code or 0, captured.out, captured.err

    return call


def one_error(result, code, *words):
    """The command ended with this code and one line of error that holds these words."""
    assert result[0] == code, result
    (line,) = result[2].strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert "Traceback" not in result[1] + result[2]


def test_run_leaves_what_was_promised(thin, folder):
    code, out, err = thin("run", *TINY, "--out", "runs/a")
    assert code == 0, err
    assert "Accuracy" in out
    assert "report: runs/a/report.html" in out
    assert "round 1/2  accuracy" in err
    assert "round 2/2" in err
    run = folder / "runs" / "a"
    names = {path.name for path in run.iterdir()}
    assert names == {"config.toml", "rounds.jsonl", "summary.json", "model.tw", "checkpoint", "report.html"}
    summary = json.loads((run / "summary.json").read_text())
    assert summary["method"] == "fedpm"
    assert summary["rounds"] == 2
    assert summary["parameters"] == 5 * 6 + 5 + 5 * 3 + 3
    rounds = lines(run)
    assert summary["up_bytes"] == sum(r["up_bytes"] for r in rounds)
    assert rounds[-1]["total_bytes"] == summary["up_bytes"] + summary["down_bytes"] + summary["evaluate_bytes"]
    for key in ("accuracy", "best_accuracy", "model_accuracy", "mean_up_bpp", "mean_down_bpp", "last_up_bpp",
                "model_bytes", "model_bpp", "wall_seconds", "uplink", "data", "model"):  # fmt: skip
        assert key in summary
    for key in ("round", "accuracy", "loss", "up_bytes", "down_bytes", "evaluate_bytes", "up_bpp", "down_bpp",
                "total_bytes", "clients", "dropped"):  # fmt: skip
        assert key in rounds[0]


def test_every_option_has_its_place(thin, folder):
    code, _, err = thin(
        "run", "--method", "fedavg", *TINY, "--uplink", "bfloat16", "--downlink", "float16", "--partition",
        "dirichlet:2.0", "--fraction", "0.7", "--local-epochs", "2", "--batch-size", "7", "--lr", "0.2", "--seed", "5",
        "--device", "cpu", "--allow-empty", "--set", "local.momentum=0.5", "--set", "uplink.error_feedback=true",
        "--out", "a",
    )  # fmt: skip
    assert code == 0, err
    made = parse(read_file(folder / "a" / "config.toml"))
    assert made.method == {"name": "fedavg"}
    assert made.uplink == {"id": "bfloat16", "error_feedback": True}
    assert made.downlink == {"id": "float16"}
    assert (made.data.load, made.data.clients, made.data.partition) == ("ownset:clouds", 3, "dirichlet:2.0")
    assert made.data.allow_empty
    assert (made.cohort.fraction, made.rounds, made.seed, made.device) == (0.7, 2, 5, "cpu")
    assert made.local.model_dump() == {
        "epochs": 2, "batch_size": 7, "optimizer": "sgd", "lr": 0.2, "momentum": 0.5, "weight_decay": 0.0,
        "lr_decay": 1.0, "clip": 0.0, "together": False,
    }  # fmt: skip
    assert set(made.versions) == {"python", "thinwire", "torch", "numpy"}


def test_a_round_that_is_not_scored_shows_no_accuracy(thin):
    code, _, err = thin("run", *TINY, "--rounds", "2", "--set", "evaluation.server_every=2", "--out", "a")
    assert code == 0, err
    first, second = (line for line in err.splitlines() if line.startswith("round "))
    assert "accuracy       –  up" in first
    assert "%  up" in second


def test_config_toml_repeats_the_run(thin, folder):
    thin("run", *TINY, "--out", "a", "--seed", "4")
    code, _, err = thin("run", "a/config.toml", "--out", "b", "--workers", "1")
    assert code == 0, err
    assert lines(folder / "a") == lines(folder / "b")
    assert model_bytes(folder / "a") == model_bytes(folder / "b")


def test_options_go_on_top_of_a_file_and_set_on_top_of_options(thin, folder):
    (folder / "x.toml").write_text(
        "rounds = 9\nseed = 2\n[data]\npath = 'nowhere'\nclients = 3\n[model]\nname = 'mlp'\n[local]\nlr = 0.5"
    )
    code, _, err = thin("run", "x.toml", *TINY, "--set", "seed=8", "--seed", "7", "--out", "a")
    assert code == 0, err
    made = parse(read_file(folder / "a" / "config.toml"))
    assert (made.rounds, made.seed, made.local.lr) == (2, 8, 0.5)
    assert (made.data.source, made.model.source) == ("ownset:clouds", "ownset:net")


def test_the_directory_is_named_after_the_run(thin, folder):
    assert thin("run", *TINY, "--set", "seed=3")[0] == 0
    assert (folder / "runs" / "fedpm-ownset-clouds-ownset-net-3" / "summary.json").exists()


def test_a_preset_is_a_method(thin, folder):
    assert thin("run", *TINY, "--method", "fedpm-authors", "--out", "a")[0] == 0
    made = parse(read_file(folder / "a" / "config.toml"))
    assert made.method["name"] == "fedpm"
    assert made.method["straight_through"] == "probability"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--method", "sgd"], ["method.name = 'sgd'", "one of client-masks, dispfl"]),
        (["--uplink", "zip"], ["uplink.id = 'zip'", "one of bitmap, fixed, gaps, mask"]),
        (["--downlink", "float32"], ["downlink = 'float32'", "uint32 arrays"]),
        (["--data", "nothing"], ["data = 'nothing'", "one of digits"]),
        (["--data", "./nothing"], ["data = './nothing'", "a folder with train.parquet"]),
        (["--data", "ownset:nope"], ["data = 'ownset:nope'", "cannot be imported"]),
        (["--model", "nothing"], ["model = 'nothing'", "one of linear, mlp"]),
        (["--model", "ownset:nope"], ["model = 'ownset:nope'", "cannot be imported"]),
        (["--clients", "0"], ["data.clients = 0", "greater than or equal to 1"]),
        (["--clients", "4000"], ["clients = 4000", "1 to 45"]),
        (["--fraction", "2"], ["cohort.fraction = 2.0", "less than or equal to 1"]),
        (["--rounds", "0"], ["rounds = 0"]),
        (["--lr", "-1"], ["local.lr = -1.0"]),
        (["--device", "abacus"], ["device = 'abacus'", "'auto', 'cpu' or 'cuda'"]),
        (["--partition", "evenly"], ["partition", "evenly", "iid"]),
        (["--set", "speed"], ["--set = 'speed'", "key=value"]),
        (["--set", "speed=1"], ["speed = 1", "unknown field, known: seed"]),
        (["--set", "method.density=0.1"], ["method.density = 0.1", "known: gain"]),
        (["--set", "method.name=[1]"], ["method.name = [1]", "one of"]),
        (["--set", "method.epsilon=0.7"], ["method.epsilon = 0.7", "between 0 and 0.5"]),
        (["--set", "faults.drop=1.5"], ["faults.drop = 1.5", "less than or equal to 1"]),
        (["--set", "faults.dropp=0.5"], ["faults.dropp = 0.5", "known: drop, delay, deadline"]),
        (["--set", "server.aggregate=median"], ["server.aggregate = Median()", "mean for fedpm"]),
        (["--partition", "dirichlet:0.01", "--clients", "30"], ["has no samples", "--allow-empty"]),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(thin, folder, words, found):
    one_error(thin("run", *TINY, *words, "--out", "a"), 2, *found)
    assert not (folder / "a").exists()


def test_faults_are_told_as_they_happen(thin, folder):
    faults = ["--set", "faults.drop=0.5", "--set", "cohort.min_replies=3", "--set", "cohort.without_quorum=skip"]
    code, _, err = thin("run", *TINY, *faults, "--out", "a")
    assert code == 0
    skipped = [row["round"] for row in lines(folder / "a") if row["skipped"]]
    assert skipped
    for number in skipped:
        assert f"round {number} skipped: " in err
    assert "dropped: dropped on the way" in err


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--rounds", "many"],
        ["run", "--speed", "9"],
        ["run", "--workers", "0"],
        ["fly"],
        ["export", "a"],
        ["resume"],
        ["inspect", "a", "b"],
    ],
)
def test_wrong_usage_is_exit_code_2(thin, words):
    code, _, err = thin(*words)
    assert code == 2
    assert "Usage: thinwire" in err
    assert "Traceback" not in err


def test_a_file_that_is_not_there(thin, folder):
    one_error(thin("run", "none.toml"), 2, "experiment = 'none.toml'", "a TOML file that exists")
    (folder / "broken.toml").write_text("rounds =")
    one_error(thin("run", "broken.toml"), 2, "experiment = 'broken.toml'", "a readable TOML file")


def test_a_run_is_not_overwritten_but_by_force(thin, folder):
    assert thin("run", *TINY, "--out", "a")[0] == 0
    before = (folder / "a" / "config.toml").read_bytes()
    one_error(thin("run", *TINY, "--seed", "1", "--out", "a"), 2, "out = 'a'", "new or empty", "--force")
    assert (folder / "a" / "config.toml").read_bytes() == before
    assert thin("run", *TINY, "--seed", "1", "--out", "a", "--force")[0] == 0
    assert parse(read_file(folder / "a" / "config.toml")).seed == 1


def test_force_replaces_nothing_but_a_run(thin, folder):
    (folder / "home").mkdir()
    (folder / "home" / "thesis.tex").write_text("!")
    one_error(thin("run", *TINY, "--out", "home", "--force"), 2, "out = 'home'", "replaces nothing else")
    (folder / "note").write_text("!")
    one_error(thin("run", *TINY, "--out", "note", "--force"), 2, "out = 'note'")
    assert (folder / "home" / "thesis.tex").read_text() == (folder / "note").read_text() == "!"


def test_a_loss_that_is_not_finite_is_exit_code_1(thin, folder):
    words = ["--method", "fedavg", *TINY, "--data", "ownset:diverging", "--model", "linear", "--lr", "1e-27"]
    code, out, err = thin("run", *words, "--out", "a")
    assert err.splitlines()[0].startswith("round 1/2")  # what was committed stays
    one_error((code, out, err.splitlines()[-1]), 1, "client 0: ", "in round 2", "lr = 1e-27")
    assert (folder / "a" / "config.toml").exists()
    assert not (folder / "a" / "summary.json").exists()


def test_a_model_whose_loss_is_not_finite_is_said_and_exit_code_1(thin, folder):
    """One round: its clients' losses are finite, and what comes of it is not."""
    words = ["--method", "fedavg", *TINY, "--data", "ownset:diverging", "--model", "linear", "--lr", "1e-27"]
    code, out, err = thin("run", *words, "--rounds", "1", "--out", "a")
    said = "training diverged in round 1: the loss of the server's model is not finite; lower local.lr"
    assert err.splitlines()[1:] == [said, f"error: {said}"]
    assert code == 1
    assert [line.split() for line in out.splitlines() if "Diverged" in line] == [["Diverged", "in", "round", "1"]]
    assert json.loads((folder / "a" / "summary.json").read_text())["diverged_in_round"] == 1
    names = {path.name for path in (folder / "a").iterdir()}
    assert names == {"config.toml", "rounds.jsonl", "summary.json", "model.safetensors", "checkpoint", "report.html"}
    code, _, err = thin("resume", "a")  # there is nothing left to play
    assert (code, err.splitlines()) == (1, [f"error: {said}"])
    code, _, err = thin("export", "a", "-o", "b.safetensors")
    assert code == 0, err
    code, out, _ = thin("compare", "fedavg", *TINY[:-4], "--data", "ownset:diverging", "--model", "linear", "--lr",
                        "1e-27", "--rounds", "1", "--workers", "1", "--out", "suite")  # fmt: skip
    assert code == 1
    assert f"fedavg failed: {said}" in out


# resume, report, export, inspect -------------------------------------------------------------------------------------


@pytest.fixture
def stopped(thin, folder):
    """Two runs of the same experiment: `whole`, and `parts`, whose second round's commit was lost."""
    assert thin("run", *TINY, "--out", "whole")[0] == 0
    assert thin("run", *TINY, "--rounds", "1", "--out", "parts")[0] == 0
    config = folder / "parts" / "config.toml"
    config.write_text(config.read_text().replace("rounds = 1", "rounds = 2"))
    (folder / "parts" / "summary.json").unlink()
    return folder


def test_resume(thin, stopped):
    code, out, err = thin("resume", "parts", "--workers", "1")
    assert code == 0, err
    assert "report: parts/report.html" in out
    assert "round 2/2" in err
    assert "round 1/2" not in err
    assert lines(stopped / "parts") == lines(stopped / "whole")
    assert model_bytes(stopped / "parts") == model_bytes(stopped / "whole")


def test_resume_refuses_what_is_no_run(thin, folder):
    one_error(thin("resume", "nothing"), 2, "nothing/config.toml")
    one_error(thin("resume", "."), 2, "config.toml")


def test_resume_refuses_a_broken_checkpoint(thin, stopped):
    for path in (stopped / "parts" / "checkpoint").glob("manifest-*.json"):
        path.write_text("{")
    one_error(thin("resume", "parts"), 2, "parts/checkpoint/manifest-", "the checkpoint is broken")


def test_report(thin, stopped):
    code, out, _ = thin("report", "whole", "parts", "-o", "pages/both.html")
    assert code == 0
    assert out.strip() == "pages/both.html"
    page = (stopped / "pages" / "both.html").read_text()
    assert "whole" in page
    assert "parts" in page
    one_error(thin("report", "nowhere"), 2, "nowhere: not a run folder")
    assert thin("report", "whole")[0] == 0
    assert (stopped / "report.html").exists()


def test_report_leaves_out_what_cannot_be_read(thin, stopped):
    ledger = stopped / "parts" / "rounds.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-30])
    (stopped / "whole" / "rounds.jsonl").rename(stopped / "kept.jsonl")
    code, out, err = thin("report", "whole", "parts")
    assert (code, out.strip()) == (0, "report.html")
    assert err.splitlines() == [
        "left out: whole/rounds.jsonl: missing",
        "left out: parts/rounds.jsonl, line 1: cut in the middle",
    ]
    line = {"epoch": 1, "acc": 0.5, "round": 1}
    (stopped / "whole" / "rounds.jsonl").write_text(json.dumps(line) + "\n")
    code, out, err = thin("report", "whole")
    assert (code, out.strip()) == (0, "report.html")
    assert err.startswith("left out: whole/rounds.jsonl: 1 of 1 lines, without accuracy, up_bytes, down_bytes,")


def test_export(thin, stopped):
    code, out, _ = thin("export", "whole", "-o", "copy.tw")
    assert code == 0
    assert (stopped / "copy.tw").read_bytes() == model_bytes(stopped / "whole")
    size = (stopped / "copy.tw").stat().st_size
    assert out.strip() == f"copy.tw: {size:,} bytes, {8 * size / 53:.3f} bits per parameter"
    assert thin("export", "parts", "-o", "early.tw")[0] == 0  # an unfinished run has a model too
    assert thinwire.load("early.tw", net()) is not None
    one_error(thin("export", ".", "-o", "x"), 2, "this is not a run directory")


def test_export_to_where_nothing_can_be_written(thin, stopped):
    one_error(thin("export", "whole", "-o", "nowhere/copy.tw"), 1, "nowhere/copy.tw")


def net():
    import ownset

    return ownset.net((6,), 3)


def test_inspect_a_mask_file(thin, stopped):
    code, out, _ = thin("inspect", "whole/model.tw")
    assert code == 0
    sizes = [int(size.replace(",", "")) for _, size, _ in inspect(Path("whole/model.tw")).rows]
    assert sum(sizes[:-1]) == sizes[-1] == (stopped / "whole" / "model.tw").stat().st_size
    for word in ("model", "codec mask", "seed", "config", "values", '"classes":3'):
        assert word in out


def test_inspect_a_dense_file_and_a_frame(thin, folder):
    assert thin("run", "--method", "fedavg", *TINY, "--out", "a")[0] == 0
    code, out, _ = thin("inspect", "a/model.safetensors")
    assert code == 0
    for word in ("header", "0.weight", "F32", "(5, 6)", f"{(folder / 'a' / 'model.safetensors').stat().st_size:,}"):
        assert word in out
    world = World("fedavg")
    world.play()
    (folder / "key.frame").write_bytes(world.method.broadcast(world.progress.server, None))
    (folder / "step.frame").write_bytes(world.method.broadcast(world.progress.server, 0))
    code, out, _ = thin("inspect", "key.frame")
    assert code == 0
    assert "keyframe" in out
    code, out, _ = thin("inspect", "step.frame")
    assert "step" in out
    assert "from version 0" in out
    assert "codec float32" in out


def test_inspect_refuses(thin, folder):
    one_error(thin("inspect", "none"), 2, "none: cannot be read (No such file or directory)")
    one_error(thin("inspect", "ownset.py"), 1, "neither a thinwire frame nor a safetensors file")
    (folder / "bad.tw").write_bytes(b"TW" + bytes(60))
    one_error(thin("inspect", "bad.tw"), 1, "format version 0")


# lists ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("methods", ["fedpm", "FedPM: freeze random weights", "fedavg", "fedpm-authors", "preset of fedpm"]),
        (
            "codecs",
            [
                "updates, float32",
                "magnitudes, float32",
                "mask",
                "votes",
                "float32",
                "float16",
                "bfloat16",
                "uint8",
                "uint32",
            ],
        ),
        ("models", ["linear", "mlp", "lenet", "conv4", "1,933,258", "conv10", "19,197,092"]),
        ("datasets", ["digits", "mnist", "cifar10", "tinyshakespeare"]),
    ],
)
def test_lists(thin, command, words):
    code, out, _ = thin(command)
    assert code == 0
    for word in words:
        assert word in out


@pytest.mark.parametrize("name", ["fedpm", "fedavg", "fedpm-authors"])
def test_methods_prints_an_experiment_that_does_the_same(thin, folder, name):
    code, out, _ = thin("methods", name)
    assert code == 0
    (folder / "m.toml").write_text(out)
    assert parse(read_file(folder / "m.toml")) == parse({"method": {"name": name}})
    one_error(thin("methods", "none"), 2, "method = 'none'", "fedavg, ")


def test_help():
    result = CliRunner().invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    for command in ("run", "resume", "report", "export", "inspect", "methods", "codecs", "models", "datasets"):
        assert f"  {command} " in result.output
    result = CliRunner().invoke(cli.app, ["run", "--help"])
    for option in ("--method", "--uplink", "--downlink", "--data", "--model", "--clients", "--partition", "--fraction",
                   "--rounds", "--local-epochs", "--batch-size", "--lr", "--seed", "--device", "--workers", "--out",
                   "--set", "--allow-empty", "--force"):  # fmt: skip
        assert option in result.output


def test_no_command_shows_the_help():
    assert "Usage" in CliRunner().invoke(cli.app, []).output


def test_a_dropped_client_is_named(thin, folder, monkeypatch):
    from thinwire.runtime import run as runs

    client_data = runs.Assembly.client_data

    def load(assembly, client):
        if client == 1:
            raise OSError("[bold]disk[/bold] on fire")
        return client_data(assembly, client)

    monkeypatch.setattr(runs.Assembly, "client_data", load)
    code, _, err = thin("run", *TINY, "--out", "a")
    assert code == 0
    assert "round 1: client 1 dropped: OSError: [bold]disk[/bold] on fire" in err
    assert lines(folder / "a")[0]["dropped"] == [{"client": 1, "reason": "OSError: [bold]disk[/bold] on fire"}]
    assert Path("a/report.html").exists()
