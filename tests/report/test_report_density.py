"""The density of the layers, off a run's summary."""

import pytest

from thinwire.errors import DataError
from thinwire.report.density import density_by_layer
from thinwire.report.page import render
from thinwire.report.runs import Run, read_run


def run_with(folder, **densities):
    return Run(folder, "", {"model_density": densities}, [])


def test_the_chart_has_a_line_a_sparse_run(tmp_path):
    runs = [run_with(tmp_path / "dense"), run_with(tmp_path / "sparse", **{"c": 1.0, "a<b": 0.25})]
    figure = density_by_layer(runs, ["dense", "sparse"])
    (line,) = figure["data"]
    assert (line["x"], line["y"], line["meta"]) == ([1, 2], [100.0, 25.0], 1)
    assert "a&lt;b: 25.00 %" in line["text"][1]
    assert density_by_layer(runs[:1], ["dense"]) is None
    assert "Density by layer" in render(runs)
    assert "Density by layer" not in render(runs[:1])


def test_it_is_read_from_the_summary(make_run):
    folder = make_run("a", model_density={"fc1.weight": 0.5})
    assert read_run(folder).summary["model_density"] == {"fc1.weight": 0.5}
    assert read_run(make_run("before", model_density=None)).summary["model_density"] == {}
    unknown = read_run(make_run("unknown", model_density={"a": None, "b": float("nan")}))
    assert density_by_layer([unknown], ["unknown"]) is None
    with pytest.raises(DataError, match=r"summary\.json, model_density"):
        read_run(make_run("broken", model_density=[0.5]))
