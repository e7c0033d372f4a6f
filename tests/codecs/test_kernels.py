"""Where compiled code is kept, when neither the source's folder nor the user's own can be written to."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import thinwire
from thinwire.codecs import kernels

SOURCE = Path(thinwire.__file__).parent
CODE = """
import numpy as np
from thinwire.codecs import Context, Mask
from thinwire.layout import Layout

x = np.arange(64, dtype=np.uint8) % 2
context = Context(Layout.of({"w": (64,)}))
assert (Mask().decode(Mask().encode(x, context), context) == x).all()
print("right")
"""


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """The package where no machine code fits beside it, whoever asks: files stand where the folders would be."""
    root = tmp_path_factory.mktemp("sealed")
    shutil.copytree(SOURCE, root / "thinwire", ignore=shutil.ignore_patterns("__pycache__", "flower", "report"))
    for folder in [root / "thinwire", *(root / "thinwire").rglob("*")]:
        if folder.is_dir():
            (folder / "__pycache__").touch()
    return root


def play(sealed, temporary, **more):
    """Code a mask in a process without a home. -> what it says, and what it warns of."""
    own = {"PYTHONPATH": str(sealed), "HOME": os.devnull, "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    env = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    done = subprocess.run([sys.executable, "-c", CODE], env=env | own | more, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
    return done.stderr


def test_compiled_code_goes_under_the_temporary_folder(sealed, tmp_path):
    assert play(sealed, tmp_path) == ""
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")}
    assert kept
    assert play(sealed, tmp_path) == ""
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")} == kept  # nothing was compiled again


@pytest.mark.slow
def test_without_any_folder_every_process_compiles_after_one_warning(sealed, tmp_path):
    name = f"thinwire-kernels-{os.getuid()}"
    (tmp_path / name).touch()
    told = play(sealed, tmp_path)
    assert told.count("Warning") == 1
    assert "set NUMBA_CACHE_DIR to a folder to write to" in told
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_the_folder_that_the_user_names_comes_first(sealed, tmp_path):
    (tmp_path / "named").mkdir()
    assert play(sealed, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "named")) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["named"]
    assert list((tmp_path / "named").rglob("*.nbc"))


@pytest.fixture
def spare(tmp_path, monkeypatch):
    """Where the spare folder would be."""
    monkeypatch.setattr(kernels, "gettempdir", lambda: str(tmp_path))
    kernels.spare_folder.cache_clear()
    yield tmp_path / f"thinwire-kernels-{os.getuid()}"
    kernels.spare_folder.cache_clear()


def open_to_others(folder):
    folder.mkdir()
    folder.chmod(0o770)


def link_elsewhere(folder):
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize("plant", [open_to_others, link_elsewhere, Path.touch])
def test_a_folder_that_others_could_have_written_to_is_none(spare, plant):
    plant(spare)
    with pytest.warns(UserWarning, match="compiled code cannot be kept"):
        assert kernels.spare_folder() is None


def test_somebody_elses_folder_is_none(spare, monkeypatch):
    spare.mkdir(mode=0o700)
    assert kernels.spare_folder() == spare
    kernels.spare_folder.cache_clear()
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    spare.rename(spare.with_name(f"thinwire-kernels-{user + 1}"))
    with pytest.warns(UserWarning, match="compiled code cannot be kept"):
        assert kernels.spare_folder() is None


def test_an_error_that_is_not_about_a_folder_is_no_reason_to_compile_again(monkeypatch):
    def refuse(**options):
        raise RuntimeError("numba's own")

    monkeypatch.setattr(kernels.numba, "njit", refuse)
    with pytest.raises(RuntimeError, match="numba's own"):
        kernels.njit(inline="always")(lambda x: x)
