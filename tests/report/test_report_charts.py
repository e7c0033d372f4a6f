from itertools import accumulate

import pytest
from plotly.graph_objects import Figure

from thinwire.report import read_run
from thinwire.report.charts import accuracy_by_bytes, bpp_by_round, byte_views, log_ticks, run_colour


@pytest.fixture
def runs(make_run, make_rounds):
    return [read_run(make_run(f"r{i}", rows=make_rounds(5, up_bpp=0.1 * 3**i))) for i in range(3)]


def test_accuracy_is_drawn_in_percent_over_all_bytes(runs, make_rounds):
    figure = accuracy_by_bytes(runs, ["a", "b", "c"])
    first = figure["data"][0]
    rows = make_rounds(5, up_bpp=0.1)
    assert first["x"] == [row["total_bytes"] for row in rows]
    assert first["y"] == [100 * row["accuracy"] for row in rows]
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert all(text.endswith("B") for text in figure["layout"]["xaxis"]["ticktext"])


def test_plotly_accepts_every_figure(runs):
    labels = ["a", "b", "c"]
    for figure in (accuracy_by_bytes(runs, labels), bpp_by_round(runs, labels, "up_bpp", "up_bpp_marginal")):
        Figure(figure)


def test_a_run_has_one_colour_everywhere(runs):
    figures = accuracy_by_bytes(runs, "abc"), bpp_by_round(runs, "abc", "down_bpp")
    colours = [[trace["line"]["color"] for trace in figure["data"]] for figure in figures]
    assert colours[0] == colours[1] == [run_colour(index) for index in range(3)]
    assert len({run_colour(index) for index in range(12)}) == 12


def test_the_bound_is_dashed_and_named(runs):
    solid, dashed = bpp_by_round(runs[:1], ["a"], "up_bpp", "up_bpp_marginal")["data"]
    assert "dash" not in solid["line"]
    assert dashed["line"]["dash"] == "dash"
    assert dashed["name"] == "a, bound"


def test_a_run_without_a_bound_has_none_drawn(make_run, make_rounds):
    rows = [{**row, "up_bpp_marginal": None} for row in make_rounds(2)]
    run = read_run(make_run(rows=rows))
    assert len(bpp_by_round([run], ["a"], "up_bpp", "up_bpp_marginal")["data"]) == 1


def test_rounds_that_were_not_evaluated_leave_no_gap(make_run, make_rounds):
    rows = make_rounds(4)
    rows[1]["accuracy"] = rows[2]["accuracy"] = None
    (trace,) = accuracy_by_bytes([read_run(make_run(rows=rows))], ["a"])["data"]
    assert trace["x"] == [rows[0]["total_bytes"], rows[3]["total_bytes"]]


def test_nothing_to_draw_is_none(make_run):
    run = read_run(make_run(rows=[], finished=False))
    assert accuracy_by_bytes([run], ["a"]) is None
    assert bpp_by_round([run], ["a"], "up_bpp", "up_bpp_marginal") is None


def test_near_costs_start_at_zero_and_far_ones_are_logarithmic(make_run, make_rounds):
    near, far = (read_run(make_run(f"r{bpp}", rows=make_rounds(3, up_bpp=bpp))) for bpp in (1, 32))
    tiny = read_run(make_run("tiny", rows=make_rounds(3, up_bpp=0.01)))
    assert bpp_by_round([near, far], "ab", "down_bpp")["layout"]["yaxis"]["type"] == "log"
    assert bpp_by_round([near], "a", "down_bpp")["layout"]["yaxis"]["range"][0] == 0
    ticks = bpp_by_round([tiny, far], "ab", "up_bpp")["layout"]["yaxis"]["ticktext"]
    assert "0.01" in ticks
    assert "10" in ticks


def test_text_of_a_run_is_escaped_for_plotly(runs):
    trace = accuracy_by_bytes(runs[:1], ["<a href='x'>"])["data"][0]
    assert "<a" not in trace["name"] + "".join(trace["text"])


def test_bytes_of_one_direction_or_both(runs, make_rounds):
    rows = make_rounds(5, up_bpp=0.1)
    views, figure = byte_views(runs), accuracy_by_bytes(runs, "abc")
    assert views["up"]["x"][0] == list(accumulate(row["up_bytes"] for row in rows))
    assert views["down"]["x"][0] == list(accumulate(row["down_bytes"] for row in rows))
    assert views["both"]["x"] == [trace["x"] for trace in figure["data"]]
    for name, words in (("up", "bytes up so far"), ("down", "bytes down so far"), ("both", "both directions")):
        layout = views[name]["layout"]
        assert words in layout["xaxis.title"]["text"]
        low, high = layout["xaxis.range"]
        assert all(10**low <= x <= 10**high for line in views[name]["x"] for x in line)


def test_a_direction_without_bytes_cannot_be_chosen(make_run, make_rounds):
    rows = [{**row, "up_bytes": 0} for row in make_rounds(2)]
    assert set(byte_views([read_run(make_run(rows=rows))])) == {"down", "both"}


def test_rounds_that_were_not_evaluated_count_in_all_views(make_run, make_rounds):
    rows = make_rounds(3)
    rows[0]["accuracy"] = rows[1]["accuracy"] = None
    views = byte_views([read_run(make_run(rows=rows))])
    assert views["up"]["x"] == [[sum(row["up_bytes"] for row in rows)]]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (130, 180, [100, 200]),
        (100, 100, [100, 200]),
        (90, 1100, [100, 200, 500, 1000]),
        (1e3, 1e5, [1e3, 3e3, 1e4, 3e4, 1e5]),
        (3e4, 2e9, [1e5, 1e6, 1e7, 1e8, 1e9]),
    ],
)
def test_ticks_are_round_numbers(low, high, ticks):
    assert log_ticks(low, high) == ticks


@pytest.mark.parametrize("decades", [0, 1, 2, 5, 8, 13, 40, 300])
@pytest.mark.parametrize("low", [1, 3.3, 9.99])
def test_ticks_are_two_to_six(low, decades):
    ticks = log_ticks(low, low * 10.0 ** min(decades, 299))
    assert 2 <= len(ticks) <= 6
    assert ticks == sorted(set(ticks))
