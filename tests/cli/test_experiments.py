"""Every experiment file is one that runs: two rounds each; entries of suites and GPU settings on a sample of data."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import thinwire as tw
from thinwire import compare, data
from thinwire.api import execute
from thinwire.data import Dataset
from thinwire.runtime.assembly import assemble
from thinwire.runtime.experiment import CohortSettings, parse, read_file

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "experiments").rglob("*.toml"))
SUITES = [path for path in FILES if "entries" in read_file(path)]
SINGLE = [path for path in FILES if path not in SUITES]
AT_PAPER_SCALE = [path for path in SINGLE if path.stem.startswith("paper-")]  # for a GPU


def _experiments():
    """Every entry of every suite, and every single experiment at paper scale, by name."""
    for path in SUITES:
        name = f"{path.parent.name}/{path.stem}"
        yield from (pytest.param(e, id=f"{name}-{entry}") for entry, e in compare.entries(read_file(path)).items())
    for path in AT_PAPER_SCALE:
        yield pytest.param(parse(read_file(path)), id=f"{path.parent.name}/{path.stem}")


@pytest.fixture
def real_data(monkeypatch):
    """The folder with Parquet files of the real data sets; without it the test is skipped."""
    folder = Path(os.environ.get("THINWIRE_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "mnist" / "train.parquet").is_file():
        pytest.skip("needs MNIST as Parquet under $THINWIRE_DATA/mnist")
    monkeypatch.setenv("THINWIRE_DATA", str(folder))


@cache
def _sample(name):
    """A data set as it comes, cut to its first 30 training and 10 test images."""
    full = data.load(name)
    train, test = (split.take(np.arange(n)) for split, n in ((full.train, 30), (full.test, 10)))
    return Dataset(full.name, train, test, full.classes)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_entry_of_a_suite_is_a_checked_experiment(path):
    assert len(compare.entries(read_file(path))) >= 2


@pytest.mark.parametrize("path", AT_PAPER_SCALE, ids=lambda path: path.stem)
def test_an_experiment_at_paper_scale_is_a_checked_one(path, real_data):
    experiment = parse(read_file(path)).model_copy(update={"device": "cpu"})
    assert assemble(experiment).method.parameters > 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in SINGLE if p not in AT_PAPER_SCALE], ids=lambda path: path.stem)
def test_two_rounds(path, real_data, tmp_path):
    experiment = parse(read_file(path)).model_copy(update={"rounds": 2})
    result = execute(experiment, tmp_path / "run")
    first, second = result.rounds
    assert second.accuracy > 0.2
    assert first.loss > second.loss
    assert not first.dropped
    assert not second.dropped
    assert tw.load(next((tmp_path / "run").glob("model.*"))) is not None


@pytest.mark.slow
@pytest.mark.parametrize("experiment", list(_experiments()))
def test_two_rounds_on_a_sample(experiment, real_data, tmp_path, monkeypatch):
    sample = _sample(experiment.data.source)
    monkeypatch.setattr(data, "load", lambda name: sample)
    hostile = experiment.faults.any or "aggregate" in experiment.server
    fewer = {"clients": 10 if hostile else 3, "allow_empty": False}
    experiment = experiment.model_copy(
        update={
            "rounds": 2,
            "device": "cpu",
            "data": experiment.data.model_copy(update=fewer),
            "cohort": CohortSettings(size=10 if hostile else 2),
            "local": experiment.local.model_copy(update={"epochs": 1}),
        }
    )
    result = execute(experiment, tmp_path / "run", workers=1)
    assert experiment.faults.any or [len(entry.dropped) for entry in result.rounds] == [0, 0]
    assert all(entry.total_bytes > 0 for entry in result.rounds)
    assert result.model is not None
