import pytest

from thinwire.report import human_bytes, markdown_table, read_run, run_labels, summary_rows
from thinwire.report.tables import numeric_column, percent, significant


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1_210_000, "1.21 MB"),
        (12_149_000, "12.1 MB"),
        (999_400, "999 kB"),
        (999_600, "1.00 MB"),
        (9_999_000, "10.0 MB"),
        (3 * 10**12, "3.00 TB"),
        (5 * 10**18, "5000 PB"),
    ],
)
def test_human_bytes_keeps_three_digits(n, text):
    assert human_bytes(n) == text


@pytest.mark.parametrize(("n", "text"), [(500_000, "500 kB"), (2e6, "2 MB"), (10, "10 B")])
def test_human_bytes_of_a_round_number_with_one_digit(n, text):
    assert human_bytes(n, digits=1) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0.00"), (0.03125, "0.0312"), (0.9996, "1.00"), (32.02, "32.0"), (1234.5, "1234")]
)
def test_significant_digits(value, text):
    assert significant(value) == text


def test_percent_takes_a_fraction():
    assert percent(0.97531) == "97.53 %"


def test_a_summary_row_holds_the_readable_numbers(make_run):
    run = read_run(make_run("x", accuracy=0.9731, mean_up_bpp=0.0312, up_bytes=10**6, down_bytes=2 * 10**6))
    (row,) = summary_rows([run])
    assert row == {
        "Run": "x",
        "Method": "fedpm",
        "Uplink": "shared_mask",
        "Model": "lenet",
        "Data": "mnist",
        "Rounds": "3",
        "Accuracy": "97.31 %",
        "File accuracy": "97.50 %",
        "Total bytes": "3.00 MB",
        "Up bpp": "0.0312",
        "Down bpp": row["Down bpp"],
        "Model file": "31.2 kB",
        "Model bpp": "0.936",
    }


def test_what_is_not_known_is_a_dash(make_run):
    (row,) = summary_rows([read_run(make_run("x", rows=[], finished=False))])
    assert row["Run"] == "x (unfinished)"
    assert {row[key] for key in ("Uplink", "Accuracy", "File accuracy", "Up bpp", "Model file", "Model bpp")} == {"–"}


def test_labels_are_the_shortest_that_differ(make_run):
    names = ["a/fedpm", "b/fedpm", "b/ssfl"]
    assert run_labels([read_run(make_run(name)) for name in names]) == names
    assert run_labels([read_run(make_run("c/eden"))]) == ["eden"]
    assert run_labels([]) == []


def test_labels_of_one_folder_given_twice_are_numbered(make_run):
    run = read_run(make_run("x"))
    assert run_labels([run, run]) == ["x (1)", "x (2)"]


def test_markdown_aligns_numbers_and_escapes_bars():
    rows = [{"Name": "a|b\nc\\", "Total": "1.2 MB"}, {"Name": "d", "Total": "–"}]
    assert markdown_table(rows) == "| Name | Total |\n| --- | ---: |\n| a\\|b c\\\\ | 1.2 MB |\n| d | – |\n"


def test_markdown_of_nothing_is_nothing():
    assert markdown_table([]) == ""


@pytest.mark.parametrize(("cells", "numeric"), [("1 –", True), ("– –", False), ("1 x", False), ("-2 0.5", True)])
def test_a_column_of_numbers_may_have_holes(cells, numeric):
    assert numeric_column([{"h": cell} for cell in cells.split()], "h") is numeric
