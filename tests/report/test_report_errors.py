"""The page says what the updates of each run lost, and nothing where nothing was lost or measured."""

from thinwire.report import read_run
from thinwire.report.errors import errors_list
from thinwire.report.page import render


def with_errors(make_run, make_rounds, name, errors, missed):
    rows = [
        row | {"nmse": error, "worst_nmse": error and 2 * error, "missed": missed}
        for row, error in zip(make_rounds(len(errors)), errors, strict=True)
    ]
    return read_run(make_run(name, rows=rows))


def test_the_mean_and_the_largest_error_stand_on_the_page(make_run, make_rounds):
    run = with_errors(make_run, make_rounds, "a", [0.02, None, 0.04], 3)
    text = errors_list([run], ["a"])
    assert "a: mean 0.0300, largest 0.0800; 6 updates missed the codec&#x27;s target" in text
    assert text in render([run])
    quiet = with_errors(make_run, make_rounds, "b", [1e-8, 3e-8], None)
    assert "b: mean 2.0e-08, largest 6.0e-08</li>" in errors_list([quiet], ["b"])


def test_nothing_is_said_where_nothing_was_lost(make_run, make_rounds):
    exact = with_errors(make_run, make_rounds, "a", [0.0, 0.0], None)
    before = read_run(make_run("b"))  # a ledger of before has no errors
    assert errors_list([exact, before], ["a", "b"]) == ""
    assert "Error of the updates" not in render([exact, before])
