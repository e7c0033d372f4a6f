"""Rules that bear lying clients, against slow plain versions of the papers' definitions; and who may use which."""

import re

import numpy as np
import pytest
from toyworld import World, experiment

from thinwire.errors import ConfigError, DecodeError, QuorumError
from thinwire.layout import Layout
from thinwire.methods import METHODS
from thinwire.methods.aggregate import AGGREGATES, BLOCK, Krum, Mean, Median, MultiKrum, TrimmedMean, from_config
from thinwire.methods.base import Update
from thinwire.methods.fedpm import against
from thinwire.runtime.assembly import assemble
from thinwire.runtime.experiment import parse
from thinwire.tally import Tally

LAYOUT = Layout.of({"a": (BLOCK, 2), "b": (7,)})  # three blocks
SIX = {"load": "toyworld:blobs", "clients": 6}
RULES = {"median": {}, "trimmed_mean": {"trim": 0.2}, "krum": {"byzantine": 1}, "multi_krum": {"byzantine": 1}}


def changes(clients, seed=0, size=LAYOUT.size):
    draw = np.random.default_rng(seed)
    return [draw.normal(size=size).astype(np.float32) for _ in range(clients)]


def applied(rule, given):
    return rule((Update(10**n, change) for n, change in enumerate(given)), LAYOUT)  # samples must not matter


# plain versions ------------------------------------------------------------------------------------------------------


def plain_median(values):
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def plain_trimmed(values, trim):
    cut = int(trim * len(values))
    kept = sorted(values)[cut : len(values) - cut]
    return sum(kept) / len(kept)


def plain_krum(given, f):
    """Blanchard et al., section 3: the order in which Krum would choose."""
    scores = []
    for i, one in enumerate(given):
        wide = one.astype(np.float64)
        others = sorted(float(((wide - other) ** 2).sum()) for j, other in enumerate(given) if j != i)
        scores.append(sum(others[: len(given) - f - 2]))
    return sorted(range(len(given)), key=lambda i: (scores[i], i))


@pytest.mark.parametrize("clients", [1, 2, 5, 8])
def test_median_is_the_median_of_every_coordinate(clients):
    given = changes(clients)
    result = applied(Median(), given)
    for place in (0, 1, BLOCK, 2 * BLOCK + 6):
        assert result[place] == pytest.approx(plain_median([float(change[place]) for change in given]), rel=1e-6)
    assert result.dtype == np.float32


@pytest.mark.parametrize(("clients", "trim"), [(5, 0.2), (10, 0.3), (7, 0.49), (9, 0.12), (4, 0.1)])
def test_trimmed_mean_is_that_of_every_coordinate(clients, trim):
    given = changes(clients)
    result = applied(TrimmedMean(trim), given)
    for place in (0, 1, BLOCK, 2 * BLOCK + 6):
        wanted = plain_trimmed([float(change[place]) for change in given], trim)
        assert result[place] == pytest.approx(wanted, rel=1e-5, abs=1e-7)


def test_trimmed_mean_cuts_as_many_as_the_fraction_says():
    assert [TrimmedMean(0.29).cut(100), TrimmedMean(0.1).cut(10), TrimmedMean(0.2).cut(9)] == [29, 1, 1]


@pytest.mark.parametrize(("clients", "f"), [(5, 1), (9, 3), (12, 0), (11, 2)])
def test_krum_and_multi_krum_choose_as_the_paper_does(clients, f):
    given = changes(clients, seed=clients)
    order = plain_krum(given, f)
    np.testing.assert_array_equal(applied(Krum(f), given), given[order[0]])
    kept = np.mean([given[i].astype(np.float64) for i in order[: clients - f]], axis=0)
    np.testing.assert_allclose(applied(MultiKrum(f), given), kept, rtol=1e-6, atol=1e-7)


def test_krum_takes_the_first_of_equal_changes():
    same = np.ones(LAYOUT.size, np.float32)
    assert applied(Krum(0), [same * 9, same, same.copy(), same.copy()]) is not None
    np.testing.assert_array_equal(applied(Krum(0), [same * 9, same, same.copy(), same.copy()]), same)


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(0.25), Krum(3), MultiKrum(3)], ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("lie", [-1.0, 1e6, -1e30], ids=["flipped", "scaled", "huge"])
def test_a_quarter_of_liars_moves_nothing_far(rule, lie):
    draw = np.random.default_rng(1)
    truth = draw.normal(size=LAYOUT.size).astype(np.float32)
    honest = [truth + draw.normal(0, 0.1, LAYOUT.size).astype(np.float32) for _ in range(9)]
    given = [np.float32(lie) * truth] * 3 + honest

    def error(rule):
        change = rule((Update(1, change) for change in given), LAYOUT)
        return np.linalg.norm(change.astype(np.float64) - truth) / np.linalg.norm(truth)

    far, near = error(Mean()), error(rule)
    assert near < 0.2
    assert far > 2 * near


@pytest.mark.parametrize("name", AGGREGATES)
def test_no_updates_and_no_parameters(name):
    rule = AGGREGATES[name]()
    assert rule(iter(()), LAYOUT) is None
    empty = [Update(1, np.zeros(0, np.float32)) for _ in range(6)]
    assert rule(iter(empty), Layout.of({})).shape == (0,)


def test_krum_is_left_with_too_few():
    with pytest.raises(QuorumError, match=r"6 updates, 7 needed with server\.byzantine = 2"):
        applied(Krum(2), changes(6))


# settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"aggregate": "mode"}, "server.aggregate = 'mode': one of mean, median, trimmed_mean, krum, multi_krum"),
        ({"aggregate": "median", "trim": 0.1}, "server.trim = 0.1: unknown field, known: none"),
        ({"trim": 0.1}, "server.trim = 0.1: unknown field, known: none"),
        ({"aggregate": "trimmed_mean", "trim": 0.5}, "server.trim = 0.5: above 0, below 0.5"),
        ({"aggregate": "krum", "byzantine": 1.5}, "server.byzantine = 1.5: a value of type int"),
        ({"aggregate": "krum", "byzantine": -1}, "server.byzantine = -1: a number of clients from 0 on"),
        ({"max_votes_against": 0}, "server.max_votes_against = 0: above 0, at most 1"),
        ({"max_votes_against": True}, "server.max_votes_against = True: above 0, at most 1"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(server, message):
    with pytest.raises(ConfigError) as caught:
        parse({"method": {"name": "fedavg"}, "server": server})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"aggregate": "krum", "byzantine": 2}, "server.byzantine = 2: at most 1 with 6 clients a round"),
        ({"aggregate": "trimmed_mean", "trim": 0.1}, "server.trim = 0.1: at least 1/6"),
        ({"aggregate": "median", "optimizer": "majority"}, "mean with optimizer = 'majority'"),
        ({"max_votes_against": 0.5}, "server.max_votes_against = 0.5: 1 for fedavg: its clients do not vote"),
    ],
)
def test_a_rule_that_does_not_fit_the_cohort_or_the_method_is_refused(server, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        assemble(experiment("fedavg", data=SIX, server=server))


def test_rules_are_read_from_settings():
    assert from_config({}) == Mean()
    assert from_config({"aggregate": "trimmed_mean", "trim": 0.3, "lr": 2.0}) == TrimmedMean(0.3)
    assert from_config({"aggregate": "multi_krum"}) == MultiKrum(1) != Krum(1)


# methods -------------------------------------------------------------------------------------------------------------

REFUSE = {"scaffold", "client-masks", "dispfl", "fedpm"}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_rule_or_refuses_it_in_one_line(name, rule):
    density = {"density": 0.5} if name in ("ssfl", "client-masks", "dispfl", "sparsyfed") else {}
    settings = {"data": SIX, "method": density, "server": {"aggregate": rule, **RULES[rule]}}
    if name in REFUSE:
        with pytest.raises(ConfigError, match=rf"server\.aggregate = .*: mean for {name}: "):
            World(name, **settings)
        return
    world, plain = World(name, **settings), World(name, data=SIX, method=density)
    entries = [world.play() for _ in range(3)]
    assert [entry.clients for entry in entries] == [6, 6, 6]
    others = [plain.play() for _ in range(3)]
    assert (entries[-1].loss == others[-1].loss) == (name == "local")


@pytest.mark.parametrize("optimizer", ["fedadam", "fedavgm"])
def test_a_rule_stands_before_the_server_optimiser(optimizer):
    world = World("fedavg", data=SIX, server={"aggregate": "median", "optimizer": optimizer})
    losses = [world.play().loss for _ in range(6)]
    assert losses[-1] < losses[0]


def test_flipped_clients_stop_the_mean_and_not_the_median():
    settings = {"data": {"load": "toyworld:many", "clients": 10}, "faults": {"sign_flip": 0.4}}
    losses = {}
    for name, server in (("mean", {}), ("median", {"aggregate": "median"})):
        world = World("fedavg", **settings, server=server)
        losses[name] = [world.play().loss for _ in range(6)][-1]
    clean = World("fedavg", data=settings["data"])
    best = [clean.play().loss for _ in range(6)][-1]
    assert losses["median"] - best < 0.5 * (losses["mean"] - best)


# masks ---------------------------------------------------------------------------------------------------------------


def test_votes_against_the_counts_weigh_as_the_counts_lean():
    tally = Tally(0, 4, np.array([4, 3, 2, 0], np.uint32))  # leans 4, 2, 0, -4
    assert against(np.array([1, 1, 1, 0], np.uint8), tally) == 0
    assert against(np.array([1, 0, 0, 0], np.uint8), tally) == pytest.approx(0.2)
    assert against(np.array([0, 0, 1, 1], np.uint8), tally) == 1
    draw = np.random.default_rng(0)
    mask = (draw.random(500) < 0.5).astype(np.uint8)
    counts = Tally(0, 9, draw.integers(0, 10, 500).astype(np.uint32))
    assert against(mask, counts) + against(1 - mask, counts) == pytest.approx(1)
    assert against(mask, Tally(0, 0, np.zeros(500, np.uint32))) == 0  # before the first masks


def test_inverted_masks_are_refused_by_name_once_there_are_counts():
    settings = {"data": {"load": "toyworld:many", "clients": 10}, "model": {"build": "toyworld:roomy"}}
    world = World("fedpm", **settings, faults={"sign_flip": 0.3}, server={"max_votes_against": 0.5})
    plain = World("fedpm", **settings, faults={"sign_flip": 0.3})
    clean = World("fedpm", **settings)
    entries, others, best = ([w.play() for _ in range(6)] for w in (world, plain, clean))
    assert [entry.clients for entry in entries] == [10, 7, 7, 7, 7, 7]
    assert all(
        re.match(r"mask: 0\.\d+ of its votes are against", drop["reason"]) for e in entries for drop in e.dropped
    )
    assert best[-1].loss < entries[-1].loss + 0.02
    assert entries[-1].loss - best[-1].loss < 0.3 * (others[-1].loss - best[-1].loss)


def test_honest_masks_are_not_refused_and_full_ones_are():
    data = {"load": "toyworld:many", "clients": 10}
    world = World("fedpm", data=data, model={"build": "toyworld:roomy"}, server={"max_votes_against": 0.4})
    assert [world.play().clients for _ in range(5)] == [10] * 5
    state = world.progress.server
    full = np.ones_like(state.tally.ones, dtype=np.uint8)
    assert against(full, state.tally) > 0.4
    random = np.random.default_rng(0).integers(0, 2, full.size, dtype=np.uint8)
    assert against(random, state.tally) > 0.4


def test_a_mask_of_another_round_is_refused_before_it_votes():
    world = World("fedpm", data=SIX, server={"max_votes_against": 0.5})
    with pytest.raises(DecodeError):
        world.method.read(world.progress.server, 0, b"TW")


def test_bounds_that_a_method_cannot_have_are_refused():
    with pytest.raises(ConfigError, match=r"server\.max_update_norm = 1\.0: not for fedpm"):
        World("fedpm", server={"max_update_norm": 1.0})
    with pytest.raises(ConfigError, match=r"server\.max_votes_against = 0\.5: 1 for ssfl"):
        World("ssfl", server={"max_votes_against": 0.5})
