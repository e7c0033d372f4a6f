"""Every experiment file is one that runs: two rounds each, unless at paper scale; every entry of a suite is checked."""

import os
from pathlib import Path

import pytest

import thinwire as tw
from thinwire import compare
from thinwire.api import execute
from thinwire.runtime.assembly import assemble
from thinwire.runtime.experiment import parse, read_file

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "experiments").rglob("*.toml"))
SUITES = [path for path in FILES if "entries" in read_file(path)]
AT_PAPER_SCALE = [path for path in FILES if path.stem.startswith("paper-") and path not in SUITES]  # for a GPU


@pytest.fixture
def real_data(monkeypatch):
    """The folder with Parquet files of the real data sets; without it the test is skipped."""
    folder = Path(os.environ.get("THINWIRE_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "mnist" / "train.parquet").is_file():
        pytest.skip("needs MNIST as Parquet under $THINWIRE_DATA/mnist")
    monkeypatch.setenv("THINWIRE_DATA", str(folder))


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_entry_of_a_suite_is_a_checked_experiment(path):
    assert len(compare.entries(read_file(path))) >= 2


@pytest.mark.parametrize("path", AT_PAPER_SCALE, ids=lambda path: path.stem)
def test_an_experiment_at_paper_scale_is_a_checked_one(path, real_data):
    experiment = parse(read_file(path)).model_copy(update={"device": "cpu"})
    assert assemble(experiment).method.parameters > 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in FILES if p not in [*SUITES, *AT_PAPER_SCALE]], ids=lambda path: path.stem)
def test_two_rounds(path, real_data, tmp_path):
    experiment = parse(read_file(path)).model_copy(update={"rounds": 2})
    result = execute(experiment, tmp_path / "run")
    first, second = result.rounds
    assert second.accuracy > 0.2
    assert first.loss > second.loss
    assert not first.dropped
    assert not second.dropped
    assert tw.load(next((tmp_path / "run").glob("model.*"))) is not None
