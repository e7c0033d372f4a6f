"""Where the bytes go: sums over the rounds, by message and by part, and the bars that show them."""

import re

import pytest

from thinwire.errors import DataError
from thinwire.report import human_bytes, read_run
from thinwire.report.bars import bar_table
from thinwire.report.breakdown import message_table, part_table
from thinwire.report.page import render

SORTED = ("up_by_sort", "down_by_sort", "up_parts")


def cells(html):
    """The rows of a table as {heading: text}."""
    rows = re.findall(r"<tr>(.*?)</tr>", html.partition("<tbody>")[2])
    found = [re.findall(r'data-label="(.*?)">(.*?)</td>', row) for row in rows]
    return [{heading: re.sub("<.*?>", "", text) for heading, text in row} for row in found]


def widths(html):
    return [float(width) for width in re.findall(r"width:([\d.]+)%", html)]


def test_all_bytes_are_told_apart_by_message(make_run, make_rounds):
    rows = make_rounds(3)
    rows[0]["up_by_sort"] = {"setup": rows[0]["up_bytes"]}
    (row,) = cells(message_table([read_run(make_run(rows=rows))], ["a"]))
    up, down, evaluate = (sum(row[key] for row in rows) for key in ("up_bytes", "down_bytes", "evaluate_bytes"))
    assert row == {
        "Run": "a",
        "up: updates": human_bytes(up - rows[0]["up_bytes"] - 74),
        "up: set-up": human_bytes(rows[0]["up_bytes"]),
        "up: requests": "74 B",
        "down: keyframes": "3.00 kB",
        "down: steps": human_bytes(down - 3000),
        "evaluation": human_bytes(evaluate),
        "all": human_bytes(up + down + evaluate),
    }


def test_rounds_of_before_the_sorts_show_both_directions(make_run, make_rounds):
    """A run that was begun before and resumed since has both."""
    rows = make_rounds(3)
    rows[0] = {key: value for key, value in rows[0].items() if key not in SORTED}
    rows[1] |= dict.fromkeys(SORTED)
    run = read_run(make_run(rows=rows, evaluate_bytes=3000))
    (row,) = cells(message_table([run], ["a"]))
    assert row["up, not told apart"] == human_bytes(rows[0]["up_bytes"] + rows[1]["up_bytes"])
    assert row["up: requests"] == "37 B"
    assert row["all"] == human_bytes(sum(row["up_bytes"] + row["down_bytes"] + 1000 for row in rows))
    assert cells(part_table([run], ["a"]))[0]["frame"] == "430 B"


def test_runs_without_parts_are_left_out(make_run, make_rounds):
    old = read_run(make_run("old", rows=[{**row, "up_parts": None} for row in make_rounds(2)]))
    runs = [old, read_run(make_run("new"))]
    assert [row["Run"] for row in cells(part_table(runs, ["old", "new"]))] == ["new"]
    assert part_table(runs[:1], ["old"]) == ""
    assert "Inside the updates" in render(runs)
    assert "Inside the updates" not in render(runs[:1])


def test_nothing_is_known_of_a_run_without_rounds(make_run):
    assert message_table([read_run(make_run(rows=[], finished=False))], ["a"]) == ""


def test_a_sort_of_another_version_is_shown_and_escaped(make_run, make_rounds):
    rows = make_rounds(1)
    rows[0]["up_parts"]["<b>"] = 7
    html = part_table([read_run(make_run(rows=rows))], ["<a>"])
    assert cells(html)[0]["&lt;b&gt;"] == "7 B"
    assert "<b>" not in html
    assert "<a>" not in html


@pytest.mark.parametrize("key", SORTED)
def test_a_table_that_is_none_is_refused(make_run, make_rounds, key):
    rows = [{**make_rounds(1)[0], key: {"update": "many"}}]
    with pytest.raises(DataError, match=f"line 1, {key}: update is not a number"):
        read_run(make_run(rows=rows))


def test_bars_are_shares_or_lengths():
    totals, heads = {"a": {"x": 1.0, "y": 3.0}, "b": {"y": 2.0}}, {"y": "Y", "x": "X", "z": "Z"}
    assert widths(bar_table(totals, heads, str, "all")) == [75, 25, 100]
    assert widths(bar_table(totals, heads, str, "all", longest=8)) == [37.5, 12.5, 25]
    assert cells(bar_table(totals, heads, str, "all")) == [
        {"Run": "a", "Y": "3.0", "X": "1.0", "all": "4.0"},
        {"Run": "b", "Y": "2.0", "X": "–", "all": "2.0"},
    ]
    assert bar_table({"a": {"x": 0.0}}, heads, str, "all") == ""
