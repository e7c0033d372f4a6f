import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from thinwire.errors import DataError
from thinwire.report import read_run, write_report
from thinwire.report.page import render
from thinwire.report.parts import MOST_DROPPED_ROWS, dropped_table

HOSTILE = (
    """</script></pre><script>document.title='pwned'</script><img src=x onerror="document.title='pwned'">&${run}"""
)


class Elements(HTMLParser):
    """The elements of a page, and its text outside scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self._within = [], [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._within = tag

    def handle_endtag(self, tag):
        self._within = ""

    def handle_data(self, data):
        if self._within not in ("script", "style"):
            self.text += data


def page_of(*folders):
    return Elements(render([read_run(folder) for folder in folders]))


def test_one_run_makes_one_complete_page(make_run, tmp_path):
    out = tmp_path / "new" / "report.html"
    assert write_report([make_run("x")], out) == out
    page = Elements(out.read_text(encoding="utf-8"))
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    for text in ("fedpm on mnist", "97.50 %", "31.2 kB", "0.936", "train (s)", "bound: coding", "seed = 0"):
        assert text in page.text
    assert f"thinwire run {tmp_path}/x/config.toml" in page.text
    assert "Dropped" not in page.text
    assert "button" not in page.tags


def test_a_page_asks_nothing_of_the_network(make_run):
    page = page_of(make_run())
    assert not [entry for entry in page.attributes if entry[1] in ("src", "href", "srcset", "action")]
    assert any(value.startswith("default-src 'none'") for _, name, value in page.attributes if name == "content")


def test_plotly_is_inlined_once(make_run):
    page = render([read_run(make_run(name)) for name in "abc"])
    assert page.count("plotly.js v") == render([read_run(make_run("d"))]).count("plotly.js v") > 0


@pytest.mark.parametrize("count", [2, 12, 14])
def test_many_runs_share_one_page(make_run, make_rounds, count):
    folders = [make_run(f"run{i}", rows=make_rounds(3 + i, up_bpp=0.1 * 1.5**i), method=f"m{i}") for i in range(count)]
    page = page_of(*folders)
    assert f"Comparison of {count} runs" in page.text
    assert page.tags.count("details") == count
    assert page.tags.count("button") == 4 * count
    assert all(f"m{i}" in page.text for i in range(count))


def test_the_lead_names_the_most_accurate_run(make_run):
    page = page_of(make_run("low", accuracy=0.5), make_run("high", accuracy=0.75))
    assert re.search(r"Highest: 75\.00 % accuracy for .* \(high\)\.", page.text)


def test_the_lead_does_not_compare_across_data(make_run):
    page = page_of(make_run("a", data="mnist"), make_run("b", data="digits"))
    assert "On digits, mnist." in page.text
    assert "Highest" not in page.text


def test_stages_are_summed_and_readable(make_run, make_rounds):
    rows = [{**row, "seconds": {"client_train": 1.5}} for row in make_rounds(4)]
    page = page_of(make_run(rows=rows))
    assert "client train (s)" in page.text
    assert "6.00" in page.text


def test_a_folder_named_twice_is_shown_once(make_run, tmp_path):
    folder = make_run("x")
    text = write_report([folder, tmp_path / "x" / ".." / "x"], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Comparison" not in Elements(text).text


def test_the_same_runs_give_the_same_page(make_run):
    run = read_run(make_run())
    assert render([run]) == render([run])


def test_an_unfinished_run_has_a_page(make_run):
    page = page_of(make_run("x", finished=False))
    assert "x (unfinished)" in page.text
    assert "in 3 rounds, unfinished." in page.text


def test_a_run_without_rounds_has_a_page_without_charts(make_run):
    page = page_of(make_run(rows=[], finished=False))
    assert "No round is finished yet." in page.text
    assert "figure" not in page.tags


def test_dropped_clients_are_listed(make_run, make_rounds):
    rows = make_rounds(3)
    rows[1]["dropped"] = [{"client": 7, "reason": "late"}, {"client": 9, "reason": "late"}, {"reason": "checksum"}]
    page = page_of(make_run(rows=rows))
    assert "3 updates asked for and not merged" in page.text
    assert "7, 9" in page.text
    assert "checksum" in page.text


def test_a_long_list_of_dropped_clients_is_cut_and_says_so(make_run, make_rounds):
    rows = [{**row, "dropped": [{"client": 1, "reason": "late"}]} for row in make_rounds(MOST_DROPPED_ROWS + 5)]
    html = dropped_table([read_run(make_run(rows=rows))], ["a"])
    assert Elements(html).tags.count("tr") == MOST_DROPPED_ROWS + 1
    assert "5 more rows" in html


def hostile_run(make_run, make_rounds):
    rows = make_rounds(2)
    rows[0]["dropped"] = [{"client": HOSTILE, "reason": HOSTILE}]
    rows[1]["seconds"][HOSTILE] = 1.0
    config = f"# {HOSTILE}\n"
    return make_run(
        "<img src=x>", rows=rows, config=config, method=HOSTILE, data=HOSTILE, model=HOSTILE, uplink=HOSTILE
    )


def test_hostile_text_stays_text(make_run, make_rounds):
    hostile, plain = page_of(hostile_run(make_run, make_rounds), make_run("b")), page_of(make_run("c"), make_run("d"))
    assert hostile.tags.count("script") == plain.tags.count("script")
    assert "img" not in hostile.tags
    assert not [name for _, name, _ in hostile.attributes if name.startswith("on")]
    assert f"# {HOSTILE}" in hostile.text


def test_half_a_surrogate_pair_does_not_stop_the_page(make_run, tmp_path):
    assert write_report([make_run(method="\ud800")], tmp_path / "r.html").exists()


def test_a_missing_run_leaves_an_old_page_alone(tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(DataError, match="not a run folder"):
        write_report([tmp_path / "nowhere"], out)
    assert out.read_text() == "old"


def test_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least one run"):
        write_report([], tmp_path / "report.html")


def test_a_page_that_cannot_be_written_leaves_nothing_behind(make_run, tmp_path):
    out = tmp_path / "folder.html"
    out.mkdir()
    with pytest.raises(DataError, match=r"folder\.html: cannot be written"):
        write_report([make_run("x")], out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.html", "x"]


def test_importing_the_package_does_not_import_plotly_or_torch():
    code = "import sys, thinwire.report; print([m for m in ('plotly', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
