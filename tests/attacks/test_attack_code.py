"""Code that comes with a folder: who sends a run directory, or stands beside one, wants a function of theirs to run.

Nothing that a config.toml from elsewhere names is imported unless the user says so; what lies in the working directory
takes no installed package's place; a run's configuration on Flower does not choose what nodes import.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toyworld import experiment

from thinwire import api, cli
from thinwire.errors import ConfigError, ThinwireError
from thinwire.runtime import hiring, trust
from thinwire.runtime.experiment import parse, to_toml
from thinwire.runtime.inspection import inspect
from thinwire.runtime.run import export, resume, start

CODE = """
from pathlib import Path
Path({flag!r}).touch()
from toyworld import blobs as data, two_layers as model
"""


class Stop(Exception):
    pass


def stop(entry, rounds):
    raise Stop


@pytest.fixture
def sent(tmp_path, monkeypatch):
    """A run directory that somebody else began, which names `sent_code`. -> it, and the file that its code leaves."""
    sys.modules.pop("sent_code", None)
    flag = tmp_path / "imported"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "sent_code.py").write_text(CODE.format(flag=str(flag)))
    monkeypatch.syspath_prepend(tmp_path / "code")
    made = experiment("fedavg", model={"build": "sent_code:model"}, data={"load": "sent_code:data"}, rounds=2)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "theirs"))
    with pytest.raises(Stop):
        start(made, tmp_path / "run", workers=1, save_frames=True, on_round=stop)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "mine"))
    sys.modules.pop("sent_code")
    flag.unlink()
    return tmp_path / "run", flag


@pytest.mark.parametrize("do", [
    lambda out: resume(out, workers=1), lambda out: api.resume(out), lambda out: export(out, out / "model"),
], ids=["resume", "api", "export"])  # fmt: skip
def test_a_folder_from_elsewhere_runs_no_code(sent, do):
    out, flag = sent
    with pytest.raises(ConfigError, match=r"config\.toml: model\.build = 'sent_code:model': .*--trust") as caught:
        do(out)
    assert "\n" not in str(caught.value)
    assert not flag.exists()


@pytest.mark.parametrize(("setting", "other"), [
    ("model", {"name": "sent_code:model"}), ("data", {"name": "sent_code:data"}), ("data", {"path": "sent_code:data"}),
], ids=["model.name", "data.name", "data.path"])  # fmt: skip
def test_one_function_under_another_key_is_named(sent, setting, other):
    out, flag = sent
    library = {"model": {"name": "mlp"}, "data": {"name": "digits"}}
    (out / "config.toml").write_text(to_toml(parse(library | {"method": {"name": "fedavg"}, setting: other})))
    with pytest.raises(ConfigError, match=rf"config\.toml: {setting}\.{next(iter(other))} = 'sent_code:.*--trust"):
        export(out, out / "model")
    assert "--trust" in inspect(next((out / "frames").glob("*down*.tw"))).hint
    assert not flag.exists()


@pytest.mark.skipif(os.name == "nt", reason="no colons in names of folders")
def test_a_folder_called_as_a_function_does_not_make_a_model_of_code_harmless(sent, monkeypatch):
    out, flag = sent
    (out.parent / "sent_code:model").mkdir()
    monkeypatch.chdir(out.parent)
    with pytest.raises(ConfigError, match="--trust"):
        export(out, out / "model")
    assert not flag.exists()


@pytest.mark.skipif(os.name == "nt", reason="no colons in names of folders")
def test_data_in_a_folder_with_a_colon_are_no_code(tmp_path):
    (tmp_path / "a:b").mkdir()
    made = parse(api.settings(method="fedavg") | {"data": {"path": str(tmp_path / "a:b")}})
    assert not trust.names(made)


def test_inspect_shows_what_needs_no_code(sent):
    out, flag = sent
    (path,) = (out / "frames").glob("*down*.tw")
    closed = inspect(path)
    assert "--trust" in closed.hint
    assert closed.rows[-1][1].replace(",", "") == str(path.stat().st_size)
    assert not flag.exists()
    assert "--trust" not in inspect(path, trust=True).hint
    assert flag.exists()


def test_who_trusts_it_goes_on(sent):
    out, flag = sent
    assert len(resume(out, workers=1, trust=True).rounds) == 2
    assert flag.exists()


def test_who_began_it_needs_no_word(sent, monkeypatch):
    out, _ = sent
    monkeypatch.setenv("XDG_STATE_HOME", str(out.parent / "theirs"))
    assert len(resume(out, workers=1).rounds) == 2


def test_a_copy_of_ones_own_run_is_of_elsewhere(sent, monkeypatch):
    out, flag = sent
    monkeypatch.setenv("XDG_STATE_HOME", str(out.parent / "theirs"))
    shutil.copytree(out, out.parent / "copy")
    with pytest.raises(ConfigError, match="--trust"):
        resume(out.parent / "copy", workers=1)
    assert not flag.exists()


def test_ones_own_run_with_other_names_is_of_elsewhere(sent, monkeypatch):
    out, flag = sent
    monkeypatch.setenv("XDG_STATE_HOME", str(out.parent / "theirs"))
    text = (out / "config.toml").read_text()
    (out / "config.toml").write_text(text.replace("sent_code:model", "sent_code:data"))
    with pytest.raises(ConfigError, match="--trust"):
        resume(out, workers=1)
    assert not flag.exists()


def test_a_run_of_the_librarys_models_and_data_may_come_from_anywhere(tmp_path, monkeypatch):
    made = parse(api.settings("digits", "mlp", method="fedavg", clients=2, rounds=1))
    start(made, tmp_path / "run", workers=1)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "empty"))
    assert export(tmp_path / "run", tmp_path / "model")[1] > 0


def test_where_no_state_can_be_kept_a_run_goes_on_and_its_resume_wants_a_word(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    start(experiment("fedavg", rounds=1), tmp_path / "run", workers=1)
    with pytest.raises(ThinwireError, match="--trust"):
        export(tmp_path / "run", tmp_path / "model")


@pytest.mark.parametrize("name", ["numpy", "torch", "typer"])
def test_a_module_beside_a_downloaded_folder_takes_no_packages_place(tmp_path, name):
    flag = tmp_path / "ran"
    (tmp_path / f"{name}.py").write_text(f"open({str(flag)!r}, 'w')")
    command = [str(Path(sys.executable).with_name("thinwire")), "inspect", "nothing.tw"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "error: nothing.tw: cannot be read" in done.stderr
    assert not flag.exists()


def test_a_run_again_by_the_file_of_a_folder_from_elsewhere_runs_no_code(sent, monkeypatch, capsys):
    out, flag = sent
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sys.argv", ["thinwire", "run", str(out / "config.toml"), "--out", str(out.parent / "again")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert said[0].endswith("model.build = sent_code:model, which is imported")
    assert "--trust" in said[-1]
    assert not flag.exists()


def test_new_workers_look_for_nothing_beside_a_run(monkeypatch, tmp_path):
    (tmp_path / "multiprocessing.py").write_text("open('ran', 'w')")
    monkeypatch.delenv(hiring.SAFE, raising=False)
    with hiring._safe_path():
        subprocess.run([sys.executable, "-c", "import multiprocessing"], cwd=tmp_path, check=True)
    assert not (tmp_path / "ran").exists()
    assert hiring.SAFE not in os.environ


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("command", ["resume", "export", "inspect"])
def test_a_pipe_in_place_of_a_configuration_holds_no_command(sent, monkeypatch, capsys, command):
    out, _ = sent
    (out / "config.toml").unlink()
    os.mkfifo(out / "config.toml")
    words = {
        "export": [str(out), "-o", "x"],
        "resume": [str(out)],
        "inspect": [str(next((out / "frames").glob("*.tw")))],
    }
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sys.argv", ["thinwire", command, *words[command]])
    with contextlib.suppress(SystemExit):
        cli.main()
    assert len(capsys.readouterr().err.splitlines()) <= 1


def test_a_runs_configuration_does_not_choose_what_nodes_import():
    pytest.importorskip("flwr")
    from thinwire.flower.settings import experiment_of

    own = {"data": {"name": "digits"}, "model": {"name": "mlp"}}
    for key in ("data.load", "data.name", "data.path", "model.build", "model.name"):
        with pytest.raises(ConfigError, match=rf"run-config {key} = 'os:getcwd': set in the app's own experiment"):
            experiment_of(own, {key: "os:getcwd"})
    code = {"data": {"load": "toyworld:blobs"}, "model": {"build": "toyworld:two_layers"}}
    assert experiment_of(code, {"data.load": "toyworld:many"}).data.load == "toyworld:many"
