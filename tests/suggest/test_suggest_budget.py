"""Texts of budgets, deadlines and links; what a ledger has cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinwire.errors import ConfigError
from thinwire.suggest import Budget, read_budget, read_link


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("5MB", 5e6), ("5 mb", 5e6), ("1.5kB", 1500), (".5GB", 5e8), ("3KiB", 3072), ("2MiB", 2 * 2**20),
        ("1GiB", 2**30), ("700", 700), (" 700 B ", 700),
    ],
)  # fmt: skip
def test_sizes(text, amount):
    assert read_budget(text, None) == Budget(amount, "bytes")


@pytest.mark.parametrize(("text", "amount"), [("90", 90), ("90s", 90), ("10min", 600), ("1.5 h", 5400), ("2 MIN", 120)])
def test_times(text, amount):
    assert read_budget(None, text) == Budget(amount, "seconds")


@pytest.mark.parametrize(
    "text", ["", "MB", "5TB", "5 M", "-1MB", "0", "0.0kB", "1e6", "5min", "nan", "٣MB", "1_000", "5."]
)
def test_what_is_no_size(text):
    with pytest.raises(ConfigError, match="a number above 0, alone or with B, kB, MB, GB, KiB, MiB or GiB") as caught:
        read_budget(text, None)
    assert str(caught.value).startswith(f"budget = {text!r}")


@pytest.mark.parametrize("text", ["", "10m", "5MB", "0min", "soon", "1:30"])
def test_what_is_no_time(text):
    with pytest.raises(ConfigError, match=r"deadline = .*: a number above 0, alone or with s, min or h"):
        read_budget(None, text)


@pytest.mark.parametrize("given", [(None, None), ("5MB", "10min")])
def test_it_is_one_of_the_two(given):
    with pytest.raises(ConfigError, match=r"budget = .*: either a budget of bytes, as 5MB, or a deadline over links"):
        read_budget(*given)


def test_links():
    assert read_link("1/10/50") == {"link": {"up_mbps": 1.0, "down_mbps": 10.0, "latency_ms": 50.0}}
    for text in ("1/10", "1/10/50/2", "a/b/c", "", "1,10,50"):
        with pytest.raises(ConfigError, match=r"link = .*: UP/DOWN/LATENCY in Mbit/s, Mbit/s and ms"):
            read_link(text)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.01, 1e3)), min_size=1))
def test_costs_are_the_ledgers(rounds):
    rows, total = [], 0
    for size, seconds in rounds:
        total += size
        rows.append({"total_bytes": total, "link_seconds": seconds})
    assert Budget(1, "bytes").costs(rows) == [row["total_bytes"] for row in rows]
    assert Budget(1, "seconds").costs(rows)[-1] == pytest.approx(sum(row["link_seconds"] for row in rows))
    assert not Budget(total, "bytes").used_up(rows)
    assert Budget(total - 0.5, "bytes").used_up(rows)
    assert not Budget(1).used_up([])


def test_amounts_for_people():
    assert str(Budget(5e6)) == "5.00 MB"
    assert str(Budget(600, "seconds")) == "600 s"
