"""What the page computes time and energy from; the browser tests hold what it makes of it."""

import json
import re

import pytest
from plotly.graph_objects import Figure

from thinwire.report import read_run
from thinwire.report.links import RADIOS, accuracy_by_seconds, asked, controls, crossings, link_table
from thinwire.report.page import render


def data_of(page):
    """The JSON that the page's script reads."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def test_the_radios_are_those_of_the_paper():
    """Huang et al., MobiSys 2012, Table 4: α_u, α_d in mW per Mbit/s, β in mW."""
    assert {name: tuple(radio.values()) for name, radio in RADIOS.items()} == {
        "LTE": (438.39, 51.97, 1288.04),
        "Wi-Fi": (283.17, 137.01, 132.86),
        "3G": (868.98, 122.12, 817.88),
    }


def test_a_dropped_client_was_asked_but_not_one_of_an_evaluation():
    dropped = [{"client": 1, "reason": "late"}, {"client": 2}, {"client": 3, "reason": "evaluation: OSError"}]
    assert asked({"clients": 5, "dropped": dropped}) == 7


def test_a_skipped_round_was_sent_to_its_clients_and_is_timed(make_run, make_rounds):
    rows = make_rounds(3)
    rows[1] |= {"clients": 0, "dropped": [{"client": n, "reason": "dropped on the way"} for n in range(4)]}
    (known,) = crossings([read_run(make_run(rows=rows))])
    assert known["asked"] == [10, 4, 10]
    assert known["down"] == [row["down_bytes"] for row in rows]


def test_the_page_holds_what_crossed_once(make_run, make_rounds):
    rows = make_rounds(3)
    rows[1] |= {"accuracy": None, "dropped": [{"client": 4, "reason": "late"}]}
    run = read_run(make_run(rows=rows))
    expected = {
        "up": [row["up_bytes"] for row in rows],
        "down": [row["down_bytes"] for row in rows],
        "asked": [10, 11, 10],
        "scored": [True, False, True],
        "clients": 20,
    }
    assert crossings([run]) == [expected]
    found = data_of(render([run]))
    assert found["runs"] == [expected]
    assert found["radios"] == RADIOS
    assert set(found["views"]) == {"up", "down", "both"}


def test_a_run_that_does_not_say_who_took_part_is_left_out(make_run, make_rounds):
    old = read_run(make_run("old", rows=[{**row, "clients": None} for row in make_rounds(2)]))
    new = read_run(make_run("new"))
    assert crossings([old])[0]["asked"] == []
    assert [trace["meta"] for trace in accuracy_by_seconds([old, new], ["old", "new"])["data"]] == [1]
    assert "old" not in link_table([old, new], ["old", "new"])
    assert accuracy_by_seconds([old], ["old"]) is None
    assert "Over a link" not in render([old])


def test_the_chart_has_a_point_a_scored_round(make_run, make_rounds):
    rows = make_rounds(3)
    rows[1]["accuracy"] = None
    figure = accuracy_by_seconds([read_run(make_run(rows=rows))], ["<a>"])
    Figure(figure)
    (line,) = figure["data"]
    assert line["y"] == [100 * rows[0]["accuracy"], 100 * rows[2]["accuracy"]]
    assert "<a>" not in "".join(line["text"])


def test_the_table_has_mean_bytes_and_room_for_the_rest(make_run, make_rounds):
    rows = make_rounds(2)
    for row in rows:
        row |= {"up_bytes": 12_000, "down_bytes": 34_000}
    html = link_table([read_run(make_run(rows=rows))], ["<a>"])
    assert '"Sent a round">1.20 kB<' in html
    assert '"Received a round">3.40 kB<' in html
    assert re.findall(r'data-run="0" data-of="(\w+)"', html) == ["roundSeconds", "seconds", "roundJoules", "joules"]
    assert "<a>" not in html


@pytest.mark.parametrize(
    "chosen", ['<option selected value="10">', '<option selected value="20">', 'value="10" required']
)
def test_the_controls_begin_with_a_plain_link(chosen):
    assert chosen in controls()


def test_no_text_of_a_run_ends_the_data(make_run):
    page = render([read_run(make_run("</script>", method="</script><script>"))])
    assert "</" not in re.search(r'id="data">(.*?)</script>', page)[1]
